"""A store: catalog, vector indexes, the key of the pseudonyms, and the model that everything in it was made with.

A store is a directory (`catalog.sqlite`, `vectors/`, `pseudonym.key`) or a database URL. What can't live in a database,
the derived index files and the key, is then in a local folder per store: `$XDG_DATA_HOME/medlens/stores/<store id>`
unless another is named. The key is not in the database on purpose: who has both can tell who is who.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import shutil
import threading
import uuid
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.catalog.remembered import Remembered
from indexer.on_disk import locked, remove, sync_folder, unfinished, unfinished_name
from retrieval.errors import StoreCorrupt, StoreError, StoreIncompatible, StoreNotFound

if TYPE_CHECKING:
    from indexer.catalog.erasure import Erasures
    from indexer.catalog.sql_catalog import Manifest, SqlCatalog
    from indexer.records import VectorKind
    from indexer.store.questions import StoreEncoder
    from indexer.store.slices import Places
    from indexer.vectors.index import CatalogIndex
    from indexer.vectors.opening import Place
    from retrieval.search.bm25 import ReportIndex
    from retrieval.search.describe import SentenceHit
    from retrieval.search.query import ImagePart, Query
    from retrieval.types import Encoder, SearchFilter, SearchResults

log = logging.getLogger(__name__)

CATALOG_FILE = "catalog.sqlite"
KEY_FILE = "pseudonym.key"
VECTORS_FOLDER = "vectors"
KEY_BYTES = 32
INDEX_FILES: dict[VectorKind, str] = {"frame": "frames.faiss", "sentence": "sentences.faiss"}
_COMPARED = 4096  # vectors at a time
_PLACES = 256  # series whose slices' places are remembered


class Store:
    """Open one with `Store.open`, make one with `Store.create`; close it, or use it in a `with`."""

    def __init__(self, catalog: SqlCatalog, folder: Path, label: str) -> None:
        self.catalog = catalog
        self.label = label
        self._folder = folder
        self._indexes: dict[VectorKind, CatalogIndex] = {}
        self._reports: tuple[list[int], ReportIndex] | None = None
        self._seen: dict[str, Hashable] = {}  # the catalog's state when an index was last caught up with it
        self.places: Places = Remembered(catalog.state, _PLACES)
        self._encoder: StoreEncoder | None = None
        self._model: dict[str, Any] | None = None  # completed, where the manifest can't be written
        self._lock = threading.Lock()

    @classmethod
    def create(cls, location: str | Path, spec_json: Mapping[str, Any], *, local_dir: Path | None = None) -> Store:
        """Make a store at a directory or a database URL, for the model that `spec_json` describes.

        `spec_json` has `name`, `weights_sha256`, `embed_dim`, and whatever else makes vectors comparable. The place may
        be an empty directory; StoreError if anything is there. Nothing is left behind if it fails.
        """
        spec = _json(spec_json)
        if not isinstance(spec.get("embed_dim"), int) or spec["embed_dim"] < 1:
            raise ValueError(f"the model's embed_dim is {spec.get('embed_dim')!r}, expected a number from 1")
        if is_url(location):
            _create_in_database(str(location), spec, local_dir)
        else:
            _create_in_folder(Path(location), spec)
        return cls.open(location, local_dir=local_dir)

    @classmethod
    def upgrade(cls, location: str | Path) -> bool:
        """Bring a store that an older medlens wrote to the present schema; whether there was anything to do.

        A store in a folder is backed up first. Raises as `SqlCatalog.upgrade` does.
        """
        from indexer.catalog.sql_catalog import SqlCatalog

        return SqlCatalog.upgrade(str(location) if is_url(location) else Path(location) / CATALOG_FILE)

    @classmethod
    def open(cls, location: str | Path, *, local_dir: Path | None = None) -> Store:
        """Open a store. Raises StoreNotFound, StoreIncompatible (a newer schema), StoreCorrupt, or StoreError."""
        if is_url(location):
            from indexer.catalog.sql_catalog import SqlCatalog

            catalog = SqlCatalog.open(str(location))
            try:
                folder = local_dir or _default_local_dir(_store_id(catalog))
            except BaseException:
                catalog.close()
                raise
            return cls(catalog, folder, "the database")
        path = Path(location)
        label = repr(path.absolute().name)
        with _os_errors(f"the store {label}"):
            if not path.exists():
                raise StoreNotFound(f"there is no store at {label}: no such folder")
            if not path.is_dir():
                raise StoreError(f"{label} is a file, expected a store's folder", hint="Name the folder it is in.")
            if not (path / CATALOG_FILE).exists():
                if not any(path.iterdir()):
                    raise StoreNotFound(f"there is no store at {label}: the folder is empty")
                raise StoreError(
                    f"{label} is no store: it has no {CATALOG_FILE}",
                    hint="Name another folder with --store; to index this one, give it as the archive.",
                )
            if (path / VECTORS_FOLDER).exists() and not (path / VECTORS_FOLDER).is_dir():
                raise StoreCorrupt(
                    f"{VECTORS_FOLDER!r} in the store {label} is no folder",
                    hint="Remove it: what belongs there is built anew from the catalog.",
                )
        from indexer.catalog.sql_catalog import SqlCatalog

        return cls(SqlCatalog.open(path / CATALOG_FILE), path, label)

    def close(self) -> None:
        self._indexes.clear()
        self._reports = None
        self.catalog.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def manifest(self) -> Manifest:
        """The store's settings. `model` is the model's description, `store_id` never changes."""
        return self.catalog.manifest

    @property
    def model(self) -> dict[str, Any]:
        """The model that the store belongs to: what it is, not where it lies."""
        spec = self._model or self.manifest.get("model")
        if not isinstance(spec, dict):
            raise StoreCorrupt(
                f"the manifest of {self.label} names no model", hint="Index the archive into a new store."
            )
        return {key: value for key, value in spec.items() if key != "source"}  # 0.1.0 wrote where it lay

    @property
    def pseudonym_key(self) -> bytes:
        """32 bytes. StoreError if the key is missing, StoreIncompatible if it is another store's."""
        path = self._folder / KEY_FILE
        remedy = f"Copy {KEY_FILE} from the machine or the backup where the store was made."
        try:
            key = path.read_bytes()
        except FileNotFoundError as exc:
            raise StoreError(f"the key of the pseudonyms of {self.label} is missing", hint=remedy) from exc
        except OSError as exc:
            raise StoreError(
                f"the key of the pseudonyms of {self.label} can't be read: {exc.strerror}",
                hint="Only its owner may read it (mode 0600): run medlens as that user.",
            ) from exc
        if not hmac.compare_digest(_key_check(key), str(self.manifest.get("pseudonym_key_check"))):
            raise StoreIncompatible(
                f"the key of the pseudonyms is not the one {self.label} was made with; patients would be mixed up",
                hint=remedy,
            )
        return key

    @property
    def erasures(self) -> Erasures:
        """What tells files that were erased, made with the store's key. Raises as `pseudonym_key` does."""
        from indexer.catalog.erasure import Erasures

        return Erasures(self.pseudonym_key)

    def require_model(self, spec_json: Mapping[str, Any]) -> None:
        """StoreIncompatible, naming both models, unless the store's vectors are of this model. Its name may differ.

        What medlens 0.1.0 wrote of a model is completed from this one, if it is the same as far as that goes.
        """
        from retrieval.encoders.spec import differing, older

        unlike = differing(self.model, spec_json)
        if unlike:
            raise StoreIncompatible(
                f"the store {self.label} belongs to the model {_model_name(self.model)}, not to "
                f"{_model_name(spec_json)}; they differ in {', '.join(unlike)}",
                hint=f"Use --model {self.model.get('name')}, or another --store for the other model.",
            )
        if older(self.model) and not older(spec_json):
            self._complete_model(_json(spec_json))

    def _complete_model(self, spec: dict[str, Any]) -> None:
        """Write down all that tells the model from others, under the name that the store has for it."""
        spec["name"] = self.model.get("name", spec.get("name"))
        self._model = spec
        try:
            self.manifest["model"] = spec
        except StoreError as exc:  # on media that can't be written: it holds for this process
            log.info("the description of the model of %s is completed in memory only: %s", self.label, exc)
            return
        log.warning(
            "%s was made by medlens 0.1.0: its model is now described in full, with configuration and tokenizer of %r, "
            "whose weights are the same",
            self.label,
            spec["name"],
        )

    def frames_index(self, device: str = "cpu") -> CatalogIndex:
        """The index of the frames' vectors, caught up with the catalog; on `cuda` or `cuda:N` a GPU searches it."""
        return self.index("frame", device)

    def sentences_index(self, device: str = "cpu") -> CatalogIndex:
        """The index of the report sentences' vectors, caught up with the catalog."""
        return self.index("sentence", device)

    def reports_index(self) -> ReportIndex:
        """The BM25 index of the studies' reports, as the catalog has them now."""
        from indexer.store.report_index import open_report_index

        with self._lock:
            state = self.catalog.state()
            if self._reports is None or self._seen.get("report") != state:
                mark = self.catalog.report_mark()
                if self._reports is None or self._reports[0] != mark:
                    index = open_report_index(self._folder / VECTORS_FOLDER, self.catalog, _store_id(self.catalog))
                    self._reports = (mark, index)
                self._seen["report"] = state
            return self._reports[1]

    def search(self, query: Query | str | Path, *, encoder: Encoder | None = None) -> SearchResults:
        """The answers to a query; a text or an image file alone is a query, too.

        `encoder` is the store's model, loaded already; without it the model is loaded when it is first needed, and
        kept. Raises QueryError for what can't be asked or answered, DicomError for a query image that can't be used.
        """
        from indexer.store.questions import search
        from retrieval.search.query import Query

        asked = query if isinstance(query, Query) else Query(query)
        return search(self, asked, encoder or self._own_encoder())

    def describe(
        self,
        image: Path | ImagePart,
        *,
        k: int = 5,
        phrases: Sequence[str] = (),
        borrow: int = 0,
        encoder: Encoder | None = None,
    ) -> tuple[SentenceHit, ...]:
        """The `k` sentences of the store's reports nearest to an image, or of `phrases` if any are given.

        With `borrow`, that many more follow: the best sentence of each of the studies whose pictures are most like the
        image, marked as borrowed. They are words about other pictures, not a diagnosis. Raises as `search` does.
        """
        from indexer.store.questions import describe

        return describe(self, image, encoder or self._own_encoder(), k=k, phrases=phrases, borrow=borrow)

    def refresh(self) -> None:
        """Bring the indexes and their files up to the catalog. After a deletion this erases what they had of it.

        Unfinished files of killed processes go, too.
        """
        from indexer.store.report_index import refresh_report_index
        from indexer.vectors.opening import refreshed

        self.remove_leftovers()
        refresh_report_index(self._folder / VECTORS_FOLDER, self.catalog, _store_id(self.catalog))
        with self._lock:
            for kind in INDEX_FILES:
                self._indexes[kind] = refreshed(self.index_place(kind), self.catalog)

    def erase(self, where: SearchFilter, *, keep_out: bool = True) -> int:
        """Erase what a filter matches from the catalog and from every file derived of it; how many instances went.

        With `keep_out`, `medlens index` does not take it in again: see `catalog.erasure`. Without, or once the files
        are gone from the archive, nothing of it is remembered. Erasing what is gone already finishes an erasure that
        was interrupted. Raises what `SqlCatalog.delete_matching` raises; QueryError for a filter that makes no sense.
        """
        erased = self.erasures if keep_out else None
        gone = self.catalog.delete_matching(where, erased)
        self.refresh()
        return gone

    def leftovers(self) -> list[Path]:
        """What processes that were killed have left unfinished."""
        return unfinished(self._folder) + unfinished(self._folder / VECTORS_FOLDER)

    def remove_leftovers(self) -> None:
        """Remove them; StoreError if that is refused."""
        with _os_errors("what a killed process has left"):
            with locked(self._folder / VECTORS_FOLDER):
                pass  # it clears the folder
            for path in unfinished(self._folder):
                remove(path)

    def rebuild_indexes(self) -> None:
        """Throw away all derived index files and build them from the catalog."""
        with self._lock:
            self._indexes.clear()
            shutil.rmtree(self._folder / VECTORS_FOLDER, ignore_errors=True)
        self.refresh()

    def index_file_problem(self, kind: VectorKind) -> str | None:
        """What is wrong with an index file that is there, every vector in it; None if nothing is, or there is none."""
        from indexer.vectors.index import CatalogIndex

        try:
            index = CatalogIndex.load(self.index_place(kind).path)
        except FileNotFoundError:
            return None
        except StoreCorrupt as exc:
            return str(exc)
        if index.store_id != _store_id(self.catalog):
            return "it belongs to another store"
        ids, wrong = index.ids, 0
        for start in range(0, len(ids), _COMPARED):
            found, vectors = self.catalog.vectors_of(ids[start : start + _COMPARED].tolist(), kind)
            wrong += int((vectors.view("u2") != index.vectors_of(found).view("u2")).any(axis=1).sum())
        return f"{wrong} of its vectors are not those of the catalog" if wrong else None

    def report_index_problem(self) -> str | None:
        """What is wrong with the files of the reports' words; None if nothing is, or there are none."""
        from indexer.store.report_index import report_index_problem

        return report_index_problem(self._folder / VECTORS_FOLDER, self.catalog, _store_id(self.catalog))

    def key_mode(self) -> int:
        """The permission bits of the key's file."""
        return (self._folder / KEY_FILE).stat().st_mode & 0o777

    def protect_key(self) -> None:
        """Let only its owner read the key."""
        (self._folder / KEY_FILE).chmod(0o600)

    def _own_encoder(self) -> StoreEncoder:
        from indexer.store.questions import StoreEncoder

        with self._lock:
            self._encoder = self._encoder or StoreEncoder(self)
            return self._encoder

    def index_place(self, kind: VectorKind) -> Place:
        """Where the file of an index lies, and whose it is."""
        from indexer.vectors.opening import Place

        path = self._folder / VECTORS_FOLDER / INDEX_FILES[kind]
        return Place(path, int(self.model["embed_dim"]), kind, _store_id(self.catalog))

    def forget_indexes(self) -> None:
        """Open the indexes anew when they are next asked for."""
        with self._lock:
            self._indexes.clear()

    def index(self, kind: VectorKind, device: str = "cpu") -> CatalogIndex:
        """The index of one kind of vectors, caught up with the catalog."""
        from indexer.vectors.opening import open_index

        with self._lock:
            index, state = self._indexes.get(kind), self.catalog.state()
            if index is None:
                index = self._indexes[kind] = open_index(self.index_place(kind), self.catalog)
            elif self._seen.get(kind) != state:
                index.catch_up(self.catalog)
            self._seen[kind] = state
            if device.startswith("cuda") and not index.on_device:
                from indexer.vectors.gpu import move_to_gpu

                move_to_gpu(index, device)
            return index


