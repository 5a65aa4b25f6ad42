"""Kinds of hostile store, model, label set, rows and import: how each is made, and what must come out, in words."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import sqlite3
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from catalog_factory import DIM
from trials import seeds
from trials.judging import LONGEST, answers
from trials.registry import Tally, peak_memory, trial

from indexer.sources.opening import locate
from indexer.store.place import CATALOG_FILE, KEY_FILE
from indexer.store.store import Store
from indexer.tasks.exchange import import_frames
from indexer.tasks.facts import store_facts
from indexer.tasks.verifying import verify_store
from retrieval.encoders.clip import ClipEncoder
from retrieval.encoders.numpy_text.encoder import open_encoder
from retrieval.errors import (
    EncoderError,
    EvaluationError,
    FileUnreadable,
    LabelSetError,
    MedlensError,
    StoreCorrupt,
    StoreError,
    StoreIncompatible,
    WeightsNotFound,
)
from retrieval.evaluation.pairs import read_pairs
from retrieval.zeroshot.labels import load_labels

DEEP = "[" * 100_000 + "]" * 100_000
MOST_GROWTH = 600  # MiB by which the process may grow, torch and small models among it
PRECIOUS = "of somebody else"
Make = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """`change` makes what is good in a folder hostile. `error` and `says` are what must come out when it is used; no
    error: it is used all the same."""

    name: str
    change: Make
    error: type[MedlensError] | None
    says: str = ""


# -- how they are made


def schema(*statements: str) -> Make:
    def change(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "store" / CATALOG_FILE, isolation_level=None)) as database:
            database.execute("PRAGMA foreign_keys = OFF")
            for statement in statements:
                database.execute(statement)
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    return change


def setting(key: str, value: Any) -> Make:
    """A setting of the manifest; a text is written as it is, JSON or not."""
    text = value if isinstance(value, str) else json.dumps(value)
    return schema(f"INSERT OR REPLACE INTO manifest (key, value) VALUES ('{key}', '{text}')")


def model_setting(**values: Any) -> Make:
    """Of the model that the manifest names; None takes one out."""
    changes = ", ".join(f"'$.{key}', json('{json.dumps(value)}')" for key, value in values.items())
    return schema(f"UPDATE manifest SET value = json_set(value, {changes}) WHERE key = 'model'")


def instead(name: str, make: Make) -> Make:
    """A file or folder goes, and something else comes in its place."""

    def change(folder: Path) -> None:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        make(path)

    return change


def link(target: str) -> Make:
    return lambda path: path.symlink_to(target)


def text(content: str | bytes) -> Make:
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content)


def sparse(size: int, start: bytes = b"") -> Make:
    def make(path: Path) -> None:
        path.write_bytes(start)
        os.truncate(path, size)

    return make


def cut(name: str, share: float) -> Make:
    return lambda folder: os.truncate(folder / name, int((folder / name).stat().st_size * share))


def changed(name: str, *keys: str, value: Any) -> Make:
    """A value in a JSON file."""

    def change(folder: Path) -> None:
        values = inner = json.loads((folder / name).read_text("utf-8"))
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        (folder / name).write_text(json.dumps(values), encoding="utf-8")

    return change


def trailer(text_of: Callable[[dict[str, Any]], str]) -> Make:
    """Another trailer of the frames' index file, its checksum right."""
    footer = struct.Struct("<IQ8s")

    def change(folder: Path) -> None:
        path = folder / "store" / "vectors" / "frames.faiss"
        content = path.read_bytes()
        _, length, magic = footer.unpack(content[-footer.size :])
        meta = json.loads(content[-footer.size - length : -footer.size])
        new = text_of(meta).encode()
        path.write_bytes(content[: -footer.size - length] + new + footer.pack(zlib.crc32(new), len(new), magic))

    return change


