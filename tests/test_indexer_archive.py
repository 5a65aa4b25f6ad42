"""The walk over an archive."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.records import Rejection
from indexer.sources import folders as archive
from indexer.sources.folders import iter_files, real_path, stored_path
from retrieval.errors import MedlensError


def walk(root: Path, **kwargs: object) -> tuple[list[str], list[Rejection]]:
    rejections: list[Rejection] = []
    files = iter_files(root, on_rejection=rejections.append, **kwargs)  # type: ignore[arg-type]
    return [stat.path for stat, _ in files], rejections


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_walks_in_order_of_the_stored_path(tmp_path: Path) -> None:
    for name in ("b.dcm", "a/z.dcm", "a/b/c.dcm", "a.dcm", "a-1/x", "B", "10", "9"):
        touch(tmp_path / name)
    paths, rejections = walk(tmp_path)
    assert paths == ["10", "9", "B", "a-1/x", "a.dcm", "a/b/c.dcm", "a/z.dcm", "b.dcm"]
    assert paths == sorted(paths)
    assert rejections == []


def test_gives_size_time_and_a_path_to_open(tmp_path: Path) -> None:
    file = touch(tmp_path / "study" / "one.dcm", b"12345")
    os.utime(file, ns=(1, 1_700_000_000_123_456_789))
    [(stat, path)] = iter_files(tmp_path)
    assert (stat.path, stat.size, stat.stamp) == ("study/one.dcm", 5, 1_700_000_000_123_456_789)
    assert path.read_bytes() == b"12345"


def test_a_single_file_is_an_archive(tmp_path: Path) -> None:
    file = touch(tmp_path / "one.dcm")
    [(stat, path)] = iter_files(file)
    assert (stat.path, path) == ("one.dcm", file)
    assert real_path(file, stat.path) == file


def test_order_and_completeness_do_not_depend_on_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(23):
        touch(tmp_path / f"f{i}.dcm")
        touch(tmp_path / f"d{i % 5}" / f"{i}.dcm")
    whole, _ = walk(tmp_path)
    for batch in (1, 2, 7, 28):
        monkeypatch.setattr(archive, "BATCH", batch)
        assert walk(tmp_path) == (whole, [])
    assert len(whole) == 46


def test_what_systems_leave_behind_and_dicomdir_are_passed_over(tmp_path: Path) -> None:
    for name in (".git/objects/x", ".hidden", "._IM1", "Thumbs.db", "@eaDir/IM1", "__MACOSX/IM1", "lost+found/x"):
        touch(tmp_path / name)
    for name in ("DICOMDIR", "sub/dicomdir"):
        touch(tmp_path / name)
    touch(tmp_path / "sub" / "DICOMDIR.dcm")
    assert walk(tmp_path) == (["sub/DICOMDIR.dcm"], [])


@pytest.mark.parametrize("spelling", ["store", "sub/../store", "link"])
def test_the_store_inside_the_archive_is_skipped(tmp_path: Path, spelling: str) -> None:
    touch(tmp_path / "store" / "catalog.sqlite")
    touch(tmp_path / "sub" / "store" / "im.dcm")  # a folder of the same name is no store
    (tmp_path / "link").symlink_to("store")
    skip = [tmp_path / spelling, tmp_path / "not-there"]
    paths, rejections = walk(tmp_path, skip=skip)
    assert paths == ["sub/store/im.dcm"]
    assert [r.reason for r in rejections] == ["linked-folder"]


def test_links_to_files_are_read_and_cycles_are_not_entered(tmp_path: Path) -> None:
    file = touch(tmp_path / "outside" / "real.dcm", b"abc")
    root = tmp_path / "archive"
    root.mkdir()
    (root / "annexed.dcm").symlink_to(file)
    (root / "dangling.dcm").symlink_to(tmp_path / "gone")
    (root / "self").symlink_to("self")
    (root / "up").symlink_to("..")
    (root / "here").symlink_to(".")
    [(stat, path)] = iter_files(root, on_rejection=lambda _: None)
    assert (stat.path, stat.size, path) == ("annexed.dcm", 3, root / "annexed.dcm")
    reasons = {r.path: r.reason for r in walk(root)[1]}
    assert reasons == {
        "dangling.dcm": "dangling-link",
        "here": "linked-folder",
        "self": "unreadable",
        "up": "linked-folder",
    }


def test_the_root_may_be_a_link(tmp_path: Path) -> None:
    touch(tmp_path / "archive" / "im.dcm")
    (tmp_path / "link").symlink_to("archive")
    assert walk(tmp_path / "link") == (["im.dcm"], [])


def test_pipes_and_sockets_are_reported_and_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.dcm")  # opening it would block this test for ever
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock")
        touch(tmp_path / "zz.dcm")
        paths, rejections = walk(tmp_path)
    assert paths == ["zz.dcm"]
    assert [(r.path, r.reason) for r in rejections] == [("pipe.dcm", "not-regular"), ("sock", "not-regular")]
    assert "named pipe" in rejections[0].detail


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder that an ordinary user may read, and that user, since root may read everything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        uid = os.geteuid()
        if uid == 0:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(uid)
            for path in [folder, *folder.rglob("*")]:
                if path.is_dir():
                    path.chmod(0o755)


def test_a_folder_without_permission_costs_one_rejection(unprivileged: Path) -> None:
    uid = os.geteuid()
    if uid == 65534:
        os.seteuid(0)
    touch(unprivileged / "a.dcm")
    touch(unprivileged / "locked" / "b.dcm")
    touch(unprivileged / "z.dcm")
    (unprivileged / "locked").chmod(0)
    os.seteuid(uid)
    paths, [rejection] = walk(unprivileged)
    assert paths == ["a.dcm", "z.dcm"]
    assert (rejection.path, rejection.reason) == ("locked/", "unreadable")
    assert "Permission denied" in rejection.detail
    with pytest.raises(MedlensError, match="Permission denied") as caught:
        iter_files(unprivileged / "locked")
    assert caught.value.hint


def _mkdir(name: str) -> None:
    Path(name).mkdir()


def test_depth_has_no_limit_of_ours(tmp_path: Path) -> None:
    """1,500 levels: beyond Python's recursion limit, within the system's path length; then beyond that too."""
    here = Path.cwd()
    levels = 1_500
    try:
        os.chdir(tmp_path)
        for _ in range(levels):
            _mkdir("d")
            os.chdir("d")
        Path("deep.dcm").write_bytes(b"x")
        for _ in range(3):
            _mkdir("d" * 250)
            os.chdir("d" * 250)
        for _ in range(5):
            _mkdir("e" * 250)
            os.chdir("e" * 250)
        Path("too-deep.dcm").write_bytes(b"x")
    finally:
        os.chdir(here)
    touch(tmp_path / "z.dcm")
    assert sys.getrecursionlimit() < levels
    try:
        paths, rejections = walk(tmp_path)
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # pytest's own cleaning recurses
    assert [p.removeprefix("d/" * levels) for p in paths] == ["deep.dcm", "z.dcm"]
    assert [r.reason for r in rejections] == ["unreadable"]
    assert "too long" in rejections[0].detail


def test_a_missing_archive_says_what_to_do_at_the_call(tmp_path: Path) -> None:
    with pytest.raises(MedlensError, match="'nowhere' can't be opened: No such file") as caught:
        iter_files(tmp_path / "nowhere")
    assert caught.value.hint
    assert str(tmp_path) not in str(caught.value)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MedlensError, match="neither a folder nor a file"):
        iter_files(tmp_path / "pipe")


def test_an_empty_folder_is_an_empty_archive(tmp_path: Path) -> None:
    assert walk(tmp_path) == ([], [])


def test_a_file_that_vanishes_during_the_walk_is_no_error(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        touch(tmp_path / name)
    rejections: list[Rejection] = []
    files = iter_files(tmp_path, on_rejection=rejections.append)
    assert next(files)[0].path == "a"
    (tmp_path / "b").unlink()
    assert [stat.path for stat, _ in files] == ["c"]
    assert rejections == []


def test_without_a_callback_a_rejection_is_logged_without_its_path(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(tmp_path / "SMITH^JOHN")
    assert list(iter_files(tmp_path)) == []
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "not-regular" in caplog.text and "SMITH" not in caplog.text


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    names = [b"caf\xe9.dcm", b"back\\slash", b"new\nline", "Müller.dcm".encode(), "日本.dcm".encode(), b"\\xe9"]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(name)
    found = {stat.path: path for stat, path in iter_files(tmp_path)}
    assert sorted(found) == sorted(
        ["caf\\xe9.dcm", "back\\\\slash", "new\\u000aline", "Müller.dcm", "日本.dcm", "\\\\xe9"]
    )
    for stored, path in found.items():
        stored.encode("utf-8")  # what a database does
        assert os.fsencode(path.name) == path.read_bytes()
        assert real_path(tmp_path, stored) == path


@given(st.binary(min_size=1).filter(lambda b: b"\0" not in b and b"/" not in b and b not in (b".", b"..")))
def test_stored_names_are_one_to_one(name: bytes) -> None:
    stored = stored_path(os.fsdecode(name))
    stored.encode("utf-8")
    assert stored.isprintable() or not any(ord(c) < 32 or c in "\x7f\u2028\u202e" for c in stored)
    assert os.fsencode(real_path(Path("root"), stored)) == b"root/" + name


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "a\\q", "a\\x41", "\\u002e\\u002e/x", "", "a//b"])
def test_paths_that_the_walk_never_makes_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="the path was not stored by medlens"):
        real_path(Path("root"), path)
