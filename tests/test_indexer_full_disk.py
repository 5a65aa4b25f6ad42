"""A full disk is said in one line with what to do, and nothing half-written stays. On a real one: trials/full_disk."""

from __future__ import annotations

import errno
import resource
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from catalog_factory import SPEC, indexed
from command_line import medlens

from cli.medlens_output.spool import Spool
from indexer.catalog import errors as catalog_errors
from indexer.catalog.errors import translate
from indexer.output_formats import csv_file, json_lines
from indexer.outputs import Output
from indexer.store.store import Store
from indexer.tasks.copying import copy_files
from retrieval.errors import OutputError

MAKE_ROOM = "Free disk space, then run the same command again."
NO_ROOM = OSError(errno.ENOSPC, "No space left on device")


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What is written beyond that fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "name", ["SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC", "SQLITE_CANTOPEN"]
)
def test_not_each_error_of_sqlite_says_that_the_disk_is_full(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = name
    with monkeypatch.context() as patched:
        patched.setattr(catalog_errors, "is_full", lambda folder: folder == tmp_path)
        full = translate(error, "'store'", tmp_path)
    assert str(full) == f"the catalog of 'store' can't grow because the disk is full ({name})"
    assert full.hint == "Free disk space. Everything that was committed before is safe."
    assert "full" not in str(translate(error, "'store'", tmp_path)), "there is room"


def test_an_output_says_what_to_do(tmp_path: Path) -> None:
    output = Output(tmp_path / "hits.csv", csv_file("hits", ("a",)))
    with (
        pytest.raises(OutputError, match=r"^'hits.csv' can't be written: No space left on device$") as caught,
        output.whole(),
    ):
        raise NO_ROOM
    assert caught.value.hint == MAKE_ROOM
    with (
        files_of_at_most(10),
        pytest.raises(OutputError, match=r"'hits.csv' can't be written: File too large") as caught,
    ):
        output.write_text("a\n" * 20)
    assert caught.value.hint == "Raise the limit on the size of files (ulimit -f), then run the same command again."
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_gets_full_leaves_none_of_the_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        (tmp_path / f"{number}.dcm").write_bytes(bytes(100))
    instances = [
        {"sop_instance_uid": f"1.{n}", "archive_root": str(tmp_path), "file_path": f"{n}.dcm"} for n in range(3)
    ]
    copied: list[int] = []

    def copy(source: object, target: object, length: int) -> None:
        copied.append(length)
        if len(copied) == 3:
            raise NO_ROOM

    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("mine")
    monkeypatch.setattr(shutil, "copyfileobj", copy)
    for folder, left in (("new", None), ("there", ["mine"])):
        copied.clear()
        with pytest.raises(OutputError, match="the file can't be copied: No space left on device") as caught:
            copy_files(instances, tmp_path / folder)
        assert caught.value.hint == MAKE_ROOM
        there = tmp_path / folder
        assert (sorted(path.name for path in there.iterdir()) if there.exists() else None) == left
    monkeypatch.undo()
    assert copy_files(instances, tmp_path / "new").copied == 3
    with files_of_at_most(50), pytest.raises(OutputError, match="File too large"):  # found when the copy is closed
        copy_files(instances, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_rows_that_found_no_room_are_not_kept_and_the_others_are(tmp_path: Path) -> None:
    output = Output(tmp_path / "labels.csv", json_lines("labels", ("file",)))
    with files_of_at_most(5), pytest.raises(OutputError, match=r"'.labels.csv.partial.jsonl' can't be written"):
        Spool(output, "made by this")
    assert list(tmp_path.iterdir()) == []
    rows = [{"file": f"{number:04}"} for number in range(20)]
    with files_of_at_most(100), pytest.raises(OutputError, match="File too large"), Spool(output, "this") as spool:
        spool.add(rows)
    with Spool(output, "this") as spool:
        assert spool.done == {"0000", "0001", "0002", "0003"}
        spool.add(row for row in rows if row["file"] not in spool.done)
        assert list(spool.rows()) == rows


def test_the_command_line_says_it_in_two_lines(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store", SPEC) as store:
        archive = store.catalog.files.archive_id("/archive")
        store.catalog.files.commit(archive, [indexed(f"{n}.dcm", f"1.2.{n}") for n in range(300)])
    with files_of_at_most(40_000):
        result = medlens("export", tmp_path / "out.npz", "--store", tmp_path / "store", code=1)
    assert result.stderr.splitlines() == [
        "medlens: 'out.npz' can't be written: File too large",
        "  Raise the limit on the size of files (ulimit -f), then run the same command again.",
    ]
