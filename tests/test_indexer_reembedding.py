"""Changing the model of a store: what stays, what is read again, what stops it, and who answers meanwhile."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_encoder import FakeEncoder
from pydicom import dcmread
from pydicom.data import get_testdata_file

from indexer.catalog.labels import SavedSet
from indexer.run.options import IndexOptions
from indexer.run.pipeline import index_archive
from indexer.run.reembedding import ReembedProgress, change_model
from indexer.store.store import Store
from indexer.tasks.calibrating import stored_calibration
from indexer.tasks.facts import store_facts
from indexer.tasks.optimizing import optimize_store
from indexer.tasks.showing import show
from indexer.tasks.verifying import verify_store
from retrieval.errors import StoreError, StoreIncompatible
from retrieval.search.query import ImagePart, Query, Ranker
from retrieval.search.refs import FrameRef
from retrieval.types import Embeddings, SearchFilter, Uint8Image
from retrieval.zeroshot.classify import ZeroShotClassifier
from retrieval.zeroshot.labels import Label, LabelSet

FILES = ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "emri_small_jpeg_ls_lossless.dcm", "reportsi.dcm")
CT, MR = (
    "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322",
    "1.3.6.1.4.1.5962.1.1.4.1.1.20040826185059.5457",
)
FRAMES = 13


class WideEncoder(FakeEncoder):
    """Another model, of another size."""

    def __init__(self, name: str = "wide", meanwhile: Callable[[int], None] = lambda encoded: None) -> None:
        """`meanwhile` is called before pictures are encoded, with how many are."""
        super().__init__(name, seed=7)
        self.meanwhile = meanwhile
        self.spec = replace(self.spec, embed_dim=24)
        self._projection = np.random.default_rng(9).normal(size=(3 * 16 * 16, 24))
        self.texts_encoded: list[str] = []

    @property
    def embed_dim(self) -> int:
        return 24

    @property
    def batch_size(self) -> int:
        return 2

    def encode_images(self, images: Sequence[Uint8Image]) -> Embeddings:
        if not images:
            return np.zeros((0, 24), np.float32)
        self.meanwhile(self.images_encoded)
        self.images_encoded += len(images)
        rows = self.spec.preprocess.batch(images).reshape(len(images), -1) @ self._projection
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        self.texts_encoded += texts
        rows = [np.random.default_rng(len(text)).normal(size=24) for text in texts]
        out = np.stack(rows) if rows else np.zeros((0, 24))
        return (out / np.linalg.norm(out, axis=1, keepdims=True)).astype(np.float32)


class Stop(Exception):
    pass


def stop_after(count: int) -> Callable[[int], None]:
    """What ends a run once so many pictures are encoded."""

    def stop(encoded: int) -> None:
        if encoded >= count:
            raise Stop

    return stop


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    for name in FILES:
        shutil.copy(str(get_testdata_file(name)), folder / name)
    return folder


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, archive: Path, tmp_path: Path) -> Iterator[Store]:
    place = tmp_path / "store" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    local = None if request.param == "sqlite" else tmp_path / "local"
    encoder = FakeEncoder()
    with Store.create(place, encoder.spec.to_json(), local_dir=local) as opened:
        opened.location, opened.local = place, local  # type: ignore[attr-defined]
        index_archive([archive], opened, encoder, IndexOptions(workers=1))
        yield opened


def reopened(store: Store) -> Store:
    return Store.open(store.location, local_dir=store.local)  # type: ignore[attr-defined]


def vectors_by_key(store: Store) -> dict[tuple[str, int], bytes]:
    return {
        (uid, number): vector.astype("<f2").tobytes()
        for batch in store.catalog.frames.batches()
        for uid, number, vector in zip(batch.sop_instance_uids, batch.frame_numbers, batch.vectors, strict=True)
    }


def rows(store: Store) -> list[dict[str, object]]:
    return list(store.catalog.instances.select(SearchFilter(), "instance"))


def test_all_vectors_are_of_the_new_model_and_all_else_stays(store: Store, archive: Path, tmp_path: Path) -> None:
    before, ids = rows(store), store.catalog.frames.ids_matching(SearchFilter()).tolist()
    chest = SavedSet("chest", ("effusion",), "a" * 64, is_probability=False)
    store.catalog.labels.save(chest, [(np.array(ids), np.full((len(ids), 1), 0.5, np.float32))])
    store.reports_index()
    new, told = WideEncoder(), list[ReembedProgress]()
    report = change_model(store, new, workers=1, on_progress=told.append)
    assert (report.switched, report.frames, report.model, report.former_model) == (True, FRAMES, "wide", "fake")
    assert (report.kept, report.unreadable, report.left_out) == (0, (), 0)
    assert report.sentences == store.catalog.counts().sentences > 0
    assert new.images_encoded == FRAMES
    assert told[-1] == ReembedProgress(FRAMES, FRAMES, report.sentences, report.sentences, 0)

    assert rows(store) == before
    assert store.catalog.frames.ids_matching(SearchFilter()).tolist() == ids
    assert store.model == new.spec.to_json()
    assert store.catalog.model_changes.pending() is None
    fresh_encoder = WideEncoder()
    with Store.create(tmp_path / "fresh", fresh_encoder.spec.to_json()) as fresh:
        index_archive([archive], fresh, fresh_encoder, IndexOptions(workers=1))
        assert vectors_by_key(store) == vectors_by_key(fresh)
        _, expected = next(fresh.catalog.vectors.iter_vectors("sentence"))
        _, found = next(store.catalog.vectors.iter_vectors("sentence"))
        assert found.tobytes() == expected.tobytes()
        text = Query("chest", ranker=Ranker.DENSE, k=5)
        answers = [hit.key for hit in fresh.search(text, encoder=fresh_encoder).hits]
        assert [hit.key for hit in store.search(text, encoder=new).hits] == answers
    assert [check.name for check in verify_store(store) if check.wrong] == []
    with reopened(store) as again:
        assert [hit.key for hit in again.search(text, encoder=new).hits] == answers

    (saved,) = store.catalog.labels.saved_sets()
    assert (saved.former_model, saved.frames, report.former_labels) == ("fake", len(ids), ("chest",))
    assert store_facts(store).former_labels == {"chest": "fake"}
    assert show(store, f"{CT}#1").former_labels == {"chest": "fake"}
    labelled = SearchFilter(where="Modality is present and not label.effusion < 0.4")
    found_by_label = store.search(Query("x", ranker=Ranker.DENSE, where=labelled), encoder=new)
    assert found_by_label.notes == (
        "the labels of 'chest' in the filter were made by fake, which is not the store's model any more",
    )


def test_until_the_swap_the_store_answers_by_its_former_model(store: Store) -> None:
    old, new = FakeEncoder(), WideEncoder()
    query = Query("chest", ranker=Ranker.DENSE, k=5)
    expected = store.search(query, encoder=old)
    with reopened(store) as other:

        def ask(encoded: int) -> None:
            assert other.search(query, encoder=old) == expected
            assert other.model["name"] == "fake"

        change_model(store, WideEncoder(meanwhile=ask), workers=1)
        # A process that had the store open follows: its index and its encoder are of the new model, or it says so.
        with pytest.raises(StoreIncompatible, match="belongs to the model 'wide'"):
            other.search(query, encoder=old)
        assert other.search(query, encoder=new) == store.search(query, encoder=new)
        like = Query(ImagePart(FrameRef(CT, 1)), k=1)
        assert other.search(like, encoder=new).hits[0].key.sop_instance_uid == CT


def test_a_run_that_was_stopped_goes_on_where_it_was(store: Store) -> None:
    second = WideEncoder()
    with pytest.raises(Stop):
        change_model(store, WideEncoder(meanwhile=stop_after(2)), workers=1)
    made = store.catalog.model_changes.made()
    assert made.frames == 2 and store.model["name"] == "fake"
    facts = store_facts(store)
    assert facts.next_model is not None and facts.next_model["model"] == "wide"
    report = change_model(store, second, workers=1)
    assert report.switched and report.kept == made.frames + made.sentences
    assert second.images_encoded == report.frames == FRAMES - made.frames
    assert second.texts_encoded == []
    assert store_facts(store).next_model is None


def test_files_that_cannot_be_read_again_stop_the_swap_until_they_are_to_be_left_out(
    store: Store, archive: Path
) -> None:
    (archive / "CT_small.dcm").unlink()
    changed = dcmread(archive / "MR_small.dcm")
    changed.PixelData = bytes(len(changed.PixelData))
    changed.save_as(archive / "MR_small.dcm")
    new = WideEncoder()
    report = change_model(store, new, workers=1)
    assert not report.switched and store.model["name"] == "fake"
    assert [(one.path, one.reason) for one in report.unreadable] == [
        ("CT_small.dcm", "unreadable"),
        ("MR_small.dcm", "changed"),
    ]
    assert report.unreadable_frames == 2 and report.frames == FRAMES - 2
    assert store.search(Query("chest", ranker=Ranker.DENSE), encoder=FakeEncoder()).hits

    index_archive([archive], store, FakeEncoder(), IndexOptions(workers=1))  # takes in the new content
    report = change_model(store, new, workers=1)
    assert [one.path for one in report.unreadable] == ["CT_small.dcm"] and report.frames == 1

    report = change_model(store, new, workers=1, drop_unreadable=True)
    assert (report.switched, report.left_out, report.frames) == (True, 1, 0)
    assert {row["sop_instance_uid"] for row in rows(store)}.isdisjoint({CT})
    assert store.catalog.counts().frames == FRAMES - 1
    assert [check.name for check in verify_store(store) if check.wrong] == []
    # Nothing keeps the file out: once it is there again it is indexed.
    shutil.copy(str(get_testdata_file("CT_small.dcm")), archive / "CT_small.dcm")
    assert index_archive([archive], store, new, IndexOptions(workers=1)).indexed == 1


def test_what_is_indexed_or_erased_meanwhile_is_in_the_new_vectors_or_gone(store: Store, archive: Path) -> None:
    done = False

    def meanwhile(encoded: int) -> None:
        nonlocal done
        if not done and encoded:
            done = True
            shutil.copy(str(get_testdata_file("examples_palette.dcm")), archive / "new.dcm")
            with reopened(store) as other:
                assert index_archive([archive], other, FakeEncoder(), IndexOptions(workers=1)).indexed == 1
                other.erase(SearchFilter({"sop_instance_uid": (MR,)}))

    report = change_model(store, WideEncoder(meanwhile=meanwhile), workers=1)
    assert done and report.switched
    assert MR not in {row["sop_instance_uid"] for row in rows(store)}
    count, bad = store.catalog.vectors.bad("frame", 24)
    assert (count, bad) == (FRAMES, [])
    assert [check.name for check in verify_store(store) if check.wrong] == []


def test_who_works_by_the_former_model_is_stopped_by_the_swap(store: Store, archive: Path) -> None:
    with reopened(store) as other:
        other.require_model(FakeEncoder().spec.to_json())
        batches = other.catalog.frames.batches(batch=2)
        first = next(batches)
        ids = np.asarray(first.ids)
        change_model(store, WideEncoder(), workers=1)
        chest = SavedSet("chest", ("effusion",), "a" * 64, is_probability=False)
        with pytest.raises(StoreIncompatible, match="has changed the model of"):
            other.catalog.labels.save(chest, [(ids, np.full((2, 1), 0.5, np.float32))])
        with pytest.raises(StoreIncompatible, match="has changed the model of"):
            next(batches)
        with pytest.raises(StoreIncompatible, match="has changed the model of"):
            other.catalog.frames.replace_vectors(first.sop_instance_uids, first.frame_numbers, first.vectors)
        shutil.copy(str(get_testdata_file("examples_palette.dcm")), archive / "new.dcm")
        with pytest.raises(StoreIncompatible, match="belongs to the model 'wide'"):
            index_archive([archive], other, FakeEncoder(), IndexOptions(workers=1))
        assert index_archive([archive], other, WideEncoder(), IndexOptions(workers=1)).indexed == 1


def test_an_indexing_run_in_flight_ends_at_the_swap(store: Store, archive: Path) -> None:
    class Switching(FakeEncoder):
        def encode_images(self, images: Sequence[Uint8Image]) -> Embeddings:
            if images:
                change_model(store, WideEncoder(), workers=1)
            return super().encode_images(images)

    shutil.copy(str(get_testdata_file("examples_palette.dcm")), archive / "new.dcm")
    with reopened(store) as other, pytest.raises(StoreIncompatible, match="has changed the model of"):
        index_archive([archive], other, Switching(), IndexOptions(workers=1))
    assert store.catalog.vectors.bad("frame", 24) == (FRAMES, [])


def test_one_process_at_a_time_and_one_model_at_a_time(store: Store) -> None:
    def compete(encoded: int) -> None:
        with reopened(store) as other:
            with pytest.raises(StoreError, match=r"another process is changing the model of .* to wide"):
                change_model(other, WideEncoder(), workers=1)
            with pytest.raises(StoreError, match="another process is changing"):
                change_model(other, WideEncoder("third"), workers=1, restart=True)
            with pytest.raises(StoreError, match="another process is changing"):
                other.catalog.model_changes.abandon()
        raise Stop

    with pytest.raises(Stop):
        change_model(store, WideEncoder(meanwhile=compete), workers=1)
    with pytest.raises(StoreError, match="to the model wide was begun and is not finished") as caught:
        change_model(store, WideEncoder("third"), workers=1)
    assert "--restart" in caught.value.hint
    with pytest.raises(StoreError, match="to the model wide was begun"):
        change_model(store, FakeEncoder(), workers=1)
    report = change_model(store, WideEncoder("third"), workers=1, restart=True)
    assert report.switched and report.kept == 0 and store.model["name"] == "third"


def test_a_change_can_be_abandoned(store: Store) -> None:
    assert not store.catalog.model_changes.abandon()
    with pytest.raises(Stop):
        change_model(store, WideEncoder(meanwhile=stop_after(2)), workers=1)
    assert store.catalog.model_changes.abandon()
    made = store.catalog.model_changes.made()
    assert (made.frames, made.sentences, store.model["name"]) == (0, 0, "fake")
    assert change_model(store, FakeEncoder(), workers=1).switched


def test_going_back_makes_labels_of_that_model_its_own_again(store: Store) -> None:
    ids = store.catalog.frames.ids_matching(SearchFilter())
    chest = SavedSet("chest", ("effusion",), "a" * 64, is_probability=False)
    store.catalog.labels.save(chest, [(ids, np.full((len(ids), 1), 0.5, np.float32))])
    change_model(store, WideEncoder(), workers=1)
    other = SavedSet("other", ("effusion",), "b" * 64, is_probability=False)
    store.catalog.labels.save(other, [(ids, np.full((len(ids), 1), 0.5, np.float32))])
    change_model(store, FakeEncoder(), workers=1)
    assert {one.label_set: one.former_model for one in store.catalog.labels.saved_sets()} == {
        "chest": None,
        "other": "wide",
    }


def test_measurements_of_the_former_vectors_go(store: Store) -> None:
    optimize_store(store)
    assert store.manifest["vector_indexes"]
    change_model(store, WideEncoder(), workers=1)
    assert "vector_indexes" not in store.manifest
    assert "recall_at_10" not in store_facts(store).indexes["frame"]


def test_a_calibration_of_the_former_model_is_not_applied(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("sklearn")
    from retrieval.zeroshot.fitting import LabelledRows, fit_calibration

    labels = LabelSet(
        name="made", kind="exclusive", labels=tuple(Label(name=n, prompts=(f"a {n}",)) for n in ("CT", "MR"))
    )
    old, rng = FakeEncoder(), np.random.default_rng(0)
    images = rng.normal(size=(200, 16)).astype(np.float32)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    truth = rng.integers(0, 2, 200)
    made = LabelledRows(images, truth, [str(n) for n in range(200)], "truth.csv", "ab" * 32)
    kept = fit_calibration(ZeroShotClassifier(labels, old, 8.0), made, old.spec.to_json())
    store.manifest[f"calibration/{labels.fingerprint[:32]}"] = json.loads(kept.model_dump_json())
    assert stored_calibration(store, labels) == kept
    change_model(store, WideEncoder(), workers=1)
    assert stored_calibration(store, labels) is None
    assert "the store's calibration of 'made' is for its former model fake" in caplog.text
    change_model(store, FakeEncoder(), workers=1)
    assert stored_calibration(store, labels) == kept
