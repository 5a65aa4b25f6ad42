"""What a worker does with one mutant: makes it, has medlens read it as the program would, and says what came of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import mutation
import numpy as np
from catalog_factory import DIM, vectors

from indexer.guard.pool import GuardedPool
from indexer.reading.files import FileToRead, PictureRequest, ReadSettings, read_file, read_picture, set_settings
from indexer.records import FileStat
from indexer.sources.opening import locate
from indexer.store.place import CATALOG_FILE
from indexer.store.store import Store
from indexer.tasks import vector_files
from indexer.tasks.calibrating import stored_calibration
from indexer.tasks.exchange import export_frames, import_frames
from indexer.tasks.facts import store_facts
from indexer.tasks.selecting import select
from indexer.tasks.showing import show
from indexer.tasks.verifying import verify_store
from retrieval.encoders.known_models import find_model
from retrieval.encoders.preprocess import Preprocess
from retrieval.errors import EncoderError, MedlensError, UnknownFilterKeyword, WeightsNotFound
from retrieval.evaluation.pairs import read_pairs
from retrieval.neutral import neutral_values
from retrieval.search.query import Query, Ranker
from retrieval.search.refs import parse_ref
from retrieval.types import RenderProfile, SearchFilter
from retrieval.zeroshot.ground_truth import read_truth
from retrieval.zeroshot.labels import load_labels, single_phrasings

LONGEST = 1500  # characters of a message


class Mutant(NamedTuple):
    """What is broken, from which good file (of a store: the folder), and how."""

    kind: str
    path: str
    seed: int


@dataclass(frozen=True)
class Verdict:
    """`how` is a reason for what was refused, and what is wrong for what has failed."""

    outcome: str
    how: str = ""


# -- in the program's own guard


def prepare_pictures() -> None:
    set_settings(ReadSettings(bytes(32), Preprocess((32, 32), (0.5,) * 3, (0.5,) * 3), RenderProfile()))


def read_dicom(mutant: Mutant) -> str:
    """As an indexing run reads a file. What kills this worker, the pool reports."""
    with _made(mutant, ".dcm") as path:
        status = path.stat()
        done = read_file(FileToRead(FileStat(path.name, status.st_size, status.st_mtime_ns), path))
        return str(len(getattr(done, "pictures", ())))


def read_ordinary(mutant: Mutant) -> str:
    with _made(mutant, Path(mutant.path).suffix) as path:
        return str(read_picture(PictureRequest(path, longest=64)).shape)


@contextmanager
def _made(mutant: Mutant, suffix: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"mutant{suffix}")
        path.write_bytes(content_of(mutant))
        yield path
        if path.read_bytes() != content_of(mutant) or len(os.listdir(folder)) != 1:  # noqa: PTH208
            raise ValueError("the file or its folder was changed")


def content_of(mutant: Mutant) -> bytes:
    """The bytes of a mutant that is one file."""
    data, seed, kind = _good(mutant.path), mutant.seed, mutant.kind
    if kind == "deflated":
        return mutation.mutate_deflated(data, seed)
    if kind in TEXTS:
        return mutation.mutate_text(data, seed)
    if kind == "model, weights":
        return mutation.mutate_safetensors(data, seed)
    if kind == "npz":
        return mutation.mutate_npz(data, _members(mutant.path), seed)
    if kind == "parquet":
        return mutation.mutate_parquet(data, _pages(mutant.path), seed)
    return mutation.mutate(data, seed)


TEXTS = ("pairs, JSON lines", "truth, CSV", "label set", "model, configuration", "model, tokenizer")


@cache
def _good(path: str) -> bytes:
    return Path(path).read_bytes()


@cache
def _members(path: str) -> dict[str, bytes]:
    from trials.seeds import npz_members

    return npz_members(Path(path))


@cache
def _pages(path: str) -> list[int]:
    import pyarrow.parquet as pq

    described = pq.ParquetFile(path).metadata
    groups = [described.row_group(n) for n in range(described.num_row_groups)]
    columns = [group.column(n) for group in groups for n in range(group.num_columns)]
    return [p for c in columns for p in (c.data_page_offset, c.dictionary_page_offset) if p]


# -- what the program reads in its own process: this worker stands for it


def judge(mutant: Mutant) -> Verdict:
    """Never raises. Whatever kills or stalls this worker would have killed or stalled medlens."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "beside").write_text("of somebody else")
        try:
            _READERS[mutant.kind](mutant, folder)
        except MedlensError as exc:
            verdict = _worded(exc, folder)
        except MemoryError:
            verdict = Verdict("failed", "MemoryError")
        except BaseException as exc:  # noqa: BLE001 - a panic of a Rust library is no Exception
            place = traceback.extract_tb(exc.__traceback__)[-1]
            verdict = Verdict("failed", f"{type(exc).__name__} at {Path(place.filename).name}:{place.lineno}: {exc}")
        else:
            verdict = Verdict("read")
        if (folder / "beside").read_text() != "of somebody else" or (folder.parent / "evil").exists():
            return Verdict("failed", "a file of somebody else was changed")
    return verdict


