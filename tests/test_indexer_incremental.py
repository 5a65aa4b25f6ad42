"""What an indexing run reads, claims, leaves alone and lets go, on SQLite and PostgreSQL; without decoding anything."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from catalog_factory import SPEC, content_hash, indexed

from indexer.catalog.claims import LEASE_S
from indexer.catalog.processes import Process
from indexer.catalog.sql_catalog import SqlCatalog
from indexer.records import FileStat, IndexedFile, Rejection, Tally
from indexer.run.changes import FILES_PER_CLAIM, ArchiveChanges
from indexer.run.lease import Lease
from indexer.run.options import Shard
from indexer.sources.folders import Folder, count_files, iter_files
from retrieval.errors import MedlensError
from retrieval.types import SearchFilter

ELSEWHERE = Process("another machine", 1, "0")


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlCatalog]:
    sqlite = request.param == "sqlite"
    place = tmp_path / "catalog.sqlite" if sqlite else request.getfixturevalue("postgres_url")
    with SqlCatalog.create(place, {"model": SPEC, "store_id": "test"}) as opened:
        yield opened


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[SqlCatalog]:
    with SqlCatalog.create(tmp_path / "catalog.sqlite", {"model": SPEC, "store_id": "test"}) as opened:
        yield opened


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Files whose content is `uid content`."""
    folder = tmp_path / "archive"
    for n in range(6):
        write(folder / f"{'ab'[n % 2]}" / f"{n}.dcm", f"1.{n}", f"x{n}")
    return folder


