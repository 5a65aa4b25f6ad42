"""One frame of a store, named by a REF: shown, searched by, described and rendered."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_encoder import FakeEncoder
from pydicom.data import get_testdata_file

from indexer.run.options import IndexOptions
from indexer.run.pipeline import index_archive
from indexer.store.store import Store
from indexer.tasks.rendering import render_file, render_stored
from indexer.tasks.showing import show
from retrieval.errors import FileUnreadable, InvalidImage, QueryError
from retrieval.search.query import Query
from retrieval.search.refs import FrameRef, ShortRef, parse_ref
from retrieval.types import FrameKey, SearchFilter

FILES = ("CT_small.dcm", "MR_small.dcm", "examples_rgb_color.dcm", "emri_small.dcm")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FakeEncoder]:
    folder = tmp_path_factory.mktemp("showing")
    (folder / "archive").mkdir()
    for name in FILES:
        shutil.copy(str(get_testdata_file(name)), folder / "archive" / name)
    encoder = FakeEncoder()
    with Store.create(folder / "store", encoder.spec.to_json()) as store:
        index_archive([folder / "archive"], store, encoder, IndexOptions(workers=1))
    return folder, encoder


def keys(store: Store) -> list[FrameKey]:
    ids = store.catalog.frames.ids_matching(SearchFilter())
    return [key for key, _ in store.catalog.frames.get(ids.tolist()).values()]


def test_every_frame_is_found_by_its_short_key(world: tuple[Path, FakeEncoder]) -> None:
    with Store.open(world[0] / "store") as store:
        found = keys(store)
        assert len(found) == 13
        for key in found:
            assert show(store, key.short[:8]).key == key
            assert show(store, str(key)).key == key


def test_what_is_shown_of_a_frame(world: tuple[Path, FakeEncoder]) -> None:
    with Store.open(world[0] / "store") as store:
        enhanced = next(key for key in keys(store) if key.frame_number == 7)
        facts = show(store, enhanced)
        assert facts.attributes["modality"] == "MR" and facts.frame_numbers == tuple(range(1, 11))
        assert facts.report == "" and facts.labels == {}
        assert facts.where == world[0] / "archive" / "emri_small.dcm"


def test_a_frame_of_the_store_is_searched_by_its_vector_alone(world: tuple[Path, FakeEncoder]) -> None:
    folder, encoder = world
    before = encoder.images_encoded
    with Store.open(folder / "store") as store:
        for key in keys(store):
            by_ref = store.search(Query(parse_ref(key.short[:10]), k=3), encoder=encoder)
            assert by_ref.hits[0].score == pytest.approx(1, abs=2e-3)
            assert store.search(Query(key, k=3), encoder=encoder).hits == by_ref.hits
        ct = next(key for key in keys(store) if show(store, key).attributes["modality"] == "CT")
        assert store.search(Query(ct), encoder=encoder).hits[0].key == ct
    assert encoder.images_encoded == before


def test_a_picture_is_composed_with_words_and_its_patient_is_known(world: tuple[Path, FakeEncoder]) -> None:
    folder, encoder = world
    with Store.open(folder / "store") as store:
        ct = next(key for key in keys(store) if show(store, key).attributes["modality"] == "CT")
        query = Query(["a chest tube", ct], exclude_same_patient=True, k=20)
        found = store.search(query, encoder=encoder)
        assert found.query == f'"a chest tube" + image {ct}'
        patient = show(store, ct).attributes["patient_pseudonym"]
        assert found.hits and all(hit.attributes["patient_pseudonym"] != patient for hit in found.hits)


def test_a_frame_is_rendered_from_its_file_while_that_is_there(world: tuple[Path, FakeEncoder]) -> None:
    folder, _ = world
    with Store.open(folder / "store") as store:
        ct = next(key for key in keys(store) if show(store, key).attributes["modality"] == "CT")
        drawn = render_stored(store, FrameRef(ct.sop_instance_uid))
        assert np.array_equal(drawn, render_file(folder / "archive" / "CT_small.dcm"))
        moved = folder / "CT_small.dcm"
        (folder / "archive" / "CT_small.dcm").rename(moved)
        try:
            with pytest.raises((FileUnreadable, InvalidImage)):
                render_stored(store, FrameRef(ct.sop_instance_uid))
            assert store.search(Query(ct), encoder=world[1]).hits[0].key == ct
        finally:
            moved.rename(folder / "archive" / "CT_small.dcm")


def test_a_reference_to_nothing_is_refused(world: tuple[Path, FakeEncoder]) -> None:
    folder, encoder = world
    with Store.open(folder / "store") as store:
        for ref in ("aaaaaaaa", "1.2.3.4", "1.2.3.4#2"):
            with pytest.raises(QueryError, match=r"no frame|instance"):
                show(store, ref)
        with pytest.raises(QueryError, match="is a file; expected a frame of the store"):
            show(store, str(folder / "archive" / "CT_small.dcm"))
        with pytest.raises(QueryError, match="the store has no frame whose key begins with"):
            store.search(Query(ShortRef("aaaaaaaa")), encoder=encoder)
