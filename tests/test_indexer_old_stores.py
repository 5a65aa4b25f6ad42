"""A store that an older medlens wrote (see reference/make_store.py) is opened, migrated, searched and found sound."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from catalog_factory import indexed

from indexer.catalog.processes import Process
from indexer.catalog.schema import SCHEMA_REVISION
from indexer.catalog.sql_catalog import Counts
from indexer.records import FileStat
from indexer.store.place import KEY_FILE
from indexer.store.store import Store
from indexer.tasks.verifying import verify_store
from retrieval.search.query import Query, Ranker
from retrieval.types import Embeddings, FrameKey, SearchFilter

REFERENCE = Path(__file__).parent / "reference"
MR = "1.3.6.1.4.1.5962.1.1.4.1.1.20040826185059.5457"
CT = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
CINE, REPORT, ERASED = "1.2.3.4.4", "1.2.3.4.6", "1.2.3.4.5"
MODIFIED_NS = 1_800_000_000 * 10**9


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Version 0.1.0's, opened as a user would."""
    place: str | Path = shutil.copytree(REFERENCE / "store-0.1.0", tmp_path / "store")
    local = Path(place)
    if request.param == "postgresql":
        import psycopg

        place = request.getfixturevalue("postgres_url")
        with psycopg.connect(place.replace("+psycopg", "")) as connection:
            connection.execute((REFERENCE / "store-0.1.0.sql").read_text("utf-8"))
        local = tmp_path / "local"
        local.mkdir()
        shutil.copy(REFERENCE / "store-0.1.0.sql.key", local / KEY_FILE)
    (local / KEY_FILE).chmod(0o600)  # Git keeps no such modes
    Store.upgrade(place)
    with Store.open(place, local_dir=local) as opened:
        yield opened


class Echo:
    """An encoder for which every picture and every text is one vector."""

    name = "echo"

    def __init__(self, vector: np.ndarray) -> None:
        self.vector = vector.astype(np.float32)
        self.embed_dim = len(vector)

    def encode_images(self, images: object) -> Embeddings:
        return np.stack([self.vector for _ in images])  # type: ignore[attr-defined]

    encode_text = encode_images


def test_it_has_what_was_put_in_and_the_present_schema(store: Store) -> None:
    assert store.catalog._database.revision() == SCHEMA_REVISION
    assert store.model["name"] == "medlens-base"
    assert store.catalog.counts() == Counts(
        files=5,
        instances=4,
        frames=5,
        studies=3,
        series=4,
        patients=3,
        reports=1,
        sentences=2,
        modalities={"CT": 1, "MR": 1, "SR": 1, "US": 1},
        rejected={"pixel-decode": 1},
    )
    [(archive, root)] = store.catalog.files.archive_roots().items()
    assert root == "/tmp/archive-0.1.0"
    known = dict(store.catalog.files.known(archive))
    assert {path: (file.status, file.reason) for path, file in known.items()} == {
        "CT_small.dcm": ("indexed", ""),
        "MR_small.dcm": ("indexed", ""),
        "broken.dcm": ("rejected", "pixel-decode"),
        "cine.dcm": ("indexed", ""),
        "copy of MR_small.dcm": ("indexed", "duplicate"),
        "report.dcm": ("indexed", ""),
    }
    assert known["CT_small.dcm"].version == FileStat("CT_small.dcm", 39206, MODIFIED_NS).version
    [saved] = store.catalog.labels.saved_sets()
    assert (saved.label_set, saved.frames, saved.is_probability) == ("modality", 5, False)


def test_it_is_searched_by_vectors_by_words_and_through_filters(store: Store) -> None:
    ids = store.catalog.frames.ids_matching(SearchFilter({"modality": ("CT",)}))
    _, vectors = store.catalog.frames.vectors_of(ids)
    echo = Echo(vectors[0])
    found = store.search("anything", encoder=echo)
    assert found.hits[0].key == FrameKey(CT, 1)
    assert found.hits[0].score == pytest.approx(1, abs=1e-3)
    assert {hit.key.sop_instance_uid for hit in found.hits} == {CT, MR, CINE}
    found = store.search(Query("pleural effusion", ranker=Ranker.TEXT), encoder=echo)
    assert [hit.key for hit in found.hits] == [FrameKey(CINE, n) for n in (1, 2, 3)]
    likely = store.catalog.frames.ids_matching(SearchFilter(where="label.MR > 0.9 and PatientSex = F"))
    assert [key.sop_instance_uid for key, _ in store.catalog.frames.get(likely).values()] == [MR]
    _, sentences = next(store.catalog.vectors.iter_vectors("sentence"))
    assert store.describe(np.zeros((8, 8), np.uint8), k=1, encoder=Echo(sentences[1]))[0].text == "No pneumothorax."  # type: ignore[arg-type]


def test_its_pictures_are_told_by_whether_they_may_show_text(store: Store) -> None:
    rows = list(store.catalog.instances.select(SearchFilter(), "instance"))
    assert {row["sop_instance_uid"]: row["burned_in_text"] for row in rows} == {
        CT: "no",
        MR: "no",
        CINE: "likely",
        REPORT: None,
    }


def test_it_is_sound(store: Store) -> None:
    wrong = [check for check in verify_store(store) if not check.sound]
    assert wrong == []


def test_what_was_erased_stays_out(store: Store) -> None:
    catalog, erased = store.catalog, store.erasures
    archive, worker = catalog.files.archive_id("/tmp/archive-0.1.0"), catalog.claims.take_lease(Process.this())
    known = FileStat("erased.dcm", 1584, MODIFIED_NS)
    assert catalog.claims.claim(archive, worker, [known], erased).erased == [known]
    again = indexed("elsewhere.dcm", ERASED, frames=0)
    assert catalog.files.commit(archive, [again], erased=erased).tally.erased == 1