def report_part(name: str, make: Callable[[Path], object]) -> Make:
    """Another part of the report index, its checksum right."""

    def change(folder: Path) -> None:
        reports = folder / "store" / "vectors" / "reports"
        make(reports / name)
        changed("mark.json", "checksums", name, value=zlib.crc32((reports / name).read_bytes()))(reports)

    return change


def npz(**members: bytes) -> Make:
    """An npz file with other members than it has."""

    def change(folder: Path) -> None:
        found = seeds.npz_members(folder / "in.npz") | members
        with zipfile.ZipFile(folder / "in.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in found.items():
                archive.writestr(f"{name}.npy", content)

    return change


def header(shape: str, descr: str = "'<f2'") -> bytes:
    said = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(said)) + said


def packed_text(content: str) -> bytes:
    return header("()", f"'<U{len(content)}'") + content.encode("utf-32-le")


def many_members(folder: Path) -> None:
    with zipfile.ZipFile(folder / "in.npz", "w") as archive:
        for n in range(40_000):
            archive.writestr(f"{n}.npy", b"")


class Ran:
    ran = False

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (Ran, "ran", True)


def parquet(change: Callable[[Any], Any], **options: Any) -> Make:
    """The table of an export, changed, and written anew."""

    def made(folder: Path) -> None:
        import pyarrow.parquet as pq

        table = pq.read_table(folder / "in.parquet")
        pq.write_table(change(table), folder / "in.parquet", **options)

    return made


def long_uids(table: Any) -> Any:
    import pyarrow as pa

    at = table.column_names.index("sop_instance_uid")
    return table.set_column(at, "sop_instance_uid", pa.array(["1" * (1 << 20)] * len(table)))


def lying_sizes(folder: Path) -> None:
    """Forty megabytes of UIDs, of which the file's description says that they are 100 bytes."""
    import pyarrow.parquet as pq

    parquet(long_uids, compression="GZIP", use_dictionary=False)(folder)
    path = folder / "in.parquet"
    described = pq.ParquetFile(path).metadata.row_group(0)
    (size,) = (
        described.column(n).total_uncompressed_size
        for n in range(described.num_columns)
        if described.column(n).path_in_schema == "sop_instance_uid"
    )
    found = varint(2 * size)
    content = path.read_bytes()
    place = content.rindex(found)
    path.write_bytes(content[:place] + varint(200, len(found)) + content[place + len(found) :])


def lying_page(folder: Path) -> None:
    """A page whose own header says that it is longer than the file, in Thrift's compact protocol."""
    import pyarrow.parquet as pq

    parquet(lambda table: table, compression="NONE", use_dictionary=False)(folder)
    path = folder / "in.parquet"
    described = pq.ParquetFile(path).metadata.row_group(0)
    columns = [described.column(n) for n in range(described.num_columns)]
    (column,) = (each for each in columns if each.path_in_schema.startswith("vector"))
    content = bytearray(path.read_bytes())
    place = column.data_page_offset + 3  # after the page's type; then its size unpacked and packed, fields 2 and 3
    for _ in range(2):
        end = place
        while content[end] & 0x80:
            end += 1
        content[place : end + 1] = varint((1 << (7 * (end - place + 1))) - 2, end - place + 1)
        place = end + 2
    path.write_bytes(content)


def varint(number: int, length: int = 0) -> bytes:
    """Seven bits a byte, the lowest first; as long as is asked for."""
    out = bytearray()
    while number or not out or len(out) < length:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out[-1] &= 0x7F
    return bytes(out)


# -- what must come out

_CATALOG = f"store/{CATALOG_FILE}"
_OWN = "expected a file of the store's own"
_MADE = "has something that medlens did not make"
_TYPES = "holds values of another type than their column"
NO_END = "WITH RECURSIVE c(n) AS (SELECT 'x' UNION ALL SELECT n || 'x' FROM c) SELECT n AS version_num FROM c"

