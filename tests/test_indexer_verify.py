"""Every kind of damage is found and named, and what can be put right is; and the commands around it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from catalog_factory import DIM, SPEC, indexed, vectors
from typer.testing import CliRunner

from cli.medlens_app import app
from indexer.catalog.processes import Process
from indexer.catalog.schema import metadata
from indexer.records import FileStat
from indexer.run.lease import Lease
from indexer.store.place import CATALOG_FILE, KEY_FILE
from indexer.store.store import Store
from indexer.tasks.verifying import Check, verify_store
from retrieval.errors import StoreCorrupt
from retrieval.types import SearchFilter

GOLDEN = Path(__file__).parent / "golden" / "catalog-0001.sql"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("made") / "store"
    with Store.create(place, SPEC) as store:
        archive = store.catalog.files.archive_id("/a")
        items = [indexed(f"{n}", f"1.{n}", frames=2, modality="CT") for n in range(12)]
        report = indexed("sr", "1.99", frames=0, sentences=("No effusion.", "A nodule."), modality="SR")
        store.catalog.files.commit(archive, [*items, report])
        store.catalog.files.commit(archive, [indexed("copy", "1.0", frames=2)])
        store.refresh()
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "store"))


def verified(place: Path, **options: bool) -> dict[str, Check]:
    with Store.open(place) as store:
        return {check.name: check for check in verify_store(store, **options)}


def wrong(place: Path, **options: bool) -> dict[str, int]:
    return {name: check.wrong for name, check in verified(place, **options).items() if check.wrong}


def sql(place: Path, *statements: str) -> None:
    with closing(sqlite3.connect(place / CATALOG_FILE)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def test_a_sound_store_has_nothing_to_say(place: Path) -> None:
    checks = verified(place)
    assert not any(check.wrong for check in checks.values())
    assert (checks["frame vectors"].looked_at, checks["sentence vectors"].looked_at) == (24, 2)
    assert (checks["frame index"].looked_at, checks["sentence index"].looked_at) == (24, 2)


@pytest.mark.parametrize(
    ("statement", "column"),
    [
        ("UPDATE frames SET frame_number = 'x' WHERE id = 3", "frames.frame_number (1 rows)"),
        ("UPDATE frames SET vector = 7 WHERE id IN (3, 4)", "frames.vector (2 rows)"),
        ("UPDATE instances SET study_date = '20200230' WHERE id = 2", "instances.study_date (1 rows)"),
        ("UPDATE instances SET slice_thickness = 'thin' WHERE id = 2", "instances.slice_thickness (1 rows)"),
        ("UPDATE instances SET modality = X'4354' WHERE id = 2", "instances.modality (1 rows)"),
        ("UPDATE manifest SET value = '[[' WHERE key = 'model'", "manifest.value (1 rows)"),
    ],
)
def test_values_of_another_type_than_their_column_are_found(place: Path, statement: str, column: str) -> None:
    """SQLite takes them all; what reads them later does not."""
    sql(place, statement)
    with Store.open(place) as store:
        assert [f"{name} ({rows} rows)" for name, rows in store.catalog.checks.mistyped()[1].items()] == [column]


def test_an_error_in_a_store_with_such_values_is_told_as_damage_and_no_other_is(place: Path) -> None:
    with pytest.raises(ValueError, match=r"^of our own$"), Store.open(place):
        raise ValueError("of our own")
    sql(place, "UPDATE frames SET frame_number = 'x' WHERE id = 3")
    assert verified(place)["values"].detail.startswith("frames.frame_number (1 rows) of another type than the column")
    with pytest.raises(StoreCorrupt, match=r"values of another type than their column: frames\.frame_number$"):  # noqa: SIM117
        with Store.open(place):
            raise ValueError("invalid literal for int() with base 10: 'x'")


def test_postgresql_is_checked_alike(postgres_url: str, tmp_path: Path) -> None:
    with Store.create(postgres_url, SPEC, local_dir=tmp_path / "local") as store:
        archive = store.catalog.files.archive_id("/a")
        store.catalog.files.commit(archive, [indexed(f"{n}", f"1.{n}") for n in range(4)])
        assert all(check.sound for check in verify_store(store))
        with store.catalog._database.writing() as connection:
            connection.exec_driver_sql("UPDATE frames SET vector = '\\x00' WHERE id = 3")
        assert {c.name: c.wrong for c in verify_store(store) if c.wrong}["frame vectors"] == 1
        assert all(check.sound for check in verify_store(store, repair=True))
        assert all(check.wrong == 0 for check in verify_store(store))
        assert store.catalog.counts().instances == 3


HALF_NAN = "X'" + "007e" * DIM + "'"
ZERO = "X'" + "0000" * DIM + "'"


@pytest.mark.parametrize(
    ("damage", "name", "left"),
    [
        (f"UPDATE frames SET vector = {HALF_NAN} WHERE id = 5", "frame vectors", 12),
        (f"UPDATE frames SET vector = {ZERO} WHERE id IN (5, 6)", "frame vectors", 12),
        ("UPDATE frames SET vector = X'0011' WHERE id = 5", "frame vectors", 12),
        (f"UPDATE sentences SET vector = {ZERO} WHERE id = 1", "sentence vectors", 12),
        ("DELETE FROM frames WHERE instance_id = 4", "images", 12),
        ("DELETE FROM instances WHERE id = 4", "rows", 12),
        ("DELETE FROM files WHERE id = 4", "rows", 12),
        ("DELETE FROM reports", "rows", 13),
    ],
)
def test_damaged_rows_are_found_and_taken_out_to_be_read_again(place: Path, damage: str, name: str, left: int) -> None:
    sql(place, damage)  # SQLite's foreign keys are off here
    assert name in wrong(place)
    repaired = verified(place, repair=True)
    assert all(check.sound for check in repaired.values() if check.name != "database"), repaired
    assert wrong(place) == {}
    with Store.open(place) as store:
        assert store.catalog.counts().instances == left
        known = {path for path, file in store.catalog.files.known(1) if file.status == "indexed"}
        assert len(known) == left + 1 or (len(known) == left), "a file is noted as indexed whose instance is gone"


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.find(vectors("1.5/", 2)[0].astype("<f2").tobytes())] ^= 0x01  # one bit of a vector
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [_cut, _flip, lambda path: path.write_bytes(b"nothing of the kind" * 9)])
def test_a_damaged_index_file_is_found_and_built_anew(place: Path, damage: Callable[[Path], None]) -> None:
    damage(place / "vectors" / "frames.faiss")
    found = verified(place)["frame index"]
    assert found.wrong
    assert not found.repaired
    damage(place / "vectors" / "frames.faiss")
    assert verified(place, repair=True)["frame index"].repaired
    assert wrong(place) == {}


def test_damaged_pages_are_told_and_not_repaired(place: Path) -> None:
    with closing(sqlite3.connect(place / CATALOG_FILE)) as database:
        page = database.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'ix_files_sop_instance_uid'"
        ).fetchone()
        size = database.execute("PRAGMA page_size").fetchone()[0]
    with (place / CATALOG_FILE).open("r+b") as file:
        file.seek((page[0] - 1) * size + size - 40)
        file.write(b"\x7f" * 20)
    assert "database" in wrong(place)
    assert not verified(place, repair=True)["database"].sound


def test_the_key(place: Path) -> None:
    (place / KEY_FILE).chmod(0o644)
    assert wrong(place) == {"key": 1}
    assert verified(place, repair=True)["key"].repaired
    assert (place / KEY_FILE).stat().st_mode & 0o777 == 0o600
    (place / KEY_FILE).write_bytes(bytes(32))
    assert not verified(place, repair=True)["key"].sound
    (place / KEY_FILE).unlink()
    assert "missing" in verified(place)["key"].detail


def test_the_index_of_the_reports_words(place: Path) -> None:
    """Another machine has erased a report: here its words go when the store is next looked at."""
    words = place / "vectors" / "reports" / "words.json"
    assert "nodul" in words.read_text()
    with Store.open(place) as store:
        store.catalog.instances.delete_matching(SearchFilter({"sop_instance_uid": ("1.99",)}))
    assert "nodul" in words.read_text()
    assert wrong(place) == {}
    assert "nodul" not in words.read_text()
    words.write_text("{")
    assert wrong(place, repair=True) == {"report index": 1}
    assert wrong(place) == {}
    (place / "vectors" / "reports" / "mark.json").write_text("[]")
    assert wrong(place) == {"report index": 1}


def test_leftovers_of_the_killed(place: Path) -> None:
    left = place / "vectors" / ".frames.faiss.x.tmp"
    left.write_bytes(b"vectors")
    assert wrong(place) == {}, "somebody may be writing it just now"
    os.utime(left, (1, 1))
    with Store.open(place) as store:
        store.catalog.claims.take_lease(Process("elsewhere", 1, ""), -1.0)
    assert wrong(place) == {"leftovers": 1, "dead workers": 1}
    verified(place, repair=True)
    assert wrong(place) == {}
    assert not left.exists()


TABLES = [table.name for table in metadata.sorted_tables if table.name != "manifest"]


@pytest.mark.parametrize("table", TABLES)
def test_a_missing_table_is_found(place: Path, table: str) -> None:
    sql(place, f"DROP TABLE {table}")
    checks = verified(place)
    assert checks["tables"].wrong == 1
    assert table in checks["tables"].detail
    assert not verified(place, repair=True)["tables"].sound


def test_a_missing_column_is_found(place: Path) -> None:
    sql(place, "ALTER TABLE instances DROP COLUMN slice_thickness")
    assert "instances.slice_thickness missing" in verified(place)["tables"].detail


@pytest.mark.parametrize(
    ("damage", "detail"),
    [
        ("UPDATE instances SET number_of_frames = 1 WHERE id = 4", "have more frames than their header declares"),
        ("UPDATE frames SET frame_number = 0 WHERE id = 5", "have more frames than their header declares"),
        ("DELETE FROM sentences WHERE id = 1", "lack sentences of their reports"),
        ("INSERT INTO deletions (kind, row_id) VALUES ('frame', 5)", "have rows that the log lists as deleted"),
        ("INSERT INTO deletions (kind, row_id) VALUES ('sentence', 1)", "have rows that the log lists as deleted"),
    ],
)
def test_counts_that_do_not_add_up_are_found_and_repaired(place: Path, damage: str, detail: str) -> None:
    sql(place, damage)
    found = verified(place)["counts"]
    assert (found.wrong, found.detail.split(";")[0]) == (1, f"1 {detail}")
    assert verified(place, repair=True)["counts"].sound
    assert wrong(place) == {}


def test_the_claims_of_a_killed_run_are_no_damage_once_another_has_run(place: Path) -> None:
    with Store.open(place) as store:
        killed = store.catalog.claims.take_lease(Process("elsewhere", 1, ""), -1.0)
        store.catalog.claims.claim(1, killed, [FileStat("new", 1, 1)])
    assert wrong(place) == {"dead workers": 1}
    with Store.open(place) as store, Lease(store.catalog):
        pass  # there is nothing to read
    assert wrong(place) == {}


@pytest.fixture
def with_files(tmp_path: Path) -> Path:
    (tmp_path / "archive").mkdir()
    place = tmp_path / "store"
    with Store.create(place, SPEC) as store:
        archive = store.catalog.files.archive_id(tmp_path / "archive")
        for n in range(4):
            path = tmp_path / "archive" / f"{n}"
            path.write_text("x")
            os.utime(path, ns=(7, 7))
            store.catalog.files.commit(archive, [indexed(f"{n}", f"1.{n}", "x", mtime=7)])
    return place


def test_files_are_looked_for_only_when_asked(with_files: Path, tmp_path: Path) -> None:
    assert verified(with_files, files=True)["files"].looked_at == 4
    (tmp_path / "archive" / "0").unlink()
    (tmp_path / "archive" / "1").write_text("other")
    assert wrong(with_files) == {}
    found = verified(with_files, files=True)["files"]
    assert (found.wrong, found.detail.split(";")[0]) == (2, "1 files are missing and 1 have changed")


# -- the commands


def medlens(*arguments: str) -> tuple[int, list[dict[str, object]], str]:
    done = CliRunner().invoke(app, [*arguments, *([] if arguments[0] == "migrate" else ["--format", "jsonl"])])
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return done.exit_code, rows, done.output


def test_verify_says_by_its_exit_code(place: Path) -> None:
    code, rows, _ = medlens("verify", "--store", str(place))
    assert code == 0
    assert {row["state"] for row in rows} == {"sound"}
    sql(place, f"UPDATE frames SET vector = {ZERO} WHERE id = 5")
    code, rows, _ = medlens("verify", "--store", str(place))
    assert code == 3
    assert {row["check"]: row["wrong"] for row in rows}["frame vectors"] == 1
    assert medlens("verify", "--store", str(place), "--repair")[0] == 0
    assert medlens("verify", "--store", str(place))[0] == 0


def test_delete_asks_first(place: Path) -> None:
    asked = ("delete", "--store", str(place), "--study", "1.3.study")
    code, _, said = medlens(*asked)
    assert code == 1
    assert "1 studies, 1 instances, 2 frames" in said
    assert medlens(*asked, "--dry-run")[1] == [
        {
            "erased": 0, "matching_patients": 1, "matching_studies": 1, "matching_instances": 1,
            "matching_frames": 2, "matching_sentences": 0,
        }
    ]  # fmt: skip
    assert medlens(*asked, "--yes")[1][0]["erased"] == 1
    assert medlens(*asked, "--yes")[1][0]["erased"] == 0
    assert medlens("delete", "--store", str(place), "--where", "Modality = SR", "--yes")[1][0]["erased"] == 1
    assert medlens("delete", "--store", str(place), "--patient", "p1.4", "--yes")[1][0]["erased"] == 1
    assert medlens("delete", "--store", str(place), "--yes")[0] == 1, "nothing is named"
    assert medlens("verify", "--store", str(place))[0] == 0


def test_migrate_says_what_it_did(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / CATALOG_FILE)) as database:
        database.executescript(GOLDEN.read_text("utf-8"))
    assert "was migrated" in medlens("migrate", "--store", str(tmp_path))[2]
    assert (
        "the store has the current schema already; nothing was changed"
        in medlens("migrate", "--store", str(tmp_path))[2]
    )
    (tmp_path / KEY_FILE).write_bytes(bytes(range(32)))
    (tmp_path / KEY_FILE).chmod(0o600)
    code, rows, _ = medlens("verify", "--store", str(tmp_path))
    assert (code, {row["state"] for row in rows}) == (0, {"sound"})
