"""Broken files by the thousand, of every kind that medlens reads. What is read in guarded workers is read in them
here, as an indexing run does; what the program reads in its own process is read in a worker that stands for it, whose
death or stall is a failure."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_encoder import FakeEncoder
from trials import judging, seeds
from trials.judging import Mutant, Verdict
from trials.registry import Tally, peak_memory, trial

from indexer.guard.pool import GuardedPool
from indexer.run.options import IndexOptions
from indexer.run.pipeline import index_archive
from indexer.store.store import Store
from indexer.tasks.verifying import verify_store
from retrieval.errors import DecodeGuardError, DicomError

MEMORY = 2 << 30  # bytes that a worker may take for a mutant
MOST_GROWTH = 512  # MiB by which this process may grow
BATCH = 100  # mutants of one indexing run

# Of 10,000 in all.
SHARES = {
    "native": 600,
    "deflated": 400,
    "RLE": 500,
    "JPEG": 700,
    "JPEG, lossless": 500,
    "JPEG-LS": 500,
    "JPEG 2000": 700,
    "HTJ2K": 500,
    "JPEG XL": 600,
    "deflated frames": 250,
    "uncompressed frames": 250,
    "report, SR": 700,
    "picture, not DICOM": 300,
    "pairs, JSON lines": 400,
    "truth, CSV": 400,
    "label set": 500,
    "model, configuration": 300,
    "model, tokenizer": 250,
    "model, weights": 250,
    "npz": 400,
    "parquet": 300,
    "store, catalog": 250,
    "store, derived files": 150,
    "archive, indexed": 300,
}


@trial(attempts=10_000, share=0.03)
def mutants(attempts: int, seed: int, folder: Path, tally: Tally) -> None:
    """Seeded mutants of all codecs, reports, rows, labels, models, vectors and stores are read or refused."""
    with _in_memory(), tempfile.TemporaryDirectory(prefix="medlens-mutants-") as scratch:
        _mutants(attempts, seed, Path(scratch), tally)


def _mutants(attempts: int, seed: int, folder: Path, tally: Tally) -> None:
    before = peak_memory(resource.RUSAGE_SELF)
    good = _seeds(folder)
    made = _drawn(good, attempts, seed)
    guarded = [each for each in made if each.kind not in judging.OWN_PROCESS and each.kind != "archive, indexed"]
    for reader, some in (
        (judging.read_ordinary, [each for each in guarded if each.kind == "picture, not DICOM"]),
        (judging.read_dicom, [each for each in guarded if each.kind != "picture, not DICOM"]),
    ):
        with GuardedPool(reader, workers=2, memory_limit=MEMORY, initializer=judging.prepare_pictures) as pool:
            for expected, (mutant, outcome) in zip(some, pool.map(some), strict=True):
                _count(tally, mutant, Verdict("failed", "in another's place") if mutant != expected else _of(outcome))
    own = [each for each in made if each.kind in judging.OWN_PROCESS]
    with GuardedPool(
        judging.judge, workers=2, memory_limit=MEMORY, deadline_s=90, initializer=judging.prepare_own
    ) as pool:
        for mutant, outcome in pool.map(own):
            _count(tally, mutant, outcome if isinstance(outcome, Verdict) else Verdict("failed", str(outcome)))
    _index(tally, [each for each in made if each.kind == "archive, indexed"], good, folder)
    tally.require(tally.outcomes["read"] > 0.1 * attempts, f"nearly all mutants are dead: {tally.outcomes}")
    tally.require(tally.outcomes["refused"] > 0.25 * attempts, f"nearly all mutants are well: {tally.outcomes}")
    grown = peak_memory(resource.RUSAGE_SELF) - before
    tally.require(grown < MOST_GROWTH, f"this process grew by {grown} MiB")
    tally.require(_untouched(good), "a good file was changed")


@contextmanager
def _in_memory() -> Iterator[None]:
    """Temporary files of this process and its workers in memory, where the system has a place for them: ten thousand
    small stores and files would have a disk at work for an hour, which is not what is tried."""
    place = "/dev/shm"
    with pytest.MonkeyPatch.context() as patched:
        if os.access(place, os.W_OK):
            patched.setenv("TMPDIR", place)
            patched.setattr(tempfile, "tempdir", None)
        yield


@dataclass(frozen=True)
class _Seeds:
    files: dict[str, list[Path]]
    contents: dict[Path, bytes]


def _seeds(folder: Path) -> _Seeds:
    place = folder / "seeds"
    place.mkdir()
    store = seeds.store(place)
    pictures, reports = seeds.pictures(place), seeds.reports(place)
    found = {
        **pictures,
        "report, SR": reports,
        "picture, not DICOM": seeds.ordinary(place),
        **seeds.rows(place),
        **seeds.models(place),
        **seeds.exports(place, store),
        "store, catalog": [store],
        "store, derived files": [store],
        "archive, indexed": [path for paths in pictures.values() for path in paths] + reports,
    }
    files = {path for paths in found.values() for path in paths if path.is_file()}
    return _Seeds(found, {path: path.read_bytes() for path in files})


def _untouched(good: _Seeds) -> bool:
    return all(path.read_bytes() == content for path, content in good.contents.items())


def _drawn(good: _Seeds, attempts: int, seed: int) -> list[Mutant]:
    """`attempts` mutants, the same ones every time; of each kind its share."""
    total, drawn, taken = sum(SHARES.values()), [], 0.0
    for kind, share in SHARES.items():
        begun = round(taken)
        taken += share * attempts / total
        paths = good.files[kind]
        drawn += [Mutant(kind, str(paths[n % len(paths)]), seed + n) for n in range(round(taken) - begun)]
    return drawn


def _of(outcome: object) -> Verdict:
    if isinstance(outcome, DecodeGuardError) and "stopped by the guard" in str(outcome):
        return Verdict("contained", str(outcome).partition(": ")[2])
    if isinstance(outcome, DicomError):
        unexpected = "unexpected" in str(outcome)  # only the outermost guard has caught it
        return Verdict("failed", str(outcome)) if unexpected else Verdict("refused", outcome.code)
    return Verdict("read")


def _count(tally: Tally, mutant: Mutant, verdict: Verdict) -> None:
    if verdict.outcome == "failed":
        kept = _kept(mutant)
        name = Path(mutant.path).name
        tally.failed(f"{mutant.kind}, {name}, seed {mutant.seed}: {verdict.how} ({kept})", kind=mutant.kind)
    elif verdict.outcome == "contained":
        tally.contained(1, verdict.how, kind=mutant.kind)
    elif verdict.outcome == "refused":
        tally.refused(verdict.how, kind=mutant.kind)
    elif verdict.outcome == "quarantined":
        tally.quarantined(verdict.how, kind=mutant.kind)
    else:
        tally.read(kind=mutant.kind)


def _kept(mutant: Mutant) -> str:
    """Where a mutant is kept to be looked at; of a store its seed says all."""
    if mutant.kind.startswith("store"):
        return "made again by its seed"
    folder = Path("/tmp/medlens-mutants")
    folder.mkdir(exist_ok=True)
    path = folder / f"{mutant.kind.replace(', ', '-').replace(' ', '-')}-{mutant.seed}-{Path(mutant.path).name}"
    path.write_bytes(judging.content_of(mutant))
    return str(path)


# -- an archive of mutants and good files, indexed for real


def _index(tally: Tally, some: list[Mutant], good: _Seeds, folder: Path) -> None:
    """Each mutant is in the store or set aside with a reason, the good files are as they are without mutants."""
    kept = good.files["JPEG XL"] + good.files["RLE"][:3] + good.files["report, SR"][:2]
    expected = _indexed(folder / "alone", [], kept)[1]
    for start in range(0, len(some), BATCH):
        batch = some[start : start + BATCH]
        statuses, found = _indexed(folder / f"run{start}", batch, kept)
        lost = sum(found.get(uid) != rows for uid, rows in expected.items())
        tally.require(lost == 0, f"{lost} good files are not in the store as they were, with mutants from {start} on")
        for n, mutant in enumerate(batch):
            status = statuses.get(f"mutants/{n:03}")
            if status is None:
                _count(tally, mutant, Verdict("failed", "the run has lost it"))
            elif status == "indexed":
                _count(tally, mutant, Verdict("read"))
            else:
                _count(tally, mutant, Verdict("quarantined", status))


def _indexed(place: Path, batch: list[Mutant], kept: list[Path]) -> tuple[dict[str, str], dict[str, bytes]]:
    """What the store says of each file, and the vectors of each good file's instance."""
    archive = place / "archive"
    (archive / "mutants").mkdir(parents=True)
    (archive / "good").mkdir()
    for path in kept:
        shutil.copy(path, archive / "good")
    for n, mutant in enumerate(batch):
        (archive / "mutants" / f"{n:03}").write_bytes(judging.content_of(mutant))
    encoder = FakeEncoder()
    with Store.create(place / "store", encoder.spec.to_json()) as store:
        index_archive([archive], store, encoder, IndexOptions(workers=2))
        again = index_archive([archive], store, encoder, IndexOptions(workers=2))
        wrong = [f"{check.name}: {check.detail}" for check in verify_store(store) if not check.sound]
        if wrong or again.indexed or again.updated:
            raise AssertionError(f"a second run changed {again.indexed + again.updated}; not sound: {wrong}")
        (number,) = store.catalog.files.archive_roots()
        known = dict(store.catalog.files.known(number))
        statuses = {path: "indexed" if file.status == "indexed" else file.reason for path, file in known.items()}
        return statuses, dict(_vectors(store))


def _vectors(store: Store) -> Iterator[tuple[str, bytes]]:
    for ids, vectors in store.catalog.vectors.iter_vectors("frame"):
        keys = store.catalog.frames.get(ids.tolist())
        for i, vector in zip(ids.tolist(), vectors, strict=True):
            yield repr(keys[i][0]), vector.tobytes()
    for _, vectors in store.catalog.vectors.iter_vectors("sentence"):
        for vector in vectors:
            yield f"sentence {vector.tobytes().hex()}", b""