def is_url(location: str | Path) -> bool:
    """Whether a location is a database URL rather than a folder."""
    return isinstance(location, str) and "://" in location


def _create_in_folder(path: Path, spec: dict[str, Any]) -> None:
    """Everything is made in a folder beside the place and moved there in one step."""
    from indexer.catalog.sql_catalog import SqlCatalog

    label = repr(path.absolute().name)
    with _os_errors(f"the store {label}"):
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            there = "a store" if (path / CATALOG_FILE).exists() else "something else"
            raise StoreError(f"there is {there} already at {label}", hint="Name a new folder with --store.")
        parent = path.absolute().parent
        parent.mkdir(parents=True, exist_ok=True)
        temporary = unfinished_name(path.absolute())
        try:
            temporary.mkdir()
            key = _write_key(temporary / KEY_FILE)
            SqlCatalog.create(temporary / CATALOG_FILE, _first_manifest(spec, key)).close()
            (temporary / VECTORS_FOLDER).mkdir()
            temporary.rename(path)  # refused if another process has made a store there meanwhile
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(parent)


def _create_in_database(url: str, spec: dict[str, Any], local_dir: Path | None) -> None:
    from indexer.catalog.sql_catalog import SqlCatalog

    key = secrets.token_bytes(KEY_BYTES)
    values = _first_manifest(spec, key)
    folder = local_dir or _default_local_dir(values["store_id"])
    with _os_errors("the store's local folder"):
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / KEY_FILE).exists():
            raise StoreError(
                f"the local folder {folder.name!r} has the key of a store already", hint="Name another local folder."
            )
        _write_key(folder / KEY_FILE, key)
        try:
            SqlCatalog.create(url, values).close()
        except BaseException:
            (folder / KEY_FILE).unlink(missing_ok=True)
            raise


