"""What is killed: eight jobs on a small store, each with what it finds, how it is run, and what can be seen of a store.

All of it runs in children (see `killing`), so that a job may replace what it wants for itself.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crash_trial
import numpy as np
import yaml
from fake_encoder import FakeEncoder

from indexer.catalog.processes import Process
from indexer.run import batches, pipeline, reembedding
from indexer.run.options import IndexOptions
from indexer.run.pipeline import index_archive
from indexer.run.reembedding import change_model
from indexer.store import place
from indexer.store.store import Store
from indexer.tasks.backing_up import backup
from indexer.tasks.classifying import StoreLabeller
from indexer.tasks.erasing import erase, plan_erasure
from indexer.tasks.exchange import EXPORTS, export_frames, import_frames
from indexer.tasks.optimizing import optimize_store
from indexer.tasks.verifying import verify_store
from indexer.vector_sets import VECTOR_SETS
from retrieval.errors import DicomError, StoreCorrupt, StoreNotFound
from retrieval.search.query import Query, Ranker
from retrieval.types import Embeddings, SearchFilter
from retrieval.zeroshot.classify import ZeroShotClassifier
from retrieval.zeroshot.labeller import Labeller
from retrieval.zeroshot.labels import Label, LabelSet

OLD_STORE = Path(__file__).parents[1] / "reference" / "store-0.1.0"
_FILES = 24
_PASSING = {"workers", "claims"}  # who is at work
_OLD_KEY = "catalog.sqlite.schema-0005.backup"


class Encoder(FakeEncoder):
    """Four pictures a batch, each encoded by itself, so that the batch makes no difference."""

    logit_scale = 10.0
    batch_size = 4
    device = "cpu"

    def __init__(self, pace_s: float = 0.0) -> None:
        super().__init__()
        self._pace_s = pace_s

    def unread(self, texts: Sequence[str]) -> list[str]:
        """Every text is read to its end."""
        return [""] * len(texts)

    def encode_images(self, images: Sequence[Any]) -> Embeddings:
        time.sleep(self._pace_s * len(images))
        alone = [super(Encoder, self).encode_images([image]) for image in images]
        return np.concatenate([np.zeros((0, self.embed_dim), np.float32), *alone])


class NextEncoder(Encoder):
    """The model that a store is changed to: other pictures and other texts are near to each other."""

    def __init__(self) -> None:
        super().__init__()
        FakeEncoder.__init__(self, "next", seed=3)

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        return super().encode_text([f"{text}, next" for text in texts])


class ReadHere:
    """In place of the guarded workers, which take a second to start: reads files in this process."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        workers: int,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        if initializer is not None:
            initializer(*initargs)
        self._function = function

    def __enter__(self) -> ReadHere:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        for item in items:
            try:
                yield item, self._function(item)
            except DicomError as exc:
                yield item, exc


# -- what the jobs find


def make_inputs(inputs: Path) -> None:
    """Archives, stores and a file of vectors, from which every attempt's folder is copied."""
    (inputs / "labels.yaml").write_text(yaml.safe_dump(_label_set("There is").model_dump(mode="json")))
    archive = crash_trial.make_archive(inputs / "archive", _FILES)
    for n in range(3):
        crash_trial.make_report(archive / "1", n)
    changing = crash_trial.make_archive(inputs / "changing", 12, rivals=False)
    _index(archive, inputs / "base")
    _index(changing, inputs / "changing-store")
    _change(changing)
    with Store.open(inputs / "base") as store:
        _labelled(store, "It shows")
        export_frames(store, inputs / "vectors.npz")
        backup(store, inputs / "store.backup")
        erase(store, plan_erasure(store, patients=[_patients(store)[-1]]))
        store.search(Query("effusion", ranker=Ranker.TEXT), encoder=Encoder())
    with np.load(inputs / "vectors.npz") as file:
        arrays = dict(file)
    with Store.open(inputs / "base") as store:
        there = {key for key, _ in store.catalog.frames.get(store.index("frame").ids.tolist()).values()}
    pairs = zip(arrays["sop_instance_uid"].tolist(), arrays["frame_number"].tolist(), strict=True)
    keep = np.array([any((k.sop_instance_uid, k.frame_number) == pair for k in there) for pair in pairs])
    arrays = {name: array[keep] if array.ndim else array for name, array in arrays.items()}
    arrays["vectors"] = np.roll(arrays["vectors"], 1, axis=0)
    np.savez(inputs / "vectors.npz", **arrays)
    assert EXPORTS["npz"].recognises(inputs / "vectors.npz")