def _worded(exc: MedlensError, folder: Path) -> Verdict:
    text = str(exc)
    if "\n" in text or not text or len(text) > LONGEST:
        return Verdict("failed", f"a message of {len(text)} characters: {text[:200]!r}")
    if str(folder) in text:
        return Verdict("failed", f"a message with a path: {text[:200]!r}")
    return Verdict("refused", type(exc).__name__)


def _one_file(read: Callable[[Path], object]) -> Callable[[Mutant, Path], None]:
    def reader(mutant: Mutant, folder: Path) -> None:
        path = folder / Path(mutant.path).name
        content = content_of(mutant)
        path.write_bytes(content)
        try:
            read(path)
        finally:
            if path.read_bytes() != content or len(list(folder.iterdir())) != 2:
                raise ValueError("the file or its folder was changed")

    return reader


def _labels(path: Path) -> None:
    labels = load_labels(str(path))
    assert labels.fingerprint and single_phrasings(labels)


def _truth(path: Path) -> None:
    read_truth(path, load_labels("effusion,nodule", independent=True))


def _model(mutant: Mutant, folder: Path) -> None:
    from retrieval.encoders.clip import ClipEncoder
    from retrieval.encoders.numpy_text.encoder import open_encoder

    good = Path(mutant.path)
    place = folder / "model"
    shutil.copytree(good.parent, place, copy_function=os.link)
    (place / good.name).unlink()
    (place / good.name).write_bytes(content_of(mutant))
    (place / "evil.py").write_text("import pathlib; (pathlib.Path(__file__).parents[2] / 'evil').touch()")
    refusal: MedlensError | None = None
    for load in (open_encoder, ClipEncoder.load):
        try:
            encoder: Any = load(str(place), "cpu")
            encoder.encode_text(["a chest radiograph", "e\u0301"])
            if load is ClipEncoder.load:
                encoder.encode_images([np.zeros((40, 30), np.uint8)])
        except MedlensError as exc:
            refusal = exc
    if refusal is not None:
        raise refusal


@cache
def _own_store(place: str) -> tuple[Store, str]:
    """A copy of the store for this worker, and what is in it."""
    copy = Path(tempfile.mkdtemp(prefix="medlens-trial-"), "store")
    shutil.copytree(place, copy)
    store = Store.open(copy)
    return store, _frames(store)


def _frames(store: Store) -> str:
    digest = hashlib.sha256()
    for ids, values in store.catalog.vectors.iter_vectors("frame"):
        digest.update(ids.tobytes() + values.tobytes())
    return digest.hexdigest()


def _import(mutant: Mutant, folder: Path) -> None:
    store, before = _own_store(str(Path(mutant.path).parent / "store"))
    path = folder / Path(mutant.path).name
    path.write_bytes(content_of(mutant))
    _keep_parquets_worker()
    counts = store.catalog.counts()
    try:
        import_frames(store, path)
    except MedlensError:
        if _frames(store) != before:
            raise ValueError("a refused import changed the store") from None
        raise
    if store.catalog.counts() != counts:
        raise ValueError("an import changed how many frames there are")
    if _frames(store) != before:  # other vectors of unit norm: as asked
        _own_store.cache_clear()


class _Lasting:
    """In place of a pool for each file, one for all; with the program's own limits, but for a shorter deadline."""

    pools: ClassVar[dict[int, GuardedPool[Any, Any]]] = {}

    def __init__(self, function: Callable[..., Any], *, workers: int, memory_limit: int, deadline_s: float) -> None:
        if memory_limit not in self.pools:
            self.pools[memory_limit] = GuardedPool(function, workers=1, memory_limit=memory_limit, deadline_s=10)
            self.pools[memory_limit].__enter__()
        self.pool = self.pools[memory_limit]

    def __enter__(self) -> GuardedPool[Any, Any]:
        return self.pool

    def __exit__(self, *_: object) -> None:
        return None


