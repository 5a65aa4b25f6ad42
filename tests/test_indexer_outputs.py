"""Nothing is overwritten by accident: what outputs refuse, what they replace, and that nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from catalog_factory import SPEC, indexed
from command_line import medlens
from pydicom.data import get_testdata_file

from indexer import outputs, renaming
from indexer.output_formats import (
    OutputFormat,
    beside,
    csv_file,
    html_page,
    json_document,
    json_lines,
    npz,
    parquet,
    picture,
    table,
)
from indexer.outputs import Output, require_folder, require_outputs
from indexer.store.place import CATALOG_FILE, KEY_FILE
from indexer.store.store import Store
from indexer.tasks.exchange import EXPORTS, export_frames
from retrieval.errors import OutputError

ROWS = csv_file("rows", ("a", "b"))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with Store.create(tmp_path / "store", SPEC) as made:
        root = tmp_path / "archive"
        root.mkdir()
        (root / "raw.ima").write_bytes(b"without a preamble")
        archive = made.catalog.files.archive_id(str(root))
        made.catalog.files.commit(archive, [indexed("raw.ima", "1.2.3", sentences=("Clear.",)), indexed("b", "1.2.4")])
        made.refresh()
    return tmp_path / "store"


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


INSIDE = [CATALOG_FILE, f"{CATALOG_FILE}-wal", f"{CATALOG_FILE}-shm", KEY_FILE, "vectors/frames.faiss", "new.csv"]


@pytest.mark.parametrize("name", [*INSIDE, "vectors/reports/new.csv"])
@pytest.mark.parametrize("way", ["straight", "linked folder", "dots"])
def test_nothing_inside_a_store_is_written(name: str, way: str, store: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to("store")
    place = {"straight": store, "linked folder": tmp_path / "linked", "dots": store / "vectors" / ".."}[way] / name
    before = snapshot(store)
    with pytest.raises(OutputError, match=r"can't be written: it is inside the store 'store'"):
        Output(place, ROWS, force=True).write_text("a,b\n")
    assert snapshot(store) == before


def test_links_devices_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    (tmp_path / "link.csv").symlink_to("mine.csv")
    (tmp_path / "dangling.csv").symlink_to("nowhere.csv")
    (tmp_path / "folder").mkdir()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    for name, why in (
        ("link.csv", "it is a link"),
        ("dangling.csv", "it is a link"),
        ("folder", "it is a folder"),
        ("socket", "it is a socket"),
        ("mine.csv/below.csv", "the folder 'mine.csv' does not exist"),
    ):
        with pytest.raises(OutputError, match=why):
            Output(tmp_path / name, ROWS, force=True).require()
    listening.close()
    if Path("/dev/zero").is_char_device():
        with pytest.raises(OutputError, match="it is a device"):
            Output(Path("/dev/zero"), ROWS, force=True).require()
    assert (tmp_path / "mine.csv").read_text() == "a,b\n1,2\n"


def test_stdout_by_its_name_is_added_to(tmp_path: Path) -> None:
    target = tmp_path / "log"
    target.write_text("before\n")
    handle = os.open(target, os.O_WRONLY | os.O_APPEND)
    Output(Path(f"/dev/fd/{handle}"), ROWS).write_text("a,b\n")
    os.close(handle)
    assert target.read_text() == "before\na,b\n"


def test_dicom_is_never_replaced(store: Path, tmp_path: Path) -> None:
    image = tmp_path / "a.dcm"
    image.write_bytes(Path(str(get_testdata_file("CT_small.dcm"))).read_bytes())
    before = image.read_bytes()
    with pytest.raises(OutputError, match=r"'a.dcm' is a DICOM file; medlens never replaces it"):
        Output(image, ROWS, force=True).write_text("a,b\n")
    assert image.read_bytes() == before
    raw = Output(tmp_path / "archive" / "raw.ima", ROWS, force=True)
    raw.require()
    with Store.open(store) as opened, pytest.raises(OutputError, match=r"'raw.ima' is a DICOM file"):
        raw.require_not_of_archive(opened)


def test_a_database_and_its_log_are_never_replaced(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "store.db") as made:
        made.execute("CREATE TABLE t (x)")
    made.close()
    for name in ("store.db", "store.db-wal", "store.db-shm", "store.db-journal"):
        with pytest.raises(OutputError, match="is a database or belongs to one"):
            Output(tmp_path / name, ROWS, force=True).require()


PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
OWN: dict[str, tuple[OutputFormat, bytes, bytes]] = {  # an earlier output, and what looks like one
    "csv": (ROWS, b"a,b\n1,2\n", b"a,b,notes of mine\n1,2,x\n"),
    "csv of less": (ROWS, b"b,a\n", b"a\n1\n"),
    "csv with values": (csv_file("rows", ("a",), ("score.",)), b"a,score.x\n", b"a,scores\n"),
    "jsonl": (json_lines("rows", ("a", "b")), b'{"a": 1, "b": [2]}\n', b'{"a": 1}\n'),
    "nested": (json_lines("rows", ("a",)), b'{"a": 1}\n', b'{"a": ' + b"[" * 60_000 + b"\n"),
    "json": (
        json_document("answers", ("query", "where")),
        b'{"query": "x", "where": null, "re',
        b'{"query": {"a": 1}}',
    ),
    "html": (
        html_page("a page", "hits"),
        b'<!doctype html>\n<meta name="generator" content="medlens hits">',
        b"<!doctype html>\n<title>medlens hits</title>",
    ),
    "png": (picture("a montage", "montage"), PNG + b"tEXtSoftware\0medlens montage", PNG + b"IHDR"),
    "png of another kind": (
        picture("a montage", "montage"),
        PNG + b"tEXtSoftware\0medlens montage",
        PNG + b"tEXtSoftware\0medlens render",
    ),
    "jpeg": (picture("x", "render"), b"\xff\xd8\xff\xfe\0\x10medlens render", b"\xff\xd8 medlens render"),
    "text": (picture("x", "render"), PNG + b"tEXtSoftware\0medlens render", b"medlens render"),
    "parquet": (parquet("x", "mark"), b"PAR1mark\x04\0\0\0PAR1", b"PAR1markxxxx\x04\0\0\0PAR1"),
    "parquet that lies": (parquet("x", "mark"), b"PAR1mark\x04\0\0\0PAR1", b"PAR1mark\xff\xff\xff\x7fPAR1"),
}


@pytest.mark.parametrize("case", OWN)
def test_only_what_medlens_wrote_itself_is_replaced_without_a_word(case: str, tmp_path: Path) -> None:
    form, own, foreign = OWN[case]
    target = tmp_path / "out"
    target.write_bytes(foreign)
    with pytest.raises(OutputError, match=r"'out' exists already, and it is not .* that medlens wrote") as caught:
        Output(target, form).write_text("new")
    assert "--force" in caught.value.hint
    assert target.read_bytes() == foreign
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    Output(target, form, force=True).write_text("new")
    assert target.read_text() == "new"
    target.write_bytes(own)
    Output(target, form).write_text("newer")
    assert target.read_text() == "newer"
    target.write_bytes(b"")
    Output(target, form).write_text("newest")  # of an empty file nothing is lost


def test_a_table_has_no_mark(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("query: x")
    with pytest.raises(OutputError, match="exists already, and it is not"):
        Output(tmp_path / "out", table("a table of hits")).require()


def test_an_npz_is_known_by_its_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", a=np.zeros(1), b=np.zeros(1))
    np.savez(tmp_path / "more.npz", a=np.zeros(1), b=np.zeros(1), c=np.zeros(1))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "own.npz").read_bytes()[:100])
    form = npz("x", ("a", "b"))
    assert [form.recognises(tmp_path / name) for name in ("own.npz", "more.npz", "cut.npz")] == [True, False, False]


@pytest.mark.parametrize("form", EXPORTS)
def test_an_export_replaces_an_earlier_one_and_nothing_else(form: str, store: Path, tmp_path: Path) -> None:
    target = tmp_path / f"out.{form}"
    with Store.open(store) as opened:
        assert export_frames(opened, target) == export_frames(opened, target) == 4
        target.write_bytes(b"mine")
        with pytest.raises(OutputError, match="exists already, and it is not"):
            export_frames(opened, target)
        assert target.read_bytes() == b"mine"
        assert export_frames(opened, target, force=True) == 4
        if form == "faiss":
            (tmp_path / "out.faiss.jsonl").write_text("my notes\n")
            with pytest.raises(OutputError):
                export_frames(opened, target)
            assert (tmp_path / "out.faiss.jsonl").read_text() == "my notes\n"
    assert EXPORTS["faiss"].recognises(target) is False


def test_what_came_meanwhile_stays_and_the_output_is_kept_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    why = "another program created it meanwhile, so the output was saved as 'out"
    with pytest.raises(OutputError, match=why) as caught:  # noqa: SIM117
        with Output(target, ROWS).whole() as temporary:
            temporary.write_text("a,b\nan hour's work\n")
            target.write_text("somebody else's")
    assert target.read_text() == "somebody else's"
    (kept,) = (path for path in tmp_path.iterdir() if path != target)
    assert kept.name in str(caught.value) and kept.suffix == ".csv"
    assert kept.read_text() == "a,b\nan hour's work\n"


def test_a_link_that_came_meanwhile_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    with pytest.raises(OutputError, match="it is a link"):  # noqa: SIM117
        with Output(tmp_path / "out.csv", ROWS, force=True).whole() as temporary:
            temporary.write_text("new")
            (tmp_path / "out.csv").symlink_to("precious")
    assert (tmp_path / "precious").read_text() == "precious"


def after_the_last_look(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object], *, plain: bool) -> None:
    """Something happens between the last look at the output's place and the rename; `plain`: without renameat2."""
    give_name = renaming.give_name

    def give_name_late(*arguments: object) -> None:
        happens()
        give_name(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(outputs, "give_name", give_name_late)
    if plain:
        monkeypatch.setattr(renaming, "_renameat2", lambda: None)


@pytest.mark.parametrize("plain", [False, True], ids=["exchanged", "renamed"])
@pytest.mark.parametrize("there", [None, "a,b\nold\n"], ids=["new", "replaced"])
@pytest.mark.parametrize("by", ["a file", "a link", "a folder"])
def test_what_comes_after_the_last_look_is_not_replaced(
    by: str, there: str | None, plain: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, other = tmp_path / "out.csv", tmp_path / "other"
    other.write_text("somebody else's")
    if there is not None:
        target.write_text(there)

    def comes() -> None:
        target.unlink(missing_ok=True)
        if by == "a file":
            target.write_text("somebody else's")
        elif by == "a link":
            target.symlink_to("other")
        else:
            target.mkdir()

    after_the_last_look(monkeypatch, comes, plain=plain)
    with pytest.raises(
        OutputError,
        match=r"'out\.csv' is another file now; another program created it meanwhile, so the output was saved as",
    ):
        Output(target, ROWS).write_text("a,b\nnew\n")
    assert other.read_text() == "somebody else's"
    assert target.is_dir() if by == "a folder" else target.read_text() == "somebody else's"
    assert target.is_symlink() == (by == "a link")
    (kept,) = (path for path in tmp_path.iterdir() if path not in (target, other))
    assert kept.read_text() == "a,b\nnew\n"


@pytest.mark.parametrize("plain", [False, True], ids=["exchanged", "renamed"])
def test_a_folder_that_became_a_link_after_the_last_look_leads_nowhere_else(
    plain: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (elsewhere / "out.csv").write_text("somebody else's")

    def moved() -> None:
        folder.rename(tmp_path / "moved")
        folder.symlink_to("elsewhere")

    after_the_last_look(monkeypatch, moved, plain=plain)
    Output(folder / "out.csv", ROWS).write_text("a,b\nnew\n")
    assert (elsewhere / "out.csv").read_text() == "somebody else's"
    assert (tmp_path / "moved" / "out.csv").read_text() == "a,b\nnew\n"
    assert [path.name for path in (tmp_path / "moved").iterdir()] == ["out.csv"]


def test_where_there_are_no_hard_links_an_output_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    Output(tmp_path / "out.csv", ROWS).write_text("a,b\nnew\n")
    assert (tmp_path / "out.csv").read_text() == "a,b\nnew\n"
    after_the_last_look(monkeypatch, lambda: (tmp_path / "two.csv").write_text("somebody else's"), plain=False)
    with pytest.raises(OutputError, match=r"'two\.csv' is another file now"):
        Output(tmp_path / "two.csv", ROWS).write_text("a,b\nnew\n")
    assert (tmp_path / "two.csv").read_text() == "somebody else's"


def test_an_output_that_was_made_private_stays_so(tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("a,b\n")
    (tmp_path / "out.csv").chmod(0o600)
    Output(tmp_path / "out.csv", ROWS).write_text("a,b\n1,2\n")
    assert (tmp_path / "out.csv").stat().st_mode & 0o777 == 0o600


def test_two_outputs_are_two_files(tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(".")
    with pytest.raises(OutputError, match="two outputs have the name"):
        require_outputs(Output(tmp_path / "x.csv", ROWS), None, Output(tmp_path / "linked" / "x.csv", ROWS))
    require_outputs(Output(Path("/dev/null"), ROWS), Output(Path("/dev/null"), ROWS))


def test_folders_are_outside_of_stores(store: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "nowhere").symlink_to("gone")
    for folder, why in (
        (store, "inside the store"),
        (store / "vectors", "inside the store"),
        (store / "new" / "deep", "inside the store"),
        (tmp_path / "file", "a file has that name"),
        (tmp_path / "nowhere", "it is a link to a folder that does not exist"),
    ):
        with pytest.raises(OutputError, match=why):
            require_folder(folder)
    require_folder(tmp_path / "new")
    require_folder(tmp_path)


COMMANDS: dict[str, Callable[[Path], list[object]]] = {
    "search -o": lambda to: ["search", "x", "-o", to],
    "search --montage": lambda to: ["search", "x", "--montage", to.with_suffix(".png")],
    "search --cohort": lambda to: ["search", "x", "--cohort", to.with_suffix(".json")],
    "search --copy-to": lambda to: ["search", "x", "--copy-to", to],
    "select -o": lambda to: ["select", "-o", to],
    "select --cohort": lambda to: ["select", "--cohort", to.with_suffix(".csv")],
    "select --copy-to": lambda to: ["select", "--copy-to", to],
    "classify -o": lambda to: ["classify", "-o", to],
    "export": lambda to: ["export", to, "--format", "npz"],
    "index --report": lambda to: ["index", to.parent, "--report", to],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", [CATALOG_FILE, KEY_FILE, "vectors"])
def test_no_command_writes_into_a_store(command: str, name: str, store: Path) -> None:
    before = snapshot(store)
    arguments = [*COMMANDS[command](store / name), "--store", store]
    result = medlens(*arguments, code=1)
    assert "inside the store 'store'" in result.stderr or "it is a folder" in result.stderr
    assert {n: v for n, v in snapshot(store).items() if "-" not in n} == before


def test_a_command_says_force_and_takes_it(store: Path, tmp_path: Path) -> None:
    listing = tmp_path / "list.csv"
    for arguments in (
        ["select", "--format", "csv", "-o", listing],
        ["select", "--level", "instance", "--format", "jsonl", "-o", listing],
        ["select", "--format", "json", "-o", listing],
        ["select", "--cohort", listing],
    ):
        listing.write_text("my,notes\n")
        result = medlens(*arguments, "--store", store, code=1)
        assert "--force" in result.stderr and listing.read_text() == "my,notes\n"
        medlens(*arguments, "--store", store, "--force")
        first = listing.read_text()
        medlens(*arguments, "--store", store)  # its own output
        assert listing.read_text() == first != "my,notes\n"


def test_beside_wants_both(tmp_path: Path) -> None:
    form = beside("x", b"IxMp", ".jsonl", json_lines("keys", ("id",)))
    (tmp_path / "x").write_bytes(b"IxMp")
    assert not form.recognises(tmp_path / "x")
    (tmp_path / "x.jsonl").write_text(json.dumps({"id": 1}) + "\n")
    assert form.recognises(tmp_path / "x")


def test_a_model_is_written_into_a_folder_of_its_own(store: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from indexer.tasks.training import _require_output

    notes, model = tmp_path / "notes", tmp_path / "model"
    for folder in (notes, model):
        folder.mkdir()
        _require_output(folder, force=False)  # an empty one
    (notes / "README.md").write_text("my notes")
    with pytest.raises(
        OutputError, match="'notes' exists already, and it does not contain a model that `medlens train` wrote"
    ):
        _require_output(notes, force=False)
    _require_output(notes, force=True)
    described = {"model_cfg": {}, "preprocess_cfg": {}, "medlens": {"name": "x"}}
    (model / "open_clip_config.json").write_text(json.dumps(described))
    _require_output(model, force=False)
    (model / "README.md").symlink_to("../notes/README.md")
    with pytest.raises(OutputError, match=r"'README\.md' in 'model' is a link"):
        _require_output(model, force=True)
    with pytest.raises(OutputError, match="inside the store"):
        _require_output(store / "model", force=True)


def test_a_report_is_written_into_its_own_files_alone(store: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "metrics.json").write_text('{"mine": 1}')
    for place, why in ((folder, "'metrics.json' exists already"), (store / "report", "inside the store")):
        result = medlens("evaluate", "--store", store, "-o", place, code=1)
        assert why in result.stderr
    assert (folder / "metrics.json").read_text() == '{"mine": 1}'
    assert [path.name for path in folder.iterdir()] == ["metrics.json"]
