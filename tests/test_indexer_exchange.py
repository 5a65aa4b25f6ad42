"""Vectors out to a file and back: what comes back is what went, and what doesn't belong is refused whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from catalog_factory import DIM, SPEC, indexed, vectors
from typer.testing import CliRunner

from cli.medlens_app import app
from indexer.store.store import Store
from indexer.tasks.exchange import export_frames, import_frames
from indexer.tasks.optimizing import MANIFEST_KEY, index_facts, optimize_store
from retrieval.errors import StoreError, StoreIncompatible


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store", SPEC) as made:
        archive = made.catalog.files.archive_id("/archive/DOE^JANE")
        files = [indexed(f"DOE^JANE/{n}.dcm", f"1.2.{n}", frames=2, modality="CT") for n in range(20)]
        made.catalog.files.commit(archive, files, [])
        yield made


@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_what_is_exported_is_what_is_there(form: str, store: Store, tmp_path: Path) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"out.{form}"
    assert export_frames(store, path) == 40
    assert b"DOE" not in path.read_bytes(), "paths can hold names"
    outcome = import_frames(store, path)
    assert (outcome.replaced, outcome.unchanged) == (0, 40)
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, "store"]


def test_vectors_made_elsewhere_take_the_place_of_those_that_were_there(store: Store, tmp_path: Path) -> None:
    path, changed = tmp_path / "out.npz", tmp_path / "changed.npz"
    export_frames(store, path)
    before = store.frames_index().vectors_of(store.frames_index().ids)
    with np.load(path) as values:
        columns = dict(values)
    assert np.array_equal(columns["vectors"], before)
    other = vectors("other", 40)
    np.savez(changed, **columns | {"vectors": other})
    outcome = import_frames(store, changed)
    assert (outcome.replaced, outcome.unchanged) == (40, 0)
    index = store.frames_index()
    assert len(index) == 40
    best, score = index.search(other[7], 1)[0][0]
    assert score == pytest.approx(1, abs=1e-3)
    key, _ = store.catalog.frames.get([best])[best]
    assert (key.sop_instance_uid, key.frame_number) == (columns["sop_instance_uid"][7], columns["frame_number"][7])
    assert import_frames(store, path).replaced == 40
    assert np.array_equal(store.frames_index().vectors_of(store.frames_index().ids), before)


def test_faiss_reads_the_export(store: Store, tmp_path: Path) -> None:
    import faiss

    assert export_frames(store, tmp_path / "out.faiss") == 40
    index = faiss.read_index(str(tmp_path / "out.faiss"))
    lines = [json.loads(line) for line in (tmp_path / "out.faiss.jsonl").read_text().splitlines()]
    query = vectors("1.2.3/", 2)[1:]
    _, found = index.search(query, 1)
    row = next(line for line in lines if line["id"] == found[0, 0])
    assert (row["sop_instance_uid"], row["frame_number"], row["modality"]) == ("1.2.3", 2, "CT")


@pytest.mark.parametrize("wrong", ["nan", "norm", "size", "stranger", "twice", "model", "no model", "cut", "short"])
def test_what_does_not_belong_is_refused_whole(wrong: str, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "in.npz"
    export_frames(store, path)
    with np.load(path) as values:
        columns = dict(values)
    columns["vectors"] = vectors("new", 40)
    if wrong == "nan":
        columns["vectors"][3, 1] = np.nan
    elif wrong == "norm":
        columns["vectors"][3] *= 2
    elif wrong == "size":
        columns["vectors"] = vectors("new", 40, DIM + 1)
    elif wrong == "stranger":
        columns["sop_instance_uid"][5] = "9.9"
    elif wrong == "twice":
        columns["frame_number"][1] = columns["frame_number"][0]
    elif wrong == "model":
        columns["model"] = np.array(json.dumps(SPEC | {"weights_sha256": "cd" * 32}))
    elif wrong == "no model":
        del columns["model"]
    elif wrong == "short":
        columns["frame_number"] = columns["frame_number"][:-1]
    np.savez(path, **columns)
    if wrong == "cut":
        path.write_bytes(path.read_bytes()[:500])
    before = store.frames_index().vectors_of(store.frames_index().ids)
    with pytest.raises((StoreError, StoreIncompatible)):
        import_frames(store, path)
    assert np.array_equal(store.frames_index().vectors_of(store.frames_index().ids), before)
    if wrong == "no model":
        assert import_frames(store, path, any_model=True).replaced == 40


def test_optimize_is_in_the_manifest_and_told(store: Store) -> None:
    measured = optimize_store(store)
    assert set(measured) == {"frame"}
    assert store.manifest[MANIFEST_KEY]["frame"]["recall_at_10"] == 1.0
    facts = index_facts(store)["frame"]
    assert (facts["kind"], facts["rows"], facts["rows_measured"]) == ("flat", 40, 40)


def test_the_commands(store: Store, tmp_path: Path) -> None:
    place = ["--store", str(tmp_path / "store")]
    runner = CliRunner()
    done = runner.invoke(app, ["optimize", *place, "--memory", "1G", "--format", "json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)[0]["kind"] == "flat"
    assert runner.invoke(app, ["optimize", *place, "--memory", "much"]).exit_code == 2
    assert runner.invoke(app, ["export", str(tmp_path / "o.npz"), *place]).exit_code == 0
    assert runner.invoke(app, ["export", str(tmp_path / "o.csv"), *place]).exit_code == 1
    assert runner.invoke(app, ["import", str(tmp_path / "o.npz"), *place]).exit_code == 0
    assert runner.invoke(app, ["import", str(tmp_path / "none.npz"), *place]).exit_code == 1