def _change(archive: Path) -> None:
    """Two files go, one moves, one has other content, and there are new ones."""
    files = sorted(archive.rglob("*.dcm"))
    files[0].unlink()
    files[1].unlink()
    files[2].rename(archive / "moved.dcm")
    data = bytearray(files[3].read_bytes())
    data[-40:] = bytes(40)
    files[3].write_bytes(data)
    crash_trial.make_report(archive, 7)


def _patients(store: Store) -> list[str]:
    rows = store.catalog.instances.select(SearchFilter(), "instance")
    found: dict[str, str] = {}
    for row in rows:
        found.setdefault(str(row["study_instance_uid"]), str(row["patient_pseudonym"]))
    return list(dict.fromkeys(found[study] for study in sorted(found)))


def with_empty(inputs: Path, folder: Path) -> None:
    Store.create(folder / "store", Encoder().spec.to_json()).close()


def with_base(inputs: Path, folder: Path) -> None:
    shutil.copytree(inputs / "base", folder / "store")


def with_changing(inputs: Path, folder: Path) -> None:
    shutil.copytree(inputs / "changing-store", folder / "store")


def _unlabelled(inputs: Path, folder: Path) -> None:
    with_base(inputs, folder)
    _sql(folder, "DELETE FROM label_scores", "DELETE FROM labels")


def _with_backup(inputs: Path, folder: Path) -> None:
    with_base(inputs, folder)
    shutil.copy(folder / "store" / "catalog.sqlite", folder / "store" / _OLD_KEY)


def _compressed(inputs: Path, folder: Path) -> None:
    with_base(inputs, folder)
    with Store.open(folder / "store") as store:
        optimize_store(store, kind="ivf-rabitq")


def _sql(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "store" / "catalog.sqlite")) as connection:
        connection.execute(f"PRAGMA foreign_keys = {'OFF' if '9999' in statements[0] else 'ON'}")
        for statement in statements:
            connection.execute(statement)
        connection.commit()


_DAMAGE: dict[str, Callable[[Path], None]] = {
    "a vector of zeros": lambda folder: _sql(folder, "UPDATE frames SET vector = zeroblob(32) WHERE id = 3"),
    "a text for a vector": lambda folder: _sql(folder, "UPDATE frames SET vector = 'text' WHERE id = 4"),
    "a frame of no instance": lambda folder: _sql(
        folder,
        "INSERT INTO frames (instance_id, frame_number, short_key, vector) "
        "SELECT 9999, 1, 'none', vector FROM frames WHERE id = 5",
    ),
    "a file of no instance": lambda folder: _sql(
        folder,
        "INSERT INTO files SELECT 999, archive_id, 'gone.dcm', 1, 1, 'indexed', '', '', 'x', '9.9' FROM files LIMIT 1",
    ),
    "an image of no frame": lambda folder: _sql(folder, "DELETE FROM frames WHERE instance_id = 4"),
    "a flipped bit of an index": lambda folder: _flip(folder / "store" / "vectors" / "frames.faiss"),
    "a cut index of reports": lambda folder: (folder / "store" / "vectors" / "reports" / "mark.json").write_text("{"),
    "what a killed process has left": lambda folder: _leave(folder / "store"),
}


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def _leave(store: Path) -> None:
    (store / "vectors" / ".frames.faiss.0123.tmp").write_bytes(b"half")
    dead = Process.this()
    with Store.open(store) as opened:
        opened.catalog.claims.take_lease(Process(dead.place, 2**22 + 1, "1"))


def damaged(kinds: Iterable[str]) -> Callable[[Path, Path], None]:
    def find(inputs: Path, folder: Path) -> None:
        with_base(inputs, folder)
        for kind in kinds:
            _DAMAGE[kind](folder)

    return find


def with_old(inputs: Path, folder: Path) -> None:
    shutil.copytree(OLD_STORE, folder / "store")
    (folder / "store" / "pseudonym.key").chmod(0o600)  # Git keeps no such modes


# -- the jobs


def _index(archive: Path, store: Path) -> None:
    batches.MOST_FILES = 4
    pipeline.GuardedPool = ReadHere  # type: ignore[assignment,misc]
    place.secrets.token_bytes = lambda count: bytes(range(count or 0))  # so that two stores can be compared
    place.uuid.uuid4 = lambda: uuid.UUID(int=4)
    encoder = Encoder()
    try:
        opened = Store.open(store)
    except StoreNotFound:
        opened = Store.create(store, encoder.spec.to_json())
    with opened:
        index_archive([archive], opened, encoder, IndexOptions(workers=1, prune=True))


