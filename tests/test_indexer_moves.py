"""Files and archives that are at another place: known by their bytes, never decoded or encoded again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from catalog_factory import SPEC, indexed
from command_line import medlens
from fake_encoder import FakeEncoder
from http_source import Bucket
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from indexer.catalog import files
from indexer.reading.files import ReadFile
from indexer.records import IndexReport
from indexer.run.batches import Batch
from indexer.run.options import IndexOptions, Shard
from indexer.run.pipeline import index_archive
from indexer.sources.opening import is_gone
from indexer.sources.source import Source
from indexer.store.store import Store
from indexer.tasks.facts import store_facts
from indexer.tasks.relocating import Relocation, relocate
from indexer.tasks.selecting import select
from indexer.tasks.showing import show
from indexer.tasks.verifying import verify_store
from retrieval.errors import StoreError
from retrieval.types import SearchFilter

REFERENCE = Path(__file__).parent / "reference"
CT = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
CINE, ERASED = "1.2.3.4.4", "1.2.3.4.5"
NAMES = ("CT_small.dcm", "reportsi.dcm", "rtplan.dcm")


def picture(path: Path, uid: str, *, frames: int = 1, seed: int = 0) -> None:
    """A picture of one size on disk, whatever is in it."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, uid
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.PatientID, ds.Modality = "1.9", "1.9.1", f"p{uid}", "US"
    ds.Rows = ds.Columns = 32
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.NumberOfFrames = 8, 8, 7, frames
    ds.PixelData = np.random.default_rng(seed).integers(0, 256, (frames, 32, 32), dtype=np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A slice, a cine, a report, a plan, a second copy, somebody who was erased, and what is no DICOM."""
    folder = tmp_path / "old place" / "archive"
    (folder / "b").mkdir(parents=True)
    for name in NAMES:
        shutil.copy(str(get_testdata_file(name)), folder / "b" / name)
    shutil.copy(folder / "b" / "CT_small.dcm", folder / "b" / "copy.dcm")
    picture(folder / "a" / "cine.dcm", CINE, frames=3)
    picture(folder / "a" / "erased.dcm", ERASED)
    (folder / "notes.txt").write_text("no DICOM\n" * 100)
    return folder


class World:
    """A store, indexed into by an encoder whose work is counted; `decoded` counts the files of the last run."""

    def __init__(self, place: str | Path, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.encoder = FakeEncoder()
        self.store = Store.create(place, self.encoder.spec.to_json(), local_dir=local)
        self.decoded = 0
        add = Batch.add

        def counted(batch: Batch, file: object, outcome: object) -> None:
            self.decoded += isinstance(outcome, ReadFile)
            add(batch, file, outcome)  # type: ignore[arg-type]

        monkeypatch.setattr(Batch, "add", counted)

    def index(self, *sources: Source | Path, prune: bool = False) -> IndexReport:
        self.decoded = self.encoder.images_encoded = 0
        return index_archive(sources, self.store, self.encoder, IndexOptions(workers=1, prune=prune))

    @property
    def work(self) -> tuple[int, int]:
        return self.decoded, self.encoder.images_encoded

    def vectors(self) -> dict[str, bytes]:
        ids, vectors = self.store.catalog.frames.vectors_of(
            self.store.catalog.frames.ids_matching(SearchFilter()).tolist()
        )
        keys = self.store.catalog.frames.get(ids.tolist())
        return {str(keys[i][0]): vector.tobytes() for i, vector in zip(ids.tolist(), vectors, strict=True)}

    def places(self) -> dict[str, Path]:
        """Where the file of each instance is, by the catalog."""
        rows = select(self.store, level="instance")
        return {row["sop_instance_uid"]: Path(row["archive_root"]) / row["file_path"] for row in rows}

    def require_sound(self) -> None:
        """Every picture is found where the catalog says, and no row hangs on nothing."""
        assert all(path.is_file() for path in self.places().values())
        assert [check for check in verify_store(self.store, files=True) if not check.sound] == []


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    place = tmp_path / "store" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    made = World(place, tmp_path / "local", monkeypatch)
    with made.store:
        yield made


@pytest.fixture
def lite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path / "store", tmp_path / "local", monkeypatch)
    with made.store:
        yield made


def retimed(folder: Path) -> None:
    """As a copy without times would be."""
    for n, path in enumerate(sorted(folder.rglob("*"))):
        os.utime(path, ns=(10**18 + n, 10**18 + n))


@pytest.mark.parametrize("times", ["kept", "lost"])
def test_an_archive_that_is_mounted_elsewhere_is_known_there(
    times: str, world: World, archive: Path, tmp_path: Path
) -> None:
    assert (world.index(archive).frames, world.decoded) == (5, 6)
    world.store.erase(SearchFilter({"sop_instance_uid": (ERASED,)}))
    before, counts = world.vectors(), world.store.catalog.counts()
    archive.rename(tmp_path / "new place")
    if times == "lost":
        retimed(tmp_path / "new place")
    facts = store_facts(world.store)
    assert (facts.archives, facts.archives_not_found) == (1, 1)
    report = world.index(tmp_path / "new place")
    assert (report.relocated, report.moved, report.vanished, report.indexed) == (5, 0, 0, 0)
    assert (report.unchanged, report.duplicates, report.erased, len(report.rejected)) == (
        (5, 0, 1, 1) if times == "kept" else (4, 1, 1, 1)
    )
    assert world.work == ((0, 0) if times == "kept" else (1, 1)), "an erased file of another version is looked at"
    assert (world.vectors(), world.store.catalog.counts()) == (before, counts)
    assert world.store.catalog.files.archive_roots() == {1: str(tmp_path / "new place")}
    assert show(world.store, f"{CINE}#2").where == tmp_path / "new place" / "a" / "cine.dcm"
    assert store_facts(world.store).archives_not_found == 0
    world.require_sound()
    again = world.index(tmp_path / "new place")
    assert (again.unchanged, again.relocated, again.moved, world.work) == (5, 0, 0, (0, 0))


def test_files_in_other_folders_elsewhere_are_known_by_their_bytes(world: World, archive: Path, tmp_path: Path) -> None:
    world.index(archive)
    before, counts = world.vectors(), world.store.catalog.counts()
    for n, path in enumerate(sorted(archive.rglob("*.*"))):
        target = tmp_path / "new place" / f"{n % 2}" / f"{n}"
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    retimed(tmp_path / "new place")
    shutil.rmtree(archive)
    report = world.index(tmp_path / "new place")
    assert (report.moved, report.duplicates, report.relocated, report.indexed) == (5, 1, 0, 0)
    assert (world.work, world.vectors()) == ((0, 0), before)
    assert {path.parent.parent for path in world.places().values()} == {tmp_path / "new place"}
    world.index(tmp_path / "new place")
    found = world.store.catalog.counts()
    assert (found.instances, found.frames, found.files) == (counts.instances, counts.frames, counts.files)
    world.require_sound()


def test_a_copy_beside_the_old_place_is_a_copy_until_the_old_one_is_gone(
    world: World, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.index(archive)
    shutil.copytree(archive, tmp_path / "copy")
    report = world.index(tmp_path / "copy")
    assert (report.duplicates, report.moved, world.work) == (6, 0, (0, 0))
    assert world.places()[CT].is_relative_to(archive), "the place that was known first is there, and stays"
    shutil.rmtree(archive)
    archive.mkdir()  # as where a disk is not mounted
    monkeypatch.setattr(files, "_TAKEN_AT_ONCE", 2)
    report = world.index(tmp_path / "copy")
    assert (report.moved, report.unchanged, world.work) == (5, 6, (0, 0))
    assert world.store.catalog.counts().rejected == {"not-dicom": 1}
    world.require_sound()
    again = world.index(tmp_path / "copy")
    assert (again.moved, again.unchanged) == (0, 6)


def test_a_part_that_moved_to_another_archive(lite: World, archive: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    picture(other / "x.dcm", "1.7", seed=7)
    lite.index(archive, other)
    before = lite.vectors()
    (archive / "a").rename(other / "a")
    report = lite.index(other)
    assert (report.moved, report.duplicates, report.unchanged) == (2, 0, 1)
    assert lite.places()[CINE] == other / "a" / "cine.dcm"
    report = lite.index(archive, prune=True)
    assert (report.removed, report.vanished, lite.vectors(), lite.work) == (0, 0, before, (0, 0))
    lite.require_sound()


def chain(folder: Path) -> None:
    """1 becomes 2, 2 becomes 3, ... as when a file is put in front."""
    for n in range(9, 0, -1):
        (folder / f"{n}.dcm").rename(folder / f"{n + 1}.dcm")


def ring(folder: Path) -> None:
    (folder / "1.dcm").rename(folder / "kept")
    for n in range(2, 10):
        (folder / f"{n}.dcm").rename(folder / f"{n - 1}.dcm")
    (folder / "kept").rename(folder / "9.dcm")


def replaced(folder: Path) -> None:
    """2 moves away, and 1 takes its name."""
    (folder / "2.dcm").rename(folder / "20.dcm")
    (folder / "1.dcm").rename(folder / "2.dcm")


@pytest.mark.parametrize("change", [chain, ring, replaced])
@pytest.mark.parametrize("touched", [False, True])
def test_files_that_change_names_keep_their_vectors(
    change: Callable[[Path], None], touched: bool, world: World, tmp_path: Path
) -> None:
    """All have one size: only their bytes tell them apart."""
    folder = tmp_path / "archive"
    for n in range(1, 10):
        picture(folder / f"{n}.dcm", f"1.{n}", seed=n)
    assert len({path.stat().st_size for path in folder.iterdir()}) == 1
    world.index(folder)
    before = world.vectors()
    change(folder)
    if touched:
        retimed(folder)
    report = world.index(folder)
    assert (report.duplicates, report.removed, report.vanished, world.work) == (0, 0, 0, (0, 0))
    assert report.moved == {chain: 9, ring: 9, replaced: 2}[change]
    assert world.vectors() == before
    for uid, path in world.places().items():
        assert dcmread(path).SOPInstanceUID == uid
    world.require_sound()


def test_a_place_that_holds_something_new_loses_nothing_that_is_elsewhere(lite: World, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    for n in (1, 2):
        picture(folder / f"{n}.dcm", f"1.{n}", seed=n)
    lite.index(folder)
    before = lite.vectors()
    (folder / "1.dcm").rename(folder / "9.dcm")
    picture(folder / "1.dcm", "1.3", seed=3)
    report = lite.index(folder)
    after = lite.vectors()
    assert report.frames == 2 and set(after) == {"1.1#1", "1.2#1", "1.3#1"}
    assert {key: after[key] for key in before} == before
    lite.require_sound()


def test_what_is_known_of_a_folder_is_found_in_a_source_of_another_kind(
    lite: World, archive: Path, tmp_path: Path
) -> None:
    lite.index(archive)
    before = lite.vectors()
    content = {path.relative_to(archive).as_posix(): path.read_bytes() for path in archive.rglob("*.*")}
    shutil.rmtree(archive)
    with Bucket(content) as bucket:
        report = lite.index(bucket)
        assert (report.relocated, report.unchanged, report.duplicates) == (6, 5, 1)
        assert (lite.work, lite.vectors()) == ((0, 0), before)
        assert lite.store.catalog.files.archive_roots() == {1: "bucket://radiology"}
        bucket.files["renamed"] = bucket.files.pop("a/cine.dcm")
        report = lite.index(bucket)
        assert (report.moved, report.duplicates, lite.work) == (1, 0, (0, 0))
        back = tmp_path / "back"
        for key, data in bucket.files.items():
            (back / key).parent.mkdir(parents=True, exist_ok=True)
            (back / key).write_bytes(data)
        report = lite.index(back)
        assert (report.moved, report.duplicates, lite.work) == (0, 6, (0, 0)), "whether the bucket is there: unknown"


def test_links_are_what_they_lead_to(lite: World, archive: Path, tmp_path: Path) -> None:
    lite.index(archive)
    (tmp_path / "link").symlink_to(archive)
    report = lite.index(tmp_path / "link")
    assert (report.unchanged, report.relocated, lite.store.catalog.files.archive_roots()) == (6, 0, {1: str(archive)})
    objects = tmp_path / "objects"  # as git-annex keeps them
    objects.mkdir()
    for n, path in enumerate(sorted((archive / "b").iterdir())):
        path.rename(objects / f"{n}")
        path.symlink_to(objects / f"{n}")
    retimed(objects)
    report = lite.index(archive)
    assert (report.unchanged, report.duplicates, report.moved, lite.work) == (5, 1, 0, (0, 0))
    archive.rename(tmp_path / "elsewhere")
    report = lite.index(tmp_path / "elsewhere")
    assert (report.relocated, report.unchanged, lite.work) == (6, 6, (0, 0))
    lite.require_sound()


def test_another_archive_is_not_taken_for_one_that_is_gone(lite: World, archive: Path, tmp_path: Path) -> None:
    lite.index(archive)
    archive.rename(tmp_path / "elsewhere")
    picture(tmp_path / "new" / "b" / "CT_small.dcm", "1.8", seed=8)
    report = lite.index(tmp_path / "new")
    assert (report.indexed, report.relocated) == (1, 0)
    assert lite.store.catalog.files.archive_roots() == {1: str(archive), 2: str(tmp_path / "new")}


def test_what_has_vanished_is_counted_until_it_is_back_or_pruned(lite: World, archive: Path, tmp_path: Path) -> None:
    lite.index(archive)
    (archive / "a").rename(tmp_path / "away")
    (archive / "b" / "copy.dcm").unlink()
    report = lite.index(archive)
    assert (report.vanished, report.removed) == (2, 0)
    assert store_facts(lite.store).vanished == 2
    index_archive([archive], lite.store, lite.encoder, IndexOptions(workers=1, shard=Shard(1, 9)))
    assert store_facts(lite.store).vanished == 2, "a run over a part says nothing of the whole"
    (tmp_path / "away").rename(archive / "a")
    assert lite.index(archive).vanished == store_facts(lite.store).vanished == 0
    shutil.rmtree(archive / "a")
    report = lite.index(archive, prune=True)
    assert (report.vanished, report.removed, store_facts(lite.store).vanished) == (0, 2, 0)


def test_where_nothing_is_any_more(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    assert is_gone(str(tmp_path / "missing")) and is_gone(str(tmp_path / "empty"))
    assert is_gone(str(tmp_path / "full" / "file" / "below")), "a file has taken a folder's place"
    assert not is_gone(str(tmp_path / "full")) and not is_gone(str(tmp_path / "full" / "file"))
    assert not is_gone("bucket://radiology")


# -- medlens relocate


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Store]:
    """Archives `a` and `b` of files whose bytes the store knows, `a` being elsewhere now."""
    with Store.create(tmp_path / "store", SPEC) as store:
        for name in "ab":
            for n in range(3):
                path = tmp_path / name / f"{n}"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(f"{name}{n}".encode())
        for name in "ab":
            from indexer.sources.opening import digest

            number = store.catalog.files.archive_id(tmp_path / name)
            made = [indexed(f"{n}", f"1.{name}.{n}", "xx") for n in range(3)]
            made = [
                type(item)(**{**vars(item), "content_hash": digest(tmp_path / name / item.stat.path)}) for item in made
            ]
            store.catalog.files.commit(number, made)
        (tmp_path / "a").rename(tmp_path / "moved")
        yield store


def test_one_archive_of_several_is_relocated(two: Store, tmp_path: Path) -> None:
    expected = Relocation(files=3, relocated=False, looked_at=3, same=3)
    assert relocate(two, tmp_path / "a", tmp_path / "moved", dry_run=True) == expected
    assert two.catalog.files.archive_roots() == {1: str(tmp_path / "a"), 2: str(tmp_path / "b")}
    assert relocate(two, str(tmp_path / "a") + "/", tmp_path / "moved").relocated
    assert two.catalog.files.archive_roots() == {1: str(tmp_path / "moved"), 2: str(tmp_path / "b")}
    assert show(two, "1.a.1#1").where == tmp_path / "moved" / "1"
    assert show(two, "1.b.1#1").where == tmp_path / "b" / "1"


def test_a_place_where_nothing_matches_is_refused_in_words(two: Store, tmp_path: Path) -> None:
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "1").write_bytes(b"zz")
    with pytest.raises(
        StoreError, match=r"none of 3 files of 'a' is in 'else' with the same content: 2 are missing, 1 differ"
    ):
        relocate(two, tmp_path / "a", tmp_path / "else")
    with pytest.raises(StoreError, match=r"the store has no archive at 'c'; it has 'a', 'b'"):
        relocate(two, tmp_path / "c", tmp_path / "moved")
    with pytest.raises(StoreError, match=r"already has an archive at 'b'") as refused:
        relocate(two, tmp_path / "a", tmp_path / "b")
    assert "medlens index" in refused.value.hint
    with pytest.raises(StoreError, match=r"s3://"):
        relocate(two, tmp_path / "a", "s3://bucket")
    assert two.catalog.files.archive_roots() == {1: str(tmp_path / "a"), 2: str(tmp_path / "b")}
    (tmp_path / "moved" / "2").write_bytes(b"changed")
    (tmp_path / "moved" / "1").unlink()
    done = relocate(two, tmp_path / "a", tmp_path / "moved")
    assert done == Relocation(files=3, relocated=True, looked_at=3, same=1, differing=1, missing=1)
    assert relocate(two, tmp_path / "moved", "s3://bucket", check=False) == Relocation(files=3, relocated=True)
    assert relocate(two, "s3://bucket", tmp_path / "moved").same == 1


def test_an_archive_of_a_store_of_0_1_0_is_relocated_by_the_hashes_it_kept(tmp_path: Path) -> None:
    place = shutil.copytree(REFERENCE / "store-0.1.0", tmp_path / "store")
    (tmp_path / "new").mkdir()
    for name in ("MR_small.dcm", "CT_small.dcm"):
        shutil.copy(str(get_testdata_file(name)), tmp_path / "new" / name)
    done = medlens("relocate", "/tmp/archive-0.1.0", tmp_path / "new", "--store", place, "--format", "table").stdout
    assert done.splitlines() == [
        "5 files are now known by their new place",
        "  of 4 compared files, 2 are the same, 0 differ, 2 are missing",
        "  run `medlens index` on the new place to bring the store up to date",
    ]
    with Store.open(place) as store:
        assert show(store, f"{CT}#1").where == tmp_path / "new" / "CT_small.dcm"
