"""A hit knows its place in its stack, however the files were named and whenever they were indexed."""

from __future__ import annotations

import shutil
from pathlib import Path

from fake_encoder import FakeEncoder
from pydicom import dcmread
from pydicom.data import get_testdata_file

from indexer.run.options import IndexOptions
from indexer.run.pipeline import index_archive
from indexer.store.slices import slice_position_cache, with_slice_positions
from indexer.store.store import Store
from retrieval.search.searcher import Searcher


def test_hits_know_their_slice(tmp_path: Path) -> None:
    archive, encoder = tmp_path / "archive", FakeEncoder()
    archive.mkdir()
    heights = [30.0, -5.0, 12.5, 0.0]
    for number, height in enumerate(heights):
        ds = dcmread(str(get_testdata_file("MR_small.dcm")))
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        ds.ImagePositionPatient = [0, 0, height]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.InstanceNumber = number
        ds.save_as(archive / f"{number}.dcm")
    shutil.copy(str(get_testdata_file("SC_rgb.dcm")), archive / "no_geometry.dcm")
    with Store.create(tmp_path / "store", encoder.spec.to_json()) as store:
        index_archive([archive], store, encoder, IndexOptions(workers=1))
        found = Searcher(encoder, store.frames_index(), store.catalog.frames).search_text("anything", k=10)
        hits = with_slice_positions(found, store.catalog, slice_position_cache(store.catalog)).hits
    places = {h.key.sop_instance_uid: (h.attributes["slice"], h.attributes["slices"]) for h in hits}
    in_order = sorted(heights)
    for number, height in enumerate(heights):
        assert places[f"1.2.3.{number}"] == (in_order.index(height) + 1, 4)
    assert (None, None) in places.values()
