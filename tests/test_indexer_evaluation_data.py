"""A store as rows to judge a model on: its own reports and headers are the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from catalog_factory import DIM, SPEC, indexed, vectors

from indexer.store.store import Store
from indexer.tasks.evaluation_data import plane_of, store_evaluation_data
from retrieval.errors import EvaluationError
from retrieval.types import RenderProfile

AXIAL, SAGITTAL, OBLIQUE = r"1\0\0\0\1\0", r"0\1\0\0\0\-1", r"0.7\0.7\0\0\0\-1"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Study a: two images of two frames, a report of three sentences; b: one image, one sentence; c: no report."""
    made = Store.create(tmp_path / "store", SPEC)
    archive = made.catalog.files.archive_id("/archive")
    said = ("Short.", "The longest sentence of them all.", "Clear  lungs.")
    made.catalog.files.commit(
        archive,
        [
            indexed("a1", "1.1", study_instance_uid="a", modality="CT", image_orientation_patient=AXIAL),
            indexed("a2", "1.2", study_instance_uid="a", modality="CT", image_orientation_patient=OBLIQUE),
            indexed("ar", "1.3", frames=0, sentences=said, study_instance_uid="a"),
            indexed("b1", "2.1", study_instance_uid="b", modality="MR", body_part_examined="KNEE"),
            indexed("br", "2.2", frames=0, sentences=("Clear lungs.",), study_instance_uid="b"),
            indexed("c1", "3.1", study_instance_uid="c"),
        ],
    )
    return made


def test_frames_are_paired_with_the_sentences_of_their_study(store: Store) -> None:
    data = store_evaluation_data(store, limit=100)
    rows = data.rows
    a = ("Short.", "The longest sentence of them all.", "Clear lungs.")
    assert rows.texts == (a,) * 4 + (("Clear lungs.",),) * 2
    assert rows.groups == ("p1.1", "p1.1", "p1.2", "p1.2", "p2.1", "p2.1")
    assert rows.fields["modality"] == ("CT",) * 4 + ("MR",) * 2
    assert rows.fields["plane"] == ("axial", "axial", None, None, None, None)
    assert rows.fields["body_part_examined"][4] == "KNEE"
    assert any("2 of 8 frames are left out because their studies have no report" in note for note in rows.notes)
    # The longest sentence asks, the rest is what a text engine reads; a report of one sentence leaves nothing to read.
    assert rows.queries == (a[1],) * 4 + (None,) * 2
    assert rows.documents == ("Short. Clear lungs.",) * 4 + ("",) * 2


def test_vectors_are_those_of_the_store_in_the_order_of_the_rows(store: Store) -> None:
    data = store_evaluation_data(store, limit=100)
    expected = np.concatenate([vectors("1.1/", 2), vectors("1.2/", 2), vectors("2.1/", 2)])
    assert data.images == pytest.approx(expected, abs=1e-3)
    assert np.linalg.norm(data.images, axis=1) == pytest.approx(np.ones(6), abs=1e-6)
    assert data.sentences["Short."] == pytest.approx(vectors("1.3//text", 3)[0], abs=1e-3)
    assert {own for texts in data.rows.texts for own in texts} == set(data.sentences)
    assert all(v.shape == (DIM,) for v in data.sentences.values())


def test_the_files_of_the_frames_for_another_model(store: Store) -> None:
    profile = RenderProfile()
    requests = store_evaluation_data(store, limit=100).requests(profile)
    assert [(r.where.as_posix(), r.frame_number) for r in requests[:3]] == [
        ("/archive/a1", 1),
        ("/archive/a1", 2),
        ("/archive/a2", 1),
    ]


def test_whole_patients_are_drawn(store: Store) -> None:
    data = store_evaluation_data(store, limit=4, seed=3)
    assert len(data.rows) == 4 and len(set(data.rows.groups)) == 2
    assert len(data.images) == len(data.places) == 4
    assert any("4 of 6 frames were drawn" in note for note in data.rows.notes)
    with pytest.raises(EvaluationError, match="every patient has more than 1 images"):
        store_evaluation_data(store, limit=1)


def test_a_store_without_reports_has_labels_only(tmp_path: Path) -> None:
    with Store.create(tmp_path / "plain", SPEC) as made:
        with pytest.raises(EvaluationError, match="no frames"):
            store_evaluation_data(made, limit=10)
        made.catalog.files.commit(
            made.catalog.files.archive_id("/a"), [indexed("1", "1", modality="CT"), indexed("2", "2")]
        )
        rows = store_evaluation_data(made, limit=10).rows
        assert rows.texts == ((),) * 4 and rows.queries is None and rows.documents is None
        assert rows.fields["modality"] == ("CT", "CT", None, None)


@pytest.mark.parametrize(
    ("orientation", "plane"),
    [
        (AXIAL, "axial"),
        (SAGITTAL, "sagittal"),
        (r"1\0\0\0\0\-1", "coronal"),
        (r"0.99\0.1\0\-0.1\0.99\0.05", "axial"),
        (OBLIQUE, None),
        (None, None),
        ("", None),
        (r"1\0\0", None),
        (r"a\b\c\d\e\f", None),
        (r"nan\0\0\0\1\0", None),
        (r"0\0\0\0\0\0", None),
    ],
)
def test_planes_by_the_orientation(orientation: str | None, plane: str | None) -> None:
    assert plane_of(orientation) == plane