def write(path: Path, uid: str, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{uid} {content}")


def as_indexed(stat: FileStat, path: Path) -> IndexedFile:
    uid, content = path.read_text().split(" ")
    item = indexed(stat.path, uid, content, frames=1)
    return IndexedFile(stat, item.record, (1,), item.frame_vectors, content_hash=content_hash(uid, content))


class Run:
    """One indexing run as the pipeline does it; `read` are the paths it had to open, `decoded` those it decoded."""

    def __init__(self, catalog: SqlCatalog, root: Path, *, prune: bool = False, **options: Any) -> None:
        self.read: list[str] = []
        self.decoded: list[str] = []
        with Lease(catalog) as worker:
            changes = ArchiveChanges(catalog, Folder(root), worker, **options)
            for files in changes.rounds():
                batch, copies = [], []
                for file in files:
                    self.read.append(file.stat.path)
                    item = as_indexed(file.stat, file.where)
                    if item.content_hash in file.candidates:
                        copies.append((file.stat, item.content_hash))
                    else:
                        self.decoded.append(file.stat.path)
                        batch.append(item)
                if batch or copies:
                    changes.put_back(catalog.files.commit(changes.archive_id, batch, [], copies).stale)
            changes.finish(prune)
        self.gone = changes.tally
        self.unchanged, self.rejected = changes.tally.unchanged, changes.tally.rejected


def shown(catalog: SqlCatalog) -> dict[str, str]:
    found = catalog.frames.get(catalog.frames.ids_matching(SearchFilter()))
    return {key.sop_instance_uid: attributes["file_path"] for key, attributes in found.values()}


def test_the_second_run_opens_nothing(catalog: SqlCatalog, archive: Path) -> None:
    assert Run(catalog, archive).read == [f"{'ab'[n % 2]}/{n}.dcm" for n in (0, 2, 4, 1, 3, 5)]
    again = Run(catalog, archive)
    assert (again.read, again.unchanged) == ([], 6)
    (archive / "a" / "0.dcm").write_text("1.0 changed")
    assert Run(catalog, archive).read == ["a/0.dcm"]


def test_names_in_any_script_are_compared_in_one_order(catalog: SqlCatalog, archive: Path) -> None:
    """The walk, Python and both databases must sort alike, or files would seem new and gone at once."""
    for n, name in enumerate(["Z", "a.b/x", "a b", "a/_x", "ä", "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), "\uff21", "B\u0301", "a-/x", "~"]):  # fmt: skip  # noqa: E501
        write(archive / name, f"2.{n}", "y")
    Run(catalog, archive)
    again = Run(catalog, archive, prune=True)
    assert (again.read, again.gone.removed, again.unchanged) == ([], 0, 16)


def test_a_moved_folder_keeps_its_vectors_and_is_known_by_its_new_place(catalog: SqlCatalog, archive: Path) -> None:
    Run(catalog, archive)
    before = catalog.frames.ids_matching(SearchFilter()).tolist()
    (archive / "a").rename(archive / "moved")
    run = Run(catalog, archive)
    assert (run.decoded, run.gone.moved) == ([], 3)
    assert catalog.frames.ids_matching(SearchFilter()).tolist() == before
    assert shown(catalog)["1.0"] == "moved/0.dcm"
    assert sorted(path for path, _ in catalog.files.known(catalog.files.archive_id(archive))) == [
        "b/1.dcm", "b/3.dcm", "b/5.dcm", "moved/0.dcm", "moved/2.dcm", "moved/4.dcm"
    ]  # fmt: skip
    again = Run(catalog, archive, prune=True)
    assert (again.read, again.gone.removed) == ([], 0)


def test_a_touched_file_is_hashed_and_not_decoded(lite: SqlCatalog, archive: Path) -> None:
    Run(lite, archive)
    os.utime(archive / "a" / "0.dcm", ns=(1, 1))
    run = Run(lite, archive)
    assert (run.read, run.decoded) == (["a/0.dcm"], [])
    assert Run(lite, archive).read == []


def test_what_is_gone_stays_until_it_is_pruned(catalog: SqlCatalog, archive: Path) -> None:
    Run(catalog, archive)
    shutil.rmtree(archive / "a")
    assert Run(catalog, archive).gone.removed == 0
    assert len(shown(catalog)) == 6
    assert Run(catalog, archive, prune=True).gone.removed == 3
    assert shown(catalog).keys() == {"1.1", "1.3", "1.5"}


def test_an_archive_that_is_suddenly_empty_is_not_pruned(lite: SqlCatalog, archive: Path) -> None:
    Run(lite, archive)
    shutil.rmtree(archive)
    archive.mkdir()
    with pytest.raises(MedlensError, match=r"has no files, but the store has 6 of it; nothing was pruned") as refused:
        Run(lite, archive, prune=True)
    assert "mounted" in str(refused.value.hint)
    assert len(shown(lite)) == 6


def test_what_can_not_be_looked_at_is_not_pruned(lite: SqlCatalog, archive: Path, tmp_path: Path) -> None:
    Run(lite, archive)
    (archive / "a").rename(tmp_path / "elsewhere")
    (archive / "a").symlink_to(tmp_path / "elsewhere")  # a link to a folder is reported, not followed
    (archive / "b" / "1.dcm").unlink()
    (archive / "b" / "1.dcm").symlink_to("nowhere")
    (archive / "b" / "3.dcm").unlink()
    run = Run(lite, archive, prune=True)
    assert {r.reason for r in run.rejected} == {"linked-folder", "dangling-link"}
    assert run.gone.removed == 1
    assert shown(lite).keys() == {"1.0", "1.2", "1.4", "1.1", "1.5"}


def test_shards_are_disjoint_and_together_everything(lite: SqlCatalog, archive: Path) -> None:
    for n in range(40):
        write(archive / "more" / f"{n}.dcm", f"3.{n}", "z")
    parts = [Run(lite, archive, shard=Shard.parse(f"{n}/3")).read for n in (1, 2, 3)]
    assert all(parts)
    assert sorted(path for part in parts for path in part) == sorted(stat.path for stat, _ in iter_files(archive))
    shutil.rmtree(archive / "more")
    gone = [Run(lite, archive, shard=Shard(n, 3), prune=True).gone.removed for n in (1, 2, 3)]
    assert sum(gone) == 40
    assert max(gone) < 40


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/", "a/b", "-1/2", "1/0", ""])
def test_a_shard_that_makes_no_sense(text: str) -> None:
    with pytest.raises(ValueError, match="expected I/N"):
        Shard.parse(text)


def test_files_are_counted_without_looking_at_them(archive: Path, tmp_path: Path) -> None:
    (archive / ".hidden").write_text("x")
    (archive / "store").mkdir()
    (archive / "store" / "catalog.sqlite").write_text("x")
    assert count_files(archive, skip=[archive / "store"]) == 6
    assert count_files(archive / "a" / "0.dcm") == 1


# -- claims


def stats(count: int) -> list[FileStat]:
    return [FileStat(f"{n:03d}", 1, n) for n in range(count)]


def test_a_file_is_claimed_by_one_worker(catalog: SqlCatalog) -> None:
    archive = catalog.files.archive_id("/a")
    mine, theirs = catalog.claims.take_lease(Process.this(), LEASE_S), catalog.claims.take_lease(ELSEWHERE, LEASE_S)
    wanted = stats(4)
    assert list(catalog.claims.claim(archive, mine, wanted[:3]).granted) == wanted[:3]
    answer = catalog.claims.claim(archive, theirs, wanted)
    assert (list(answer.granted), answer.busy) == (wanted[3:], wanted[:3])
    assert list(catalog.claims.claim(archive, mine, wanted[:3]).granted) == wanted[:3], "a claim may be made again"
    catalog.files.commit(archive, [], [(wanted[0], Rejection("000", "pixel-decode", "x"))])
    answer = catalog.claims.claim(archive, theirs, wanted)
    assert answer.current[wanted[0]].reason == "pixel-decode"
    assert answer.busy == wanted[1:3]
    catalog.claims.end_lease(mine)
    assert list(catalog.claims.claim(archive, theirs, wanted).granted) == wanted[1:]


def test_the_dead_are_taken_over(catalog: SqlCatalog) -> None:
    archive, wanted = catalog.files.archive_id("/a"), stats(3)
    here = Process.this()
    child = os.fork()
    if child == 0:
        os._exit(0)
    ended = Process(here.place, child, "not yet told")
    dead = catalog.claims.take_lease(ended, LEASE_S)
    catalog.claims.claim(archive, dead, wanted)  # a zombie as long as it was not waited for: dead all the same
    me = catalog.claims.take_lease(here, LEASE_S)
    assert list(catalog.claims.claim(archive, me, wanted).granted) == wanted
    os.waitpid(child, 0)
    assert ended.is_dead()
    assert not here.is_dead()
    assert not ELSEWHERE.is_dead(), "another machine's processes can't be told"
    assert Process(here.place, here.pid, "an earlier process of this number").is_dead()


def test_a_lease_runs_out_unless_it_is_renewed(catalog: SqlCatalog) -> None:
    archive, wanted = catalog.files.archive_id("/a"), stats(2)
    silent, alive = catalog.claims.take_lease(ELSEWHERE, -1.0), catalog.claims.take_lease(ELSEWHERE, LEASE_S)
    catalog.claims.renew(silent, ELSEWHERE, LEASE_S)
    assert catalog.claims.claim(archive, silent, wanted).granted.keys() == set(wanted)
    assert catalog.claims.claim(archive, alive, wanted).busy == wanted
    catalog.claims.renew(silent, ELSEWHERE, -1.0)
    assert catalog.claims.claim(archive, alive, wanted).granted.keys() == set(wanted)
    assert catalog.claims.claim(archive, silent, wanted).busy == wanted, "it comes back alive, but without its claims"
    assert silent not in catalog.claims.expired_leases()


def test_a_run_waits_for_what_others_have_and_takes_over_what_they_drop(catalog: SqlCatalog, archive: Path) -> None:
    number = catalog.files.archive_id(archive)
    other = catalog.claims.take_lease(ELSEWHERE, 3.0)
    held = [stat for stat, _ in iter_files(archive)][:3]
    catalog.claims.claim(number, other, held)
    catalog.files.commit(
        number, [as_indexed(held[0], archive / held[0].path)]
    )  # it ends one of three, then falls silent
    run = Run(catalog, archive)
    assert held[0].path not in run.read
    assert sorted(run.read) == sorted(stat.path for stat, _ in iter_files(archive) if stat != held[0])
    assert run.unchanged == 1
    assert len(shown(catalog)) == 6


def test_a_worker_renews_its_lease_by_itself(lite: SqlCatalog) -> None:
    archive = lite.files.archive_id("/a")
    other = lite.claims.take_lease(ELSEWHERE, LEASE_S)
    with Lease(lite, lease_s=0.3) as worker:
        lite.claims.claim(archive, worker.id, stats(1))
        worker._ended.wait(1.0)
        assert lite.claims.claim(archive, other, stats(1)).busy == stats(1)
    assert lite.claims.claim(archive, other, stats(1)).granted.keys() == set(stats(1))


def test_a_copy_of_what_has_gone_meanwhile_is_read_again(lite: SqlCatalog, archive: Path) -> None:
    number = lite.files.archive_id(archive)
    stat = FileStat("a/9.dcm", 1, 1)
    assert lite.files.commit(number, [], [], [(stat, "a hash that nobody has")]).stale == (stat,)


def test_more_files_than_one_claim_takes(lite: SqlCatalog, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    for n in range(2 * FILES_PER_CLAIM + 3):
        write(folder / f"{n}.dcm", f"5.{n}", "q")
    assert len(Run(lite, folder).read) == 2 * FILES_PER_CLAIM + 3
    assert Run(lite, folder).read == []


def test_tallies_add_up() -> None:
    whole, part = Tally(indexed=2, frames=5), Tally(indexed=1, unchanged=3, moved=1)
    part.reject(Rejection("a", "not-dicom", ""))
    part.warnings["odd"] += 2
    for _ in range(2):
        whole.add(part)
    assert (whole.indexed, whole.unchanged, whole.moved, whole.frames) == (4, 6, 2, 5)
    assert (whole.reasons, whole.warnings) == ({"not-dicom": 2}, {"odd": 4})
    assert whole.files == 4 + 6 + 2, "moved are instances, rejected are files"
    assert (part.files, part.rejected) == (5, [Rejection("a", "not-dicom", "")])
