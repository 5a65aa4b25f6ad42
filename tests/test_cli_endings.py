"""How a command ends where its output, its terminal or the disk fails: one line, a code, never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from catalog_factory import SPEC, indexed

from indexer.store.store import Store

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = [sys.executable, "-c", "from cli.medlens_app import main; main()"]
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("stores") / "store"
    with Store.create(place, SPEC) as made:
        archive = made.catalog.files.archive_id("/archive")
        made.catalog.files.commit(archive, [indexed(f"{n}.dcm", f"1.2.{n}", frames=1) for n in range(300)])
    return place


def started(*arguments: object, **streams: object) -> subprocess.Popen[bytes]:
    streams = {"stderr": subprocess.PIPE} | streams
    return subprocess.Popen([*PROGRAM, *map(str, arguments)], cwd=ROOT, **streams)  # type: ignore[call-overload]


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, said = process.communicate(timeout=120)
    return process.returncode, said.decode() if said else ""


def test_a_reader_that_has_enough_is_no_error(store: Path) -> None:
    process = started("select", "--level", "instance", "--store", store, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"{")
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read().decode()
    assert (process.wait(120), said) == (0, "")


@FULL
@pytest.mark.parametrize("level", ["study", "instance"])
def test_a_full_disk_behind_stdout_is_one_line(store: Path, level: str) -> None:
    with Path("/dev/full").open("w") as full:
        code, said = ended(started("select", "--level", level, "--store", store, stdout=full))
    assert (code, said) == (1, "medlens: the output could not be written: No space left on device\n")


def test_closed_streams_are_no_reason_to_fail(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    command = " ".join(f"'{part}'" for part in [*PROGRAM, "select", "--store", str(store), "--format", "csv", "-o"])
    done = subprocess.run(["sh", "-c", f"{command} '{out}' >&- 2>&-"], cwd=ROOT, check=False)
    assert done.returncode == 0
    assert len(out.read_text().splitlines()) == 301


def test_a_full_disk_behind_a_file_leaves_the_old_one(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("old")
    parts = [*PROGRAM, "select", "--level", "instance", "--store", str(store), "--force", "-o"]
    command = " ".join(f"'{part}'" for part in parts)
    limited = f"ulimit -f 80; {command} '{out}'"  # blocks of 512 bytes: more than what SQLite needs
    done = subprocess.run(["sh", "-c", limited], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "'out.jsonl' can't be written: File too large" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    assert out.read_text() == "old"


def test_ctrl_c_is_130(store: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    process = started("select", "--level", "instance", "--store", store, "-o", tmp_path / "pipe")
    with (tmp_path / "pipe").open("rb") as pipe:
        assert pipe.read(1)  # it writes, and waits: more than a pipe holds
        process.send_signal(signal.SIGINT)
        pipe.read()  # what it had in hand may have to go before it can end
        code, said = ended(process)
    assert code == 130 and "Traceback" not in said and "medlens: stopped" in said


def test_settings_that_are_no_json_are_a_damaged_store(tmp_path: Path) -> None:
    import sqlite3

    Store.create(tmp_path / "store", SPEC).close()
    with sqlite3.connect(tmp_path / "store" / "catalog.sqlite") as connection:
        connection.execute("UPDATE manifest SET value = '{broken'")
    code, said = ended(started("info", "--store", tmp_path / "store", stdout=subprocess.DEVNULL, env=dict(os.environ)))
    assert code == 1 and "Traceback" not in said and "is not valid JSON" in said
