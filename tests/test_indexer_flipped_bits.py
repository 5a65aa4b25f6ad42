"""One flipped bit anywhere in a derived file: it is found and the file is built anew, or no answer differs."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from catalog_factory import SPEC, indexed, vectors
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.store.store import Store
from indexer.vectors import compressed as compressing
from indexer.vectors import file
from indexer.vectors.blocks import BLOCK, CheckedFile, ChecksumWriter
from indexer.vectors.compressed import Tuning
from indexer.vectors.flat import Flat
from indexer.vectors.index import CatalogIndex
from indexer.vectors.opening import IndexFile, open_index
from retrieval.errors import StoreCorrupt, StoreError

DIM = 16
ROWS = 3000
FLIPS = 30


class Rows:
    """A catalog of vectors under every second id, so that the ids are not told by their number."""

    def __init__(self) -> None:
        self.ids = np.arange(1, 2 * ROWS, 2, dtype=np.int64)
        self.vectors = vectors("rows", ROWS, DIM).astype(np.float16)

    def iter_vectors(self, kind: str, after_id: int = 0, batch: int = 4096):  # type: ignore[no-untyped-def]
        new = self.ids > after_id
        if new.any():
            yield self.ids[new], self.vectors[new]

    def vectors_of(self, ids, kind: str = "frame"):  # type: ignore[no-untyped-def]
        there = np.isin(self.ids, np.fromiter(ids, np.int64))
        return self.ids[there], self.vectors[there]

    def deleted_since(self, kind: str, seq: int) -> tuple[int, np.ndarray]:
        return 0, np.empty(0, np.int64)


CATALOG = Rows()
QUERIES = vectors("queries", 40, DIM)


def flipped(path: Path, bit: int) -> None:
    """Flip a bit and keep the file's time, as a disk would."""
    times = path.stat()
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def place(folder: Path) -> IndexFile:
    return IndexFile(folder / "frames.faiss", DIM, "frame", "s")


def answers(index: CatalogIndex) -> list[object]:
    return [
        index.search(QUERIES, 7),
        index.search(QUERIES[:3], 7, exact=True),
        index.scores(QUERIES[:2], CATALOG.ids[::7]),
        index.vectors_of(CATALOG.ids[5::11]).tobytes(),
    ]