STORES = (
    Case("catalog: a folder", instead(_CATALOG, Path.mkdir), StoreCorrupt, "is a folder"),
    Case("catalog: a pipe", instead(_CATALOG, os.mkfifo), StoreCorrupt, f"is a pipe or a device; {_OWN}"),
    Case("catalog: a link to a device", instead(_CATALOG, link("/dev/zero")), StoreCorrupt, f"is a link; {_OWN}"),
    Case(
        "catalog: a link to itself",
        instead(_CATALOG, link(CATALOG_FILE)),
        StoreError,
        "is not a medlens store: it has no",
    ),
    Case("catalog: a link elsewhere", instead(_CATALOG, link("../beside/precious")), StoreCorrupt, "is a link"),
    Case("catalog: nothing in it", instead(_CATALOG, text("")), StoreCorrupt, "does not state its schema version"),
    Case("catalog: another file", instead(_CATALOG, text("x" * 9000)), StoreCorrupt, "SQLITE_NOTADB"),
    Case("catalog: half of it", cut(_CATALOG, 0.5), StoreCorrupt, "is damaged (SQLITE_CORRUPT)"),
    Case("catalog: a terabyte of zeros", instead(_CATALOG, sparse(1 << 40)), StoreCorrupt, "SQLITE_NOTADB"),
    Case("log: a link elsewhere", instead(f"{_CATALOG}-wal", link("../beside/precious")), StoreCorrupt, "is a link"),
    Case(
        "backup: a link elsewhere",
        instead(f"{_CATALOG}.schema-0001.backup", link("../beside/precious")),
        StoreCorrupt,
        "is a link",
    ),
    Case(
        "schema: of the future",
        schema("UPDATE alembic_version SET version_num = '9999'"),
        StoreIncompatible,
        "has schema '9999', but this version of medlens supports",
    ),
    Case(
        "schema: two versions",
        schema("INSERT INTO alembic_version VALUES ('0001')"),
        StoreCorrupt,
        "states 2 schema versions; expected one",
    ),
    Case(
        "schema: a version without end",
        schema("DROP TABLE alembic_version", f"CREATE VIEW alembic_version AS {NO_END}"),
        StoreCorrupt,
        f"{_MADE}: 'view alembic_version'",
    ),
    Case(
        "schema: a view of frames",
        schema("ALTER TABLE frames RENAME TO f", "CREATE VIEW frames AS SELECT * FROM f, f AS g"),
        StoreCorrupt,
        f"{_MADE}: 'view frames'",
    ),
    Case(
        "schema: a trigger",
        schema("CREATE TRIGGER t AFTER INSERT ON manifest BEGIN DELETE FROM frames; END"),
        StoreCorrupt,
        f"{_MADE}: 'trigger t'",
    ),
    Case(
        "schema: a virtual table",
        schema("DROP TABLE reports", "CREATE VIRTUAL TABLE reports USING fts5(id, instance_id, text)"),
        StoreCorrupt,
        f"{_MADE}: 'table reports'",
    ),
    Case(
        "schema: a computed column",
        schema("ALTER TABLE manifest ADD COLUMN x GENERATED ALWAYS AS (hex(zeroblob(500000000)))"),
        StoreCorrupt,
        f"{_MADE}: 'table manifest'",
    ),
    Case(
        "schema: a table less",
        schema("DROP TABLE frames"),
        StoreCorrupt,
        "no table that is needed (no such table: frames)",
    ),
    Case("manifest: no model", setting("model", []), StoreCorrupt, "does not name a model"),
    Case("manifest: 10^12 numbers", model_setting(embed_dim=10**12), StoreCorrupt, "does not name a model"),
    Case("manifest: numbers with a point", model_setting(embed_dim=8.5), StoreCorrupt, "does not name a model"),
    Case("manifest: an escape", model_setting(name="\x1b[2J"), StoreCorrupt, "does not name a model"),
    Case("manifest: nested", setting("model", DEEP), StoreCorrupt, "the setting 'model' of 'store' is not valid JSON"),
    Case(
        "manifest: a path as its id",
        setting("store_id", '"../../../evil"'),
        StoreCorrupt,
        "a store_id of letters and digits",
    ),
    Case("manifest: windows of nothing", model_setting(render_profile=[7]), StoreCorrupt, "how frames are rendered"),
    Case("manifest: figures of nothing", setting("vector_indexes", [[7]]), None),
    Case("key: a link to a device", instead(f"store/{KEY_FILE}", link("/dev/zero")), StoreError, "it is a device"),
    Case("key: a pipe", instead(f"store/{KEY_FILE}", os.mkfifo), StoreError, "it is a device, a pipe or a socket"),
    Case("key: another's", instead(f"store/{KEY_FILE}", text("x" * 32)), StoreIncompatible, "would be mixed up"),
    Case("vectors: a file", instead("store/vectors", text("x")), StoreCorrupt, "'vectors' in the store"),
    Case("vectors: a link elsewhere", instead("store/vectors", link("../beside")), StoreCorrupt, f"is a link; {_OWN}"),
    Case(
        "index file: a link elsewhere",
        instead("store/vectors/frames.faiss", link("../../beside/precious")),
        StoreCorrupt,
        f"'frames.faiss' in the store 'store' is a link; {_OWN}",
    ),
    Case("index file: a pipe", instead("store/vectors/frames.faiss", os.mkfifo), StoreCorrupt, "is a pipe or a device"),
    Case("index file: a terabyte", instead("store/vectors/frames.faiss", sparse(1 << 40)), None),
    Case("index file: 10^15 rows", trailer(lambda meta: json.dumps(meta | {"count": 10**15})), None),
    Case("index file: before its start", trailer(lambda meta: json.dumps(meta | {"vectors_at": -8})), None),
    Case("index file: a nested trailer", trailer(lambda meta: DEEP), None),
    Case(
        "report index: a link elsewhere",
        instead("store/vectors/reports", link("../../beside")),
        StoreCorrupt,
        "'reports' in the store 'store' is a link",
    ),
    Case("report index: a nested mark", instead("store/vectors/reports/mark.json", text(DEEP)), None),
    Case("report index: nested words", report_part("words.json", text(DEEP)), None),
    Case("report index: words of nothing", report_part("words.json", text('{"nodule": 1000000000}')), None),
    Case(
        "report index: reports of nothing",
        report_part("documents.npy", lambda path: np.save(path, np.full_like(np.load(path), 10**9))),
        None,
    ),
    Case(
        "rows: a text as vector", schema("UPDATE frames SET vector = 'x'"), StoreCorrupt, "vectors of different sizes"
    ),
    Case("rows: a vector of NaN", schema("UPDATE frames SET vector = X'" + "007e" * DIM + "'"), StoreCorrupt, "NaN"),
    Case(
        "rows: a frame of no number",
        schema("UPDATE frames SET frame_number = 'x' || id"),
        StoreCorrupt,
        f"{_TYPES}: frames.frame_number",
    ),
    Case(
        "rows: a file elsewhere",
        schema("UPDATE files SET path = '../../etc/passwd' || id"),
        FileUnreadable,
        "was not stored by medlens: it is absolute, contains '..'",
    ),
    Case(
        "rows: an archive of no name",
        schema(f"UPDATE archives SET root = '/{'x' * 5000}'"),
        FileUnreadable,
        "the file can't be found: File name too long",
    ),
    Case(
        "rows: a date of none",
        schema("UPDATE instances SET study_date = '20200230'"),
        StoreCorrupt,
        f"{_TYPES}: instances.study_date",
    ),
)

