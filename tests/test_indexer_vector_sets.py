"""A third set of vectors is a row and a table: files, deletions, checks and measurements follow."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import sqlalchemy as sa
from catalog_factory import SPEC, indexed, only, vectors

from indexer.catalog.schema import VECTOR_TABLES, BigId, deletions, instances, metadata, vector_table
from indexer.store.place import CATALOG_FILE
from indexer.store.store import Store
from indexer.tasks.optimizing import index_facts, optimize_store
from indexer.tasks.verifying import verify_store
from indexer.vector_sets import VECTOR_SETS, VectorKind, VectorSet
from retrieval.types import SearchFilter

STUDY: Any = "study"


def test_every_set_has_a_file_and_a_table_of_its_own() -> None:
    assert list(VECTOR_SETS) == list(VECTOR_TABLES) == list(get_args(VectorKind)) == ["frame", "sentence"]
    assert [each.index_file for each in VECTOR_SETS.values()] == ["frames.faiss", "sentences.faiss"]
    assert [table.rows.name for table in VECTOR_TABLES.values()] == ["frames", "sentences"]
    for each in VECTOR_SETS.values():
        assert each.query_kind in VECTOR_SETS


@pytest.fixture
def studies(monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Table]:
    """The row and the table that a set of studies would be."""
    table = sa.Table(
        "study_vectors",
        metadata,
        sa.Column("id", BigId, primary_key=True, autoincrement=True),
        sa.Column("instance_id", BigId, sa.ForeignKey("instances.id", ondelete="CASCADE"), nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    added = VectorSet(STUDY, ("study_vectors",), "studies.faiss", query_kind="sentence")
    monkeypatch.setitem(VECTOR_SETS, STUDY, added)  # type: ignore[arg-type]
    monkeypatch.setitem(VECTOR_TABLES, STUDY, vector_table(added))  # type: ignore[arg-type]
    yield table
    metadata.remove(table)


@pytest.fixture
def store(studies: sa.Table, tmp_path: Path) -> Iterator[Store]:
    """Thirty instances, each a study with a vector."""
    with Store.create(tmp_path / "store", SPEC) as made:
        files = [indexed(f"{n}", f"1.{n}", sentences=(f"Number {n}.",)) for n in range(30)]
        made.catalog.files.commit(made.catalog.files.archive_id("/a"), files)
        with made.catalog._database.writing() as connection:
            studies.create(connection)
            for row in connection.execute(sa.select(instances).order_by(instances.c.id)).all():
                vector = vectors(f"study of {row.sop_instance_uid}", 1).astype("<f2").tobytes()
                connection.execute(sa.insert(studies).values(instance_id=row.id, vector=vector))
        yield made


def test_it_has_an_index_that_is_searched_and_follows_the_catalog(store: Store, tmp_path: Path) -> None:
    store.refresh()
    names = {path.name for path in (tmp_path / "store" / "vectors").glob("*.faiss")}
    assert names == {"frames.faiss", "sentences.faiss", "studies.faiss"}
    query = vectors("study of 1.7", 1)
    index = store.index(STUDY)
    (best, score), *_ = index.search(query, 3)[0]
    assert len(index) == 30 and score == pytest.approx(1, abs=1e-3)
    one = store.catalog.vectors.ids_matching(SearchFilter({"sop_instance_uid": ("1.7",)}), STUDY)
    assert one.tolist() == [best] and index.search(query, 3, only(one))[0] == [(best, score)]

    assert store.erase(SearchFilter({"sop_instance_uid": ("1.7",)}), keep_out=False) == 1
    with store.catalog._database.reading() as connection:
        logged = connection.execute(sa.select(deletions.c.row_id).where(deletions.c.kind == STUDY)).scalars().all()
    assert logged == [best]
    assert len(store.index(STUDY)) == 29 and best not in store.index(STUDY).ids


def test_it_is_verified_and_repaired(store: Store, studies: sa.Table) -> None:
    store.refresh()
    sound = {check.name: check for check in verify_store(store)}
    assert sound["study vectors"].looked_at == sound["study index"].looked_at == 30
    assert all(check.sound for check in sound.values())
    with store.catalog._database.writing() as connection:
        connection.execute(sa.update(studies).where(studies.c.id == 5).values(vector=b"\0" * 16))
    wrong = {check.name for check in verify_store(store) if not check.sound}
    assert wrong == {"study vectors", "study index"}
    assert all(check.sound for check in verify_store(store, repair=True))
    assert all(not check.wrong for check in verify_store(store))
    assert store.catalog.vectors.count(STUDY) == len(store.index(STUDY)) == 29


def test_its_rows_that_hang_on_nothing_are_taken_out(store: Store, tmp_path: Path) -> None:
    store.refresh()
    with closing(sqlite3.connect(tmp_path / "store" / CATALOG_FILE)) as behind, behind:  # checks no references
        behind.execute("DELETE FROM instances WHERE id = 3")
    [rows] = [check for check in verify_store(store) if check.name == "rows"]
    assert rows.detail == "2 frames hang on nothing, 1 reports hang on nothing, 1 study_vectors hang on nothing"
    verify_store(store, repair=True)
    assert all(not check.wrong for check in verify_store(store))
    assert 3 not in store.index(STUDY).ids and len(store.index(STUDY)) == 29


def test_it_is_measured(store: Store) -> None:
    measured = optimize_store(store)
    assert {kind: figures["rows"] for kind, figures in measured.items()} == {"frame": 60, "sentence": 30, "study": 30}
    assert index_facts(store)["study"]["kind"] == "flat"
    assert np.all(store.index(STUDY).ids == np.arange(1, 31))