@pytest.fixture(scope="module", params=["flat", "flat in FAISS", "compressed"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("index")
    index = open_index(place(folder), CATALOG)
    if request.param == "compressed":
        index.compress(nlist=32)
        index.tune(Tuning(nprobe=32, per_answer=40))
        index.save(place(folder).path)
    with pytest.MonkeyPatch.context() as patched:
        if request.param == "flat in FAISS":
            patched.setattr(Flat, "scan", lambda self, queries: None)
        yield folder, answers(open_index(place(folder), CATALOG))


def test_a_flipped_bit_of_an_index_file_changes_no_answer_in_silence(
    made: tuple[Path, list[object]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, expected = made
    size = place(folder).path.stat().st_size
    seeded = np.random.default_rng(19)
    bits = [*seeded.integers(0, 8 * size, FLIPS), *seeded.integers(0, 8 * 64, 8), *seeded.integers(-8 * 600, 0, 30)]
    found = 0
    for bit in bits:
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
        flipped(place(tmp_path).path, int(bit) % (8 * size))
        caplog.clear()
        index = open_index(place(tmp_path), CATALOG)
        same = answers(index) == expected
        warned = any("it is rebuilt from the catalog" in record.message for record in caplog.records)
        found += warned
        assert same or (warned and index.tuning is None), f"bit {bit}: other answers, in silence"
        if warned:
            assert answers(open_index(place(tmp_path), CATALOG)) == answers(index), "the file was not built anew"
    assert found >= len(bits) // 2, "most of the file is read by these searches"


def test_a_bit_of_what_no_search_has_read_is_found_by_a_check(made: tuple[Path, list[object]], tmp_path: Path) -> None:
    folder, _ = made
    size = place(folder).path.stat().st_size
    for bit in np.random.default_rng(5).integers(0, 8 * size, FLIPS).tolist():
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
        flipped(place(tmp_path).path, bit)
        with pytest.raises(StoreCorrupt, match=r"frames\.faiss is damaged"):
            CatalogIndex.load(place(tmp_path).path).check()


def test_an_index_is_compressed_and_saved_from_sound_vectors_only(tmp_path: Path) -> None:
    path = place(tmp_path).path
    renew = open_index(place(tmp_path), CATALOG).renew
    good = path.read_bytes()
    flipped(path, 8 * (good.index(CATALOG.vectors[1500].tobytes()) + 3))
    for work in (lambda index: index.compress(nlist=8), lambda index: index.save(path), CatalogIndex.check):
        damaged = CatalogIndex.load(path)
        with pytest.raises(StoreCorrupt, match="a checksum is wrong"):
            work(damaged)
    assert path.read_bytes() != good
    damaged.renew = renew
    damaged.compress(nlist=8)
    assert damaged.nlist == 8
    assert path.read_bytes() == good


def test_the_lists_of_a_compressed_index_are_its_last_bytes(tmp_path: Path) -> None:
    """What lies before them is checked when it is opened, they when they are visited."""
    index = open_index(place(tmp_path), CATALOG)
    index.compress(nlist=32)
    built = index._state.mapped.compressed
    assert built is not None
    faiss = compressing.load_faiss()
    written = faiss.serialize_index(built.faiss_index).tobytes()
    lists = built.faiss_index.invlists
    first = next(n for n in range(32) if lists.list_size(n))
    codes = faiss.rev_swig_ptr(lists.get_codes(first), lists.list_size(first) * lists.code_size).tobytes()
    assert written.index(codes) == len(written) - built.list_bytes


@pytest.mark.parametrize("erased", [0, 1])
def test_a_file_of_medlens_0_1_0_is_built_anew_and_told(
    erased: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it can't be replaced it does no harm, unless it may hold what was erased since."""
    expected = answers(open_index(place(tmp_path), CATALOG))
    path = place(tmp_path).path
    good = path.read_bytes()
    _, length, _ = file._FOOTER.unpack(good[-file._FOOTER.size :])
    meta = json.loads(good[-file._FOOTER.size - length : -file._FOOTER.size])
    del meta["sums_crc"]
    text = json.dumps(meta).encode()
    old = good[: file.flat_end(meta)] + text + file._FOOTER.pack(zlib.crc32(text), len(text), b"MEDLENS3")
    path.write_bytes(old)
    monkeypatch.setattr(Rows, "deleted_since", lambda self, kind, seq: (erased, np.arange(erased) + 10_000))
    with monkeypatch.context() as patched:
        patched.setattr(CatalogIndex, "save", refuse)
        if erased:
            with pytest.raises(StoreError, match="no room"):
                open_index(place(tmp_path), CATALOG)
        else:
            assert answers(open_index(place(tmp_path), CATALOG)) == expected
    assert path.read_bytes() == old
    assert answers(open_index(place(tmp_path), CATALOG)) == expected
    assert "written by medlens 0.1.0 and has no checksums" in caplog.text
    caplog.clear()
    assert answers(open_index(place(tmp_path), CATALOG)) == expected
    assert caplog.text == ""


def refuse(self: CatalogIndex, path: Path) -> None:
    raise StoreError("no room")


@pytest.fixture
def words(tmp_path: Path) -> Path:
    with Store.create(tmp_path / "store", SPEC) as store:
        archive = store.catalog.files.archive_id("/a")
        texts = ["No effusion. A nodule on the left.", "Consolidation, small effusion.", "Normal heart.", "Nodules."]
        reports = [indexed(f"{n}", f"1.{n}", frames=0, sentences=(text,)) for n, text in enumerate(texts * 5)]
        store.catalog.files.commit(archive, reports)
        store.refresh()
    return tmp_path / "store"


def asked(place: Path) -> list[object]:
    with Store.open(place) as store:
        index = store.reports_index()
        return [list(index.studies), *(index.scores(word).tolist() for word in ("nodule", "effusion", "left", "heart"))]


def test_a_flipped_bit_of_the_words_of_reports_changes_no_answer_in_silence(
    words: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = asked(words)
    seeded = np.random.default_rng(7)
    names = sorted(path.name for path in (words / "vectors" / "reports").iterdir())
    assert len(names) == 6
    for name in names:
        good = (words / "vectors" / "reports" / name).read_bytes()
        found = 0
        for bit in seeded.integers(0, 8 * len(good), 25).tolist():
            path = words / "vectors" / "reports" / name
            flipped(path, bit)
            caplog.clear()
            assert asked(words) == expected
            told = [record.message for record in caplog.records]
            found += "the report index is damaged (ValueError); it is rebuilt" in told
            assert path.read_bytes() == good, f"{name}, bit {bit}: it was not built anew"
        assert found >= 20 or name == "mark.json"


@given(st.lists(st.integers(0, 3 * BLOCK), max_size=6), st.data())
@settings(max_examples=60, deadline=None)
def test_blocks_are_summed_however_they_are_written(sizes: list[int], data: st.DataObject) -> None:
    content = np.random.default_rng(len(sizes)).bytes(sum(sizes))
    folder = Path(data.draw(st.just(os.environ.get("TMPDIR", "/tmp"))))
    path = folder / f"medlens-blocks-{os.getpid()}"
    try:
        with path.open("wb") as out:
            summed, start = ChecksumWriter(out), 0
            for size in sizes:
                summed.write(content[start : start + size])
                start += size
        assert path.read_bytes() == content
        sums = summed.sums()
        with path.open("rb", buffering=0) as raw:
            CheckedFile(raw, len(content), sums, AssertionError).require(0, len(content))  # type: ignore[arg-type]
            if not content:
                return
            at = data.draw(st.integers(0, len(content) - 1))
            flipped(path, 8 * at)
            checked = CheckedFile(raw, len(content), sums, AssertionError)  # type: ignore[arg-type]
            checked.require(0, at // BLOCK * BLOCK)
            for require in (lambda: checked.require(at, at + 1), lambda: checked.require(0, len(content))):
                with pytest.raises(AssertionError):
                    require()
            with pytest.raises(AssertionError):
                checked.require_rows(at % 100, 100, np.array([at // 100]))
    finally:
        path.unlink(missing_ok=True)