def _delete(inputs: Path, folder: Path) -> None:
    with Store.open(folder / "store") as store:
        erase(store, plan_erasure(store, studies=["1.2.4.0"]))


def _label_set(words: str) -> LabelSet:
    names = ("effusion", "nodule", "line")
    labels = [Label(name=name, prompts=(f"{words} {name}",), absent=(f"{words} no {name}",)) for name in names]
    return LabelSet(name="findings", kind="independent", labels=tuple(labels))


def _labelled(store: Store, words: str) -> None:
    encoder = Encoder()
    labeller = Labeller(ZeroShotClassifier(_label_set(words), encoder, encoder.logit_scale), encoder.spec.to_json())
    for _ in StoreLabeller(store, labeller).frames(save=True):
        pass


def _on_store(work: Callable[[Store], object]) -> Callable[[Path, Path], None]:
    def run(inputs: Path, folder: Path) -> None:
        with Store.open(folder / "store") as store:
            work(store)

    return run


def _import(inputs: Path, folder: Path) -> None:
    with Store.open(folder / "store") as store:
        import_frames(store, inputs / "vectors.npz")


def _migrate(inputs: Path, folder: Path) -> None:
    Store.upgrade(folder / "store")


def _reembed(inputs: Path, folder: Path) -> None:
    """Change the model, encoding only what an earlier run has not."""
    reembedding.GuardedPool = ReadHere  # type: ignore[assignment,misc]
    place.uuid.uuid4 = lambda: uuid.UUID(int=5)
    encoder = NextEncoder()
    with Store.open(folder / "store") as store:
        had, changed = store.catalog.model_changes.made(), store.model["name"] == "next"
        report = change_model(store, encoder, workers=1)
        missing = 0 if changed else had.all_frames - had.frames
        if not report.switched or (report.frames, encoder.images_encoded) != (missing, missing):
            raise RuntimeError(f"{missing} frames were missing: {encoder.images_encoded} encoded, {report}")


@dataclass(frozen=True)
class Case:
    """A job on what it finds. `whole`: it is one transaction, so that there is nothing between before and after.
    `answering`: whatever is between, searches answer as before."""

    find: Callable[[Path, Path], None]
    run: Callable[[Path, Path], None]
    whole: bool = True
    answering: bool = False


def _repair(*kinds: str) -> Case:
    return Case(damaged(kinds), _on_store(lambda store: verify_store(store, repair=True)), whole=len(kinds) == 1)


JOBS: Mapping[str, Mapping[str, Case]] = {
    "index": {
        "no store": Case(lambda inputs, folder: None, lambda i, f: _index(i / "archive", f / "store"), whole=False),
        "an empty store": Case(with_empty, lambda i, f: _index(i / "archive", f / "store"), whole=False),
        "a changed archive": Case(
            with_changing,
            lambda i, f: _index(i / "changing", f / "store"),
            whole=False,
        ),
    },
    "delete": {"a study": Case(with_base, _delete), "with a backup beside": Case(_with_backup, _delete)},
    "optimize": {
        "an exact index": Case(with_base, _on_store(lambda store: optimize_store(store, kind="ivf-rabitq"))),
        "a compressed index": Case(_compressed, _on_store(lambda store: optimize_store(store, kind="flat"))),
    },
    "import": {"vectors of all frames": Case(with_base, _import)},
    "label": {
        "another wording": Case(with_base, _on_store(lambda store: _labelled(store, "There is"))),
        "no labels": Case(
            _unlabelled,
            _on_store(lambda store: _labelled(store, "There is")),
        ),
    },
    "repair": {**{kind: _repair(kind) for kind in _DAMAGE}, "all of these": _repair(*_DAMAGE)},
    "reembed": {
        "a store": Case(with_base, _reembed, whole=False, answering=True),
        "a compressed index": Case(_compressed, _reembed, whole=False, answering=True),
    },
    "migrate": {"a store of 0.1.0": Case(with_old, _migrate)},
}


# -- what can be seen of a store


