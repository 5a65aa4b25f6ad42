"""Labels of frames in the catalog, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indexer.catalog.labels import SavedSet
from indexer.catalog.sql_catalog import SqlCatalog
from retrieval.errors import UnknownFilterKeyword
from retrieval.types import SearchFilter
from tests.catalog_factory import SPEC, indexed, vectors

CHEST = SavedSet("chest", ("effusion", "pleural mass"), "a" * 64, is_probability=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlCatalog]:
    """Four instances of two frames, 1.1 to 1.4, ids 1 to 8."""
    place = tmp_path / "catalog.sqlite" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    made = SqlCatalog.create(place, {"model": SPEC})
    archive = made.files.archive_id("/archive")
    files = [indexed(f"{i}.dcm", f"1.{i}", modality="CT" if i < 3 else "MR") for i in range(1, 5)]
    made.files.commit(archive, files)
    yield made
    made.close()


def everything(catalog: SqlCatalog, batch: int = 3) -> np.ndarray:
    return np.concatenate([b.ids for b in catalog.frames.batches(batch=batch)])


def matching(catalog: SqlCatalog, where: str) -> list[int]:
    return catalog.frames.ids_matching(SearchFilter(where=where)).tolist()


def test_frames_come_in_batches_with_their_keys(catalog: SqlCatalog) -> None:
    batches = list(catalog.frames.batches(batch=3))
    assert [len(b) for b in batches] == [3, 3, 2]
    assert batches[0].sop_instance_uids == ("1.1", "1.1", "1.2") and batches[0].frame_numbers == (1, 2, 1)
    assert batches[0].patients[0] == "p1.1" and batches[0].study_instance_uids[2] == "1.2.study"
    np.testing.assert_allclose(batches[0].vectors[:2], vectors("1.1/", 2), atol=1e-3)
    filtered = list(catalog.frames.batches(SearchFilter({"modality": ("MR",)}), batch=2))
    assert [set(b.sop_instance_uids) for b in filtered] == [{"1.3"}, {"1.4"}]


def test_saved_labels_filter_by_the_highest_of_an_instances_frames(catalog: SqlCatalog) -> None:
    ids = everything(catalog)
    values = np.array([[0.1, np.nan], [0.9, 0.2]] * 2 + [[0.3, 0.4], [0.3, 0.4]] * 2, np.float32)
    assert catalog.labels.save(CHEST, [(ids[:5], values[:5]), (ids[5:], values[5:])]) == 8
    assert matching(catalog, "label.effusion > 0.8") == ids[:4].tolist()
    assert matching(catalog, "label.chest.effusion > 0.8 and Modality = CT") == ids[:4].tolist()
    assert matching(catalog, "LABEL.Effusion < 0.5") == ids[4:].tolist()
    assert matching(catalog, 'label."pleural mass" >= 0.3') == ids[4:].tolist()
    assert matching(catalog, "label.effusion is missing") == []
    (saved,) = catalog.labels.saved_sets()
    assert saved == SavedSet("chest", CHEST.labels, CHEST.made_by, False, 8)


def test_labels_go_with_their_frames(catalog: SqlCatalog) -> None:
    ids = everything(catalog)
    catalog.labels.save(CHEST, [(ids, np.full((8, 2), 0.5, np.float32))])
    catalog.instances.delete_matching(SearchFilter({"sop_instance_uid": ("1.1",)}))
    assert catalog.labels.saved_sets()[0].frames == 6
    gone = catalog.labels.save(CHEST, [(ids, np.full((8, 2), 0.9, np.float32))])
    assert gone == 6  # two frames were deleted while they were labelled


def test_saving_again_replaces_and_something_else_starts_anew(catalog: SqlCatalog) -> None:
    ids = everything(catalog)
    catalog.labels.save(CHEST, [(ids, np.full((8, 2), 0.5, np.float32))])
    catalog.labels.save(CHEST, [(ids[:2], np.full((2, 2), 0.9, np.float32))])
    assert matching(catalog, "label.effusion > 0.8") == ids[:2].tolist()
    assert matching(catalog, "label.effusion = 0.5") == ids[2:].tolist()
    other = SavedSet("chest", ("effusion",), "b" * 64, is_probability=True)
    catalog.labels.save(other, [(ids[:1], np.array([[0.7]], np.float32))])
    assert catalog.labels.saved_sets() == [SavedSet("chest", ("effusion",), "b" * 64, True, 1)]
    assert catalog.labels.forget("chest") and not catalog.labels.forget("chest")
    assert catalog.labels.saved_sets() == []


def test_labels_that_are_not_there_or_not_clear(catalog: SqlCatalog) -> None:
    with pytest.raises(UnknownFilterKeyword, match="the store has no saved label 'effusion'") as caught:
        matching(catalog, "label.effusion > 0.5")
    assert "--save" in caught.value.hint
    ids = everything(catalog)
    for name in ("chest", "other"):
        saved = SavedSet(name, ("effusion",), "a" * 64, is_probability=False)
        catalog.labels.save(saved, [(ids, np.full((8, 1), 0.5, np.float32))])
    with pytest.raises(UnknownFilterKeyword, match="several label sets have the label") as caught:
        matching(catalog, "label.effusion > 0.5")
    assert "label.chest.effusion" in caught.value.hint
    with pytest.raises(UnknownFilterKeyword) as caught:
        matching(catalog, "label.efusion > 0.5")
    assert "Did you mean effusion" in caught.value.hint