_CONFIG, _WEIGHTS = "model/open_clip_config.json", "model/open_clip_model.safetensors"
_TEXT = ("model_cfg", "text_cfg")

MODELS = (
    Case(
        "code for the tokenizer",
        changed(_CONFIG, *_TEXT, "tokenizer_kwargs", value={"trust_remote_code": True}),
        EncoderError,
        "text_cfg.tokenizer_kwargs is {'trust_remote_code': True}",
    ),
    Case(
        "a tokenizer class of its own",
        changed("model/tokenizer_config.json", "tokenizer_class", value="evil.Words"),
        EncoderError,
        "tokenizer_config.json.tokenizer_class is 'evil.Words'",
    ),
    Case(
        "a text model of its own",
        changed("model/config.json", "model_type", value="evil"),
        EncoderError,
        "config.json: model_type is 'evil'",
    ),
    Case(
        "weights that are a pickle",
        instead(_WEIGHTS, text(pickle.dumps(Ran()))),
        EncoderError,
        "is neither a safetensors file nor a torch archive",
    ),
    Case("weights that are a device", instead(_WEIGHTS, link("/dev/zero")), WeightsNotFound, "has no weights"),
    Case(
        "weights in parts elsewhere",
        lambda f: (
            (f / _WEIGHTS).unlink(),
            (f / "model" / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../beside/precious"}}'),
        ),
        WeightsNotFound,
        "has no weights, expected one of",
    ),
    Case(
        "a header of 2^62 bytes",
        instead(_WEIGHTS, text(struct.pack("<Q", 1 << 62) + b"{}")),
        EncoderError,
        "a header of",
    ),
    Case("10^7 layers", changed("model/config.json", "num_hidden_layers", value=10**7), EncoderError, "from 1 to 128"),
    Case(
        "a context of 10^9", changed(_CONFIG, *_TEXT, "context_length", value=10**9), EncoderError, "context_length is"
    ),
    Case(
        "a vocabulary of a negative number",
        changed("model/config.json", "vocab_size", value=-1),
        EncoderError,
        "from 1",
    ),
    Case("a nested configuration", instead(_CONFIG, text(DEEP)), EncoderError, "can't be read: its lists and objects"),
    Case(
        "a pattern without end",
        changed(
            "model/tokenizer.json",
            "pre_tokenizer",
            value={"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False},
        ),
        EncoderError,
        "a pattern is '(a+)+$', expected one without nested",
    ),
    Case(
        "words of a megabyte",
        changed("model/tokenizer.json", "model", "max_input_chars_per_word", value=10**6),
        EncoderError,
        "max_input_chars_per_word is 1000000, expected at most 200",
    ),
    Case(
        "a step that is none",
        changed("model/tokenizer.json", "post_processor", value={"type": "evil"}),
        EncoderError,
        "can't be",
    ),
)

_SET = "name: s\nlabels:\n- {name: CT, prompts: [a]}\n- {name: MR, prompts: [b]}\n"


def labels(content: str | bytes) -> Make:
    return instead("set.yaml", text(content))


LABELS = (
    Case(
        "aliases of aliases",
        labels("a: &a [x, x]\nb: &b [*a, *a]\nlabels: [*b, *b]\n"),
        LabelSetError,
        "the alias *a is not allowed",
    ),
    Case("a Python object", labels("!!python/object/apply:os.getcwd []"), LabelSetError, "could not determine a const"),
    Case("a million labels", labels(_SET + "- {name: x, prompts: [x]}\n" * 10**6), LabelSetError, "1,000,000 bytes"),
    Case("lists in lists", labels("[" * 50_000), LabelSetError, "is nested too deeply"),
    Case("a number of a million digits", labels("name: " + "9" * 900_000), LabelSetError, "is not valid YAML"),
    Case("bytes of zero", labels(_SET.encode() + b"\0"), LabelSetError, "special characters are not allowed"),
    Case("not UTF-8", labels(b"name: \xff\xfe\n"), LabelSetError, "is not valid YAML"),
    Case("a device", instead("set.yaml", link("/dev/zero")), LabelSetError, "it is a device"),
    Case("a pipe", instead("set.yaml", os.mkfifo), LabelSetError, "it is a device, a pipe"),
    Case("a merge key", labels("<<: {name: x}\n" + _SET), None),
    Case(
        "a name that is long", labels(_SET + f"- {{name: {'CT' * 9000}, prompts: [x]}}\n" * 2), LabelSetError, "twice"
    ),
    Case("10,000 things wrong", labels(_SET + "- {x: y}\n" * 10_000), LabelSetError, "and 29990 more"),
)

ROWS = (
    Case(
        "an endless line",
        instead("pairs.jsonl", text('{"a": "' + "x" * (5 << 20))),
        EvaluationError,
        "the row in pairs.jsonl, line 1 has more than",
    ),
    Case("a nested line", instead("pairs.jsonl", text(f'{{"a": {DEEP}}}')), EvaluationError, "line 1 is not JSON"),
    Case("a pipe as rows", instead("pairs.jsonl", os.mkfifo), EvaluationError, "it is a device, a pipe or a socket"),
    Case("a terabyte of rows", instead("pairs.jsonl", sparse(1 << 40)), EvaluationError, "more than 536,870,912 bytes"),
    Case("a list as a row", instead("pairs.jsonl", text("[]\n")), EvaluationError, "line 1 is not a JSON object"),
)

IMPORTS = (
    Case("npz: 10^12 rows", npz(vectors=header(f"({10**12}, {DIM})")), StoreError, "has 1000000000000 vectors"),
    Case("npz: a shape of 10^4300", npz(vectors=header(f"(1{'0' * 4200}, {DIM})")), StoreError, "over 10^15 vectors"),
    Case("npz: objects", npz(sop_instance_uid=header("(40,)", "'|O'") + pickle.dumps(Ran())), StoreError, "not read"),
    Case("npz: a nested model", npz(model=packed_text(DEEP)), StoreError, "description of its model is not valid JSON"),
    Case("npz: 40,000 members", many_members, StoreError, "its list of arrays has"),
    Case("npz: a device", instead("in.npz", link("/dev/zero")), StoreError, "it is not a regular file"),
    Case("npz: a pickle", instead("in.npz", text(pickle.dumps(Ran()))), StoreError, "it is not an npz file"),
)

PARQUETS = (
    Case("parquet: sizes that are not so", lying_sizes, StoreError, "some of its UIDs have more than 256 characters"),
    Case(
        "parquet: a page that is not so long", lying_page, StoreError, "it is not a parquet file, or damaged (OSError)"
    ),
    Case(
        "parquet: a nested model",
        parquet(lambda table: table.replace_schema_metadata({"medlens_model": DEEP})),
        StoreError,
        "description of its model is not valid JSON",
    ),
    Case("parquet: a link to a device", instead("in.parquet", link("/dev/zero")), StoreError, "not a regular file"),
    Case(
        "parquet: 2,000 columns",
        parquet(lambda table: table.append_column("x", table["id"]).select([*["x"] * 2000])),
        StoreError,
        "row groups and 2000 columns",
    ),
)


# -- what is done with them


def use_store(folder: Path) -> None:
    """What searches and `medlens info` and `verify` look at."""
    with Store.open(folder / "store") as store:
        store_facts(store)
        assert store.pseudonym_key and store.place.render_profile
        found = answers(store)
        ids = [i for i, _ in store.frames_index().search(np.ones(DIM, np.float32), 50)[0]]
        for key, attributes in store.catalog.frames.get(ids).values():
            assert int(key.frame_number) > 0
            assert locate(attributes["archive_root"], attributes["file_path"])
        assert found == GOOD.get("answers", found)
        wrong = [check for check in verify_store(store) if not check.sound]
        assert not wrong, wrong


def use_model(folder: Path) -> None:
    """Both ways to load a model refuse it, in the same words or better ones."""
    try:
        open_encoder(str(folder / "model"), "cpu").encode_text(["a chest"])
    finally:
        ClipEncoder.load(str(folder / "model"), "cpu").encode_text(["a chest"])


def use_labels(folder: Path) -> None:
    assert load_labels(str(folder / "set.yaml")).fingerprint


def use_rows(folder: Path) -> None:
    read_pairs(folder / "pairs.jsonl")


def importing(name: str) -> Make:
    def use(folder: Path) -> None:
        with Store.open(folder / "store") as store:
            before = store.catalog.counts()
            try:
                import_frames(store, folder / name)
            finally:
                assert store.catalog.counts() == before

    return use


KINDS: dict[str, tuple[Make, tuple[str, ...], tuple[Case, ...]]] = {
    "store": (use_store, ("store",), STORES),
    "model": (use_model, ("model",), MODELS),
    "label set": (use_labels, ("set.yaml",), LABELS),
    "rows": (use_rows, ("pairs.jsonl",), ROWS),
    "import, npz": (importing("in.npz"), ("store", "in.npz"), IMPORTS),
    "import, parquet": (importing("in.parquet"), ("store", "in.parquet"), PARQUETS),
}
"""By kind: what is done with one, what of the good things is copied for it, and the cases."""

CASES = {f"{kind}: {case.name}": (kind, case) for kind, (_, _, cases) in KINDS.items() for case in cases}
GOOD: dict[str, Any] = {}


def make_good(folder: Path) -> Path:
    """Good ones of every kind, to be copied."""
    store = seeds.store(folder)
    seeds.exports(folder, store)
    (folder / "vectors.npz").rename(folder / "in.npz")
    (folder / "vectors.parquet").rename(folder / "in.parquet")
    seeds.models(folder / "models")
    (folder / "models" / "bert").rename(folder / "model")
    seeds.rows(folder)
    with Store.open(store) as opened:
        GOOD["answers"] = answers(opened)
    return folder


def outcome(name: str, good: Path, folder: Path) -> str:
    """What came of a case: nothing if it is what must come."""
    kind, case = CASES[name]
    use, parts, _ = KINDS[kind]
    folder.mkdir()
    for part in parts:
        if (good / part).is_dir():
            shutil.copytree(good / part, folder / part)
        else:
            shutil.copy(good / part, folder / part)
    (folder / "beside").mkdir()
    (folder / "beside" / "precious").write_text(PRECIOUS)
    (folder / "beside" / "precious").chmod(0o644)
    case.change(folder)
    try:
        use(folder)
    except MedlensError as exc:
        said, seen = str(exc), type(exc)
    else:
        said, seen = "", None
    precious = folder / "beside" / "precious"
    if [path.name for path in (folder / "beside").iterdir()] != ["precious"] or precious.read_text() != PRECIOUS:
        return "something of somebody else's was changed"
    if precious.stat().st_mode & 0o777 != 0o644 or Ran.ran:
        return "rights were changed, or code was run"
    if seen is not case.error or case.says not in said:
        return f"{seen and seen.__name__}: {said[:300]}"
    if "\n" in said or len(said) > LONGEST or str(folder) in said:
        return f"not one short line without a path: {said[:300]}"
    return ""


@trial(attempts=len(CASES), share=0.1)
def hostile(attempts: int, seed: int, folder: Path, tally: Tally) -> None:
    """Hostile stores, models, label sets, rows and imports are refused in words, or used without harm."""
    before = peak_memory(resource.RUSAGE_SELF)
    (folder / "good").mkdir()
    good = make_good(folder / "good")
    for n, name in enumerate(list(CASES)[:attempts]):
        kind, case = CASES[name]
        wrong = outcome(name, good, folder / str(n))
        if wrong:
            tally.failed(f"{name}: {wrong}", kind=kind)
        elif case.error is None:
            tally.read(kind=kind)
        else:
            tally.refused(case.error.__name__, kind=kind)
    grown = peak_memory(resource.RUSAGE_SELF) - before
    tally.require(grown < MOST_GROWTH, f"this process grew by {grown} MiB")