@dataclass(frozen=True)
class Seen:
    """A store as anybody finds it: digests of its tables' rows, what searches answer, and what `verify` finds wrong."""

    tables: Mapping[str, str]
    kinds: tuple[str, ...] = ()
    answers: str = ""
    unsound: tuple[str, ...] = ()

    def differing(self, other: Seen) -> list[str]:
        names = sorted({*self.tables, *other.tables})
        return [name for name in names if self.tables.get(name) != other.tables.get(name)]


def look(folder: Path) -> Seen:
    """At a copy, so that looking changes nothing. No tables where there is no store."""
    if not (folder / "store").exists():
        return Seen({})
    copy = folder.with_name(f"{folder.name}-seen")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder / "store", copy)
    tables = table_digests(copy / "catalog.sqlite")
    with Store.open(copy) as store:
        wrong = tuple(check.name for check in verify_store(store) if not check.sound)
        return Seen(tables, _kinds(store), answers(store), wrong)


def files_of(folder: Path) -> dict[str, int]:
    """All files and folders beneath, by name, with their permissions."""
    found = {path.relative_to(folder).as_posix(): path.stat().st_mode & 0o777 for path in folder.rglob("*")}
    return {name: mode for name, mode in found.items() if not name.endswith(("-wal", "-shm"))}


def _kinds(store: Store) -> tuple[str, ...]:
    from indexer.tasks.optimizing import index_facts

    return tuple(
        f"{kind} {facts['kind']} {'measured' * ('recall_at_10' in facts)}" for kind, facts in index_facts(store).items()
    )


def answers(store: Store) -> str:
    """A digest of what searches find, or why they don't."""
    try:
        return hashlib.sha256(repr(_found(store)).encode()).hexdigest()
    except StoreCorrupt as exc:
        return str(exc)


def _found(store: Store) -> list[Any]:
    """The three nearest of every vector, by what they are; and studies by the words of their reports."""
    found: list[Any] = []
    for kind in VECTOR_SETS:
        ids = store.index(kind).ids
        _, vectors = store.catalog.vectors.vectors_of(ids.tolist(), kind)
        if kind == "frame":
            names = {i: repr(key) for i, (key, _) in store.catalog.frames.get(ids.tolist()).items()}
            names |= {i: "a frame of no instance" for i in ids.tolist() if i not in names}
        else:
            names = {i: row.text for i, row in store.catalog.reports.sentence_rows(ids.tolist()).items()}
        hits = store.index(kind).search(vectors.astype(np.float32), 3) if len(ids) else []
        rows = [[(names[i], round(score, 4)) for i, score in few] for few in hits]
        found.append(sorted(zip((names[i] for i in ids.tolist()), rows, strict=True), key=repr))
    if not store.catalog.counts().reports:
        return found
    words = store.search(Query("effusion", ranker=Ranker.TEXT), encoder=Encoder())
    return [*found, [(repr(hit.key), round(hit.score, 4)) for hit in words.hits]]


def table_digests(catalog: Path) -> dict[str, str]:
    """A digest of each table's rows, by what they say and refer to rather than by their ids."""
    with closing(sqlite3.connect(catalog)) as connection:
        connection.row_factory = sqlite3.Row
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        tables = {name: list(map(dict, connection.execute(f"SELECT * FROM {name}"))) for name in names}
        keys = {name: list(connection.execute(f"PRAGMA foreign_key_list({name})")) for name in names}
    parents = {name: {row["id"]: row for row in rows if "id" in row} for name, rows in tables.items()}

    def told(name: str, row: dict[str, Any]) -> tuple[Any, ...]:
        values = {column: value for column, value in row.items() if column not in ("id", "seq")}
        for key in keys[name]:
            parent = parents[key["table"]].get(row[key["from"]])
            values[key["from"]] = told(key["table"], parent) if parent else "missing"
        return tuple(sorted(values.items()))

    digests = {}
    for name, rows in tables.items():
        if name in _PASSING or name.startswith("sqlite_"):
            continue
        if name == "manifest":
            rows = [_without_times(row) for row in rows]
        digests[name] = hashlib.sha256(repr(sorted(repr(told(name, row)) for row in rows)).encode()).hexdigest()
    return digests


def _without_times(row: dict[str, Any]) -> dict[str, Any]:
    if row["key"] == "restored":
        return {"key": row["key"], "value": {name: v for name, v in json.loads(row["value"]).items() if name != "at"}}
    if row["key"] != "vector_indexes":
        return row
    kinds = {name: figures["kind"] for name, figures in json.loads(row["value"]).items()}
    return {"key": row["key"], "value": repr(kinds)}