def _keep_parquets_worker() -> None:
    vector_files.GuardedPool = _Lasting  # type: ignore[assignment, misc]


def _store(mutant: Mutant, folder: Path) -> None:
    place = folder / "store"
    shutil.copytree(mutant.path, place)
    if mutant.kind == "store, catalog":
        mutation.mutate_catalog(place / CATALOG_FILE, mutant.seed)
    else:
        files = sorted(path for path in place.rglob("*") if path.is_file() and path.name != CATALOG_FILE)
        path = files[mutant.seed % len(files)]
        path.write_bytes(mutation.mutate(path.read_bytes(), mutant.seed))
    refusals: list[MedlensError] = []
    for step in _STEPS:  # each is a command of its own
        with _refusing(refusals), Store.open(place) as store:
            step(store)
    if mutant.kind == "store, derived files" and not refusals:
        with Store.open(place) as store:
            if answers(store) != _expected(mutant.path):
                raise ValueError("another answer, in silence")
    if refusals:
        raise refusals[0]


@contextmanager
def _refusing(refusals: list[MedlensError]) -> Iterator[None]:
    try:
        yield
    except MedlensError as exc:
        refusals.append(exc)


QUERY = vectors("a query", 1, DIM)


def answers(store: Store) -> Any:
    words = [store.reports_index().scores(word).tolist() for word in ("nodule", "effusion", "left")]
    return [repr(store.frames_index().search(QUERY, 7)), repr(store.sentences_index().search(QUERY, 2)), words]


@cache
def _expected(place: str) -> Any:
    copy = Path(tempfile.mkdtemp(prefix="medlens-trial-"), "store")
    shutil.copytree(place, copy)
    with Store.open(copy) as store:
        return answers(store)


class _Words:
    """An encoder of the store's size, for queries in words."""

    name, embed_dim = "demo", DIM

    def encode_text(self, texts: Sequence[str]) -> Any:
        return np.concatenate([vectors(text, 1, DIM) for text in texts])

    def encode_images(self, images: Sequence[Any]) -> Any:
        raise EncoderError("this one has no image tower")


def _searched(store: Store) -> None:
    found = store.search(Query("a nodule on the left, no effusion", k=5, ranker=Ranker.HYBRID), encoder=_Words())
    rows = [neutral_values(hit.attributes) for hit in found.hits]
    assert json.dumps(rows, default=str)
    for hit in found.hits[:2]:
        assert show(store, hit.key).key == hit.key
        assert locate(hit.attributes["archive_root"], hit.attributes["file_path"])


def _looked_for(store: Store) -> None:
    with suppress(WeightsNotFound):  # it is on no machine
        find_model(store.model)


def _exported(store: Store) -> None:
    with tempfile.TemporaryDirectory() as folder:
        export_frames(store, Path(folder, "out.npz"))


def _selected(store: Store) -> None:
    scored = SearchFilter(where="label.effusion > 0.5 or slice_thickness > 1")
    for where in (SearchFilter({"modality": ("CT",)}), scored):
        for level in ("study", "instance"):
            with suppress(UnknownFilterKeyword):  # the label is gone
                for row in select(store, where, level=level):
                    assert json.dumps(neutral_values(row), default=str)


_STEPS: tuple[Callable[[Store], object], ...] = (
    store_facts,
    lambda store: store.pseudonym_key,
    answers,
    _searched,
    _selected,
    _exported,
    lambda store: store.place.render_profile,
    _looked_for,
    lambda store: stored_calibration(store, load_labels("effusion,nodule", independent=True)),
    lambda store: store.describe(parse_ref("1.2.3"), encoder=_Words()),
    lambda store: list(store.catalog.files.known(1)),
    verify_store,
)

_READERS: dict[str, Callable[[Mutant, Path], None]] = {
    "pairs, JSON lines": _one_file(read_pairs),
    "truth, CSV": _one_file(_truth),
    "label set": _one_file(_labels),
    "model, configuration": _model,
    "model, tokenizer": _model,
    "model, weights": _model,
    "npz": _import,
    "parquet": _import,
    "store, catalog": _store,
    "store, derived files": _store,
}
OWN_PROCESS = tuple(_READERS)


def prepare_own() -> None:
    """Imported before memory is limited: what the libraries take is not the mutant's."""
    import pyarrow.parquet
    import torch

    torch.set_num_threads(1)
    assert pyarrow.parquet