def _first_manifest(spec: dict[str, Any], key: bytes) -> dict[str, Any]:
    return {"store_id": uuid.uuid4().hex, "model": spec, "pseudonym_key_check": _key_check(key)}


def _write_key(path: Path, key: bytes | None = None) -> bytes:
    key = key or secrets.token_bytes(KEY_BYTES)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    return key


def _key_check(key: bytes) -> str:
    """Tells a wrong key; says nothing about the right one."""
    return hmac.new(key, b"medlens pseudonym key check", hashlib.sha256).hexdigest()


def _store_id(catalog: SqlCatalog) -> str:
    found = catalog.manifest.get("store_id")
    if not isinstance(found, str):
        raise StoreCorrupt("the manifest has no store_id", hint="Index the archive into a new store.")
    return found


def _default_local_dir(store_id: str) -> Path:
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "medlens" / "stores" / store_id


def _model_name(spec: Mapping[str, Any]) -> str:
    return f"{spec.get('name', '?')!r} (weights {str(spec.get('weights_sha256', '?'))[:12]})"


def _json(value: Mapping[str, Any]) -> dict[str, Any]:
    """As it will come back from the manifest: tuples are lists."""
    out: dict[str, Any] = json.loads(json.dumps(dict(value), allow_nan=False))
    return out


@contextmanager
def _os_errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StoreError(
            f"{what} can't be reached or made: {exc.strerror or type(exc).__name__}",
            hint="Check the path, the permissions and the room on the disk.",
        ) from exc
