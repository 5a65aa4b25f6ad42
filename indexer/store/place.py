"""The place of a store: its folder or database, the pseudonym key, and the manifest with its model.

A store is a directory (`catalog.sqlite`, `vectors/`, `pseudonym.key`) or a database URL. For a database, the derived
index files and the key are in a local folder per store: `$XDG_DATA_HOME/medlens/stores/<store id>` unless another is
named. The key is not in the database on purpose: whoever has both can identify the patients.
"""

from __future__ import annotations

import grp
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.store.own_files import require_own_files
from retrieval.bounded import read_bytes
from retrieval.errors import StoreCorrupt, StoreError, StoreIncompatible, StoreNotFound
from retrieval.on_disk import folder_written_whole, sync

if TYPE_CHECKING:
    from indexer.catalog.erasure import Erasures
    from indexer.catalog.manifest import Manifest
    from indexer.catalog.sql_catalog import SqlCatalog
    from retrieval.types import RenderProfile

CATALOG_FILE = "catalog.sqlite"
KEY_FILE = "pseudonym.key"
VECTORS_FOLDER = "vectors"
KEY_BYTES = 32
_MOST_KEY = 4096  # bytes that are read to see that it is another's

log = logging.getLogger(__name__)


class StorePlace:
    """An open catalog, and the folder with the key and the derived files. `open_place` returns one."""

    def __init__(self, catalog: SqlCatalog, folder: Path, label: str) -> None:
        self.catalog = catalog
        self.folder = folder
        self.label = label  # for messages: never a path
        self._model: dict[str, Any] | None = None  # completed, also where the manifest can't be written

    @property
    def vectors_folder(self) -> Path:
        """The folder of the derived files."""
        return self.folder / VECTORS_FOLDER

    @property
    def manifest(self) -> Manifest:
        """The store's settings. `model` is the description of the model; `store_id` never changes."""
        return self.catalog.manifest

    @property
    def store_id(self) -> str:
        return _store_id(self.catalog)

    @property
    def vectors_id(self) -> str:
        """Which vectors the catalog holds: another text after each change of the model."""
        return "/".join(filter(None, (self.store_id, self.catalog.vectors_in_use.now())))

    @property
    def model(self) -> dict[str, Any]:
        """The description of the store's model, without its location. Raises StoreCorrupt if there is none."""
        from retrieval.encoders.spec import differing, is_description

        spec = self.manifest.get("model")
        if self._model is not None and isinstance(spec, dict) and not differing(spec, self._model):
            spec = self._model
        if not is_description(spec):
            raise StoreCorrupt(
                f"the manifest of {self.label} does not name a model", hint="Index the archive into a new store."
            )
        return {key: value for key, value in spec.items() if key != "source"}  # 0.1.0 stored the location of the model

    @property
    def render_profile(self) -> RenderProfile:
        """How frames are rendered for the store's model. StoreCorrupt if the manifest does not say."""
        from retrieval.encoders.spec import profile_from_json

        try:
            return profile_from_json(self.model["render_profile"])
        except (LookupError, TypeError, ValueError, AttributeError) as exc:
            raise StoreCorrupt(
                f"the manifest of {self.label} does not say how frames are rendered",
                hint="Index the archive into a new store.",
            ) from exc

    def require_model(self, spec_json: Mapping[str, Any]) -> None:
        """Raise StoreIncompatible, naming both models, unless the vectors are of this model. Its name may differ.

        A description that medlens 0.1.0 wrote is completed from this model, if the parts that it has are equal. From
        now on the catalog refuses vectors, and what was computed from them, if another process has changed the model.
        """
        from retrieval.encoders.released import title_and_weights
        from retrieval.encoders.spec import differing, older

        self.catalog.vectors_in_use.expect()
        unlike = differing(self.model, spec_json)
        if unlike:
            raise StoreIncompatible(
                f"the store {self.label} belongs to the model {title_and_weights(self.model)}, not to "
                f"{title_and_weights(spec_json)}; the models differ in {', '.join(unlike)}",
                hint=f"Use --model {self.model.get('name')}, or use another --store for the other model. To give this "
                f"store the other model: medlens reembed --model {spec_json.get('name')}",
            )
        if older(self.model) and not older(spec_json):
            self._complete_model(_json(spec_json))

    def _complete_model(self, spec: dict[str, Any]) -> None:
        """Store the complete description of the model, under the name that the store has for it."""
        spec["name"] = self.model.get("name", spec.get("name"))
        self._model = spec
        try:
            self.manifest["model"] = spec
        except StoreError as exc:  # on media that can't be written: it holds for this process
            log.info("the description of the model of %s could be completed in memory only: %s", self.label, exc)
            return
        log.warning(
            "%s was made by medlens 0.1.0; the description of its model was completed with the "
            "configuration and tokenizer of %r, which has the same weights",
            self.label,
            spec["name"],
        )

    @property
    def pseudonym_key(self) -> bytes:
        """The key, 32 bytes. Raises StoreError if it is missing, StoreIncompatible if it belongs to another store."""
        path = self.folder / KEY_FILE
        remedy = f"Copy {KEY_FILE} from the machine where the store was made, or from its backup."
        try:
            key = read_bytes(path, _MOST_KEY)
        except FileNotFoundError as exc:
            raise StoreError(f"the pseudonym key of {self.label} is missing", hint=remedy) from exc
        except OSError as exc:
            raise StoreError(
                f"the pseudonym key of {self.label} can't be read: {exc.strerror}",
                hint="Run medlens as the owner of the key; only the owner may read it (mode 0600).",
            ) from exc
        if not hmac.compare_digest(key_check(key), str(self.manifest.get("pseudonym_key_check"))):
            raise StoreIncompatible(
                f"the pseudonym key is not the one that {self.label} was made with; patients would be mixed up",
                hint=remedy,
            )
        return key

    @property
    def erasures(self) -> Erasures:
        """The digests of erased files, made with the store's key. Raises as `pseudonym_key` does."""
        from indexer.catalog.erasure import Erasures

        return Erasures(self.pseudonym_key)

    def key_mode(self) -> int:
        """The permission bits of the key file."""
        return (self.folder / KEY_FILE).stat().st_mode & 0o777

    def protect_key(self) -> None:
        """Make the key readable for its owner only."""
        (self.folder / KEY_FILE).chmod(0o600)

    def close(self) -> None:
        self.catalog.close()


def is_url(location: str | Path) -> bool:
    """Whether a location is a database URL rather than a folder."""
    return isinstance(location, str) and "://" in location


def create_place(
    location: str | Path, spec_json: Mapping[str, Any], *, local_dir: Path | None = None, group: str | None = None
) -> None:
    """Create a store for a model. See `Store.create`."""
    gid = None if group is None else group_id(group)
    spec = _json(spec_json)
    if not isinstance(spec.get("embed_dim"), int) or spec["embed_dim"] < 1:
        raise ValueError(f"the model's embed_dim is {spec.get('embed_dim')!r}; expected a number of 1 or more")
    if is_url(location):
        _create_in_database(str(location), spec, local_dir, gid)
    else:
        _create_in_folder(Path(location), spec, gid)


def open_place(location: str | Path, *, local_dir: Path | None = None) -> StorePlace:
    """Open what `create_place` made. See `Store.open`."""
    if is_url(location):
        from indexer.catalog.sql_catalog import SqlCatalog

        catalog = SqlCatalog.open(str(location))
        try:
            folder = local_dir or _default_local_dir(_store_id(catalog))
        except BaseException:
            catalog.close()
            raise
        return StorePlace(catalog, folder, "the database")
    path = Path(location)
    label = repr(path.absolute().name)
    _require_store(path, label)
    from indexer.catalog.sql_catalog import SqlCatalog

    return StorePlace(SqlCatalog.open(path / CATALOG_FILE), path, label)


def upgrade_place(location: str | Path) -> bool:
    """Migrate the catalog. See `Store.upgrade`."""
    from indexer.catalog.sql_catalog import SqlCatalog

    return SqlCatalog.upgrade(str(location) if is_url(location) else Path(location) / CATALOG_FILE)


@contextmanager
def os_errors(what: str) -> Iterator[None]:
    """Raise errors of the operating system as a StoreError."""
    try:
        yield
    except OSError as exc:
        raise StoreError(
            f"{what} can't be read or created: {exc.strerror or type(exc).__name__}",
            hint="Check the path, the permissions and the free space of the disk.",
        ) from exc


def _require_store(path: Path, label: str) -> None:
    """Raise StoreNotFound, StoreError or StoreCorrupt unless the folder contains a store."""
    with os_errors(f"the store {label}"):
        if not path.exists():
            raise StoreNotFound(f"there is no store at {label}: the folder does not exist")
        if not path.is_dir():
            raise StoreError(
                f"{label} is a file; expected the folder of a store", hint="Name the folder that contains it."
            )
        if not (path / CATALOG_FILE).exists():
            if not any(path.iterdir()):
                raise StoreNotFound(f"there is no store at {label}: the folder is empty")
            raise StoreError(
                f"{label} is not a medlens store: it has no {CATALOG_FILE}",
                hint="Name another folder with --store. To index this folder, name it as the archive.",
            )
        if (path / VECTORS_FOLDER).exists() and not (path / VECTORS_FOLDER).is_dir():
            raise StoreCorrupt(
                f"{VECTORS_FOLDER!r} in the store {label} is not a folder",
                hint="Remove it; medlens rebuilds its content from the catalog.",
            )
        require_own_files(path, label, CATALOG_FILE, VECTORS_FOLDER)


def enclosing_store(folder: Path) -> Path | None:
    """Return the store that a folder, existing or not, is or is inside of, through links too; None outside of any."""
    place = folder.resolve()
    for candidate in (place, *place.parents):
        if any(os.path.lexists(candidate / name) for name in (CATALOG_FILE, KEY_FILE)):
            return candidate
    return None


def group_id(name: str) -> int:
    """Return the number of a group on this machine. Raises StoreError if there is none of that name."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as exc:
        raise StoreError(
            f"there is no group {name!r} on this machine", hint="Run `id -Gn` to list your groups."
        ) from exc


def require_group(place: StorePlace, name: str) -> None:
    """Raise StoreError unless this group may read an existing store."""
    status = place.folder.stat()
    if status.st_gid != group_id(name) or not status.st_mode & 0o050 == 0o050:
        raise StoreError(
            f"the store {place.label} exists already, and the group {name!r} may not read it",
            hint=(
                f"--group can only be used for a new store. To share this one, run: chgrp -R {name} "
                f"STORE; chmod -R g+rX STORE; chmod 600 STORE/{KEY_FILE}; chmod g+s STORE "
                f"STORE/{VECTORS_FOLDER}"
            ),
        )


def _create_in_folder(path: Path, spec: dict[str, Any], gid: int | None) -> None:
    """Create everything in a folder beside the place, and move it there in one step."""
    from indexer.catalog.sql_catalog import SqlCatalog

    label = repr(path.absolute().name)
    with os_errors(f"the store {label}"):
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            there = "a store" if (path / CATALOG_FILE).exists() else "something else"
            raise StoreError(f"there is already {there} at {label}", hint="Name a new folder with --store.")
        around = enclosing_store(path)
        if around is not None:
            raise StoreError(
                f"{label} is inside the store {around.name!r}", hint="Name a folder outside that store with --store."
            )
        parent = path.absolute().parent
        parent.mkdir(parents=True, exist_ok=True)
        with folder_written_whole(path.absolute(), replace=False) as made:  # refused if another process was faster
            key = write_key(made / KEY_FILE)
            SqlCatalog.create(made / CATALOG_FILE, _first_manifest(spec, key)).close()
            (made / VECTORS_FOLDER).mkdir()
            _limit(made, gid)
        sync(parent)


def _limit(folder: Path, gid: int | None) -> None:
    """Let only the owner into a new store, whatever the umask is, or also let the users of a group read it.

    Files created later belong to the group too, SQLite's log among them. Only the owner may read the key.
    """
    for path in (folder, *(folder / name for name in (CATALOG_FILE, VECTORS_FOLDER))):
        if not path.exists():
            continue
        if gid is not None:
            try:
                os.chown(path, -1, gid)
            except PermissionError as exc:
                raise StoreError(
                    f"the store can't be given to the group {grp.getgrgid(gid).gr_name!r}: you are not a member of it",
                    hint="Run `id -Gn` to list your groups.",
                ) from exc
        if path.is_dir():
            path.chmod(0o700 if gid is None else 0o2750)
        else:
            path.chmod(0o600 if gid is None else 0o640)


def _create_in_database(url: str, spec: dict[str, Any], local_dir: Path | None, gid: int | None) -> None:
    from indexer.catalog.sql_catalog import SqlCatalog

    key = secrets.token_bytes(KEY_BYTES)
    values = _first_manifest(spec, key)
    folder = local_dir or _default_local_dir(values["store_id"])
    with os_errors("the store's local folder"):
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / KEY_FILE).exists():
            raise StoreError(
                f"the local folder {folder.name!r} contains the key of another store", hint="Name another local folder."
            )
        if enclosing_store(folder) is not None:
            raise StoreError(f"the local folder {folder.name!r} is inside a store", hint="Name another local folder.")
        alone = not any(folder.iterdir())  # otherwise it belongs to somebody who has set its permissions
        write_key(folder / KEY_FILE, key)
        (folder / VECTORS_FOLDER).mkdir(exist_ok=True)
        _limit(folder if alone else folder / VECTORS_FOLDER, gid)
        try:
            SqlCatalog.create(url, values).close()
        except BaseException:
            (folder / KEY_FILE).unlink(missing_ok=True)
            raise


def _first_manifest(spec: dict[str, Any], key: bytes) -> dict[str, Any]:
    return {"store_id": uuid.uuid4().hex, "model": spec, "pseudonym_key_check": key_check(key)}


def write_key(path: Path, key: bytes | None = None) -> bytes:
    """Write a key, a new one if none is given, to a new file that only its owner can read."""
    key = key or secrets.token_bytes(KEY_BYTES)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    return key


def key_check(key: bytes) -> str:
    """Return a value that detects a wrong key and reveals nothing about the right one."""
    return hmac.new(key, b"medlens pseudonym key check", hashlib.sha256).hexdigest()


def _store_id(catalog: SqlCatalog) -> str:
    found = catalog.manifest.get("store_id")
    if not isinstance(found, str) or not re.fullmatch("[0-9A-Za-z-]{1,64}", found):  # it names a folder: see below
        raise StoreCorrupt(
            "the manifest does not state a store_id of letters and digits",
            hint="Index the archive into a new store.",
        )
    return found


def _default_local_dir(store_id: str) -> Path:
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "medlens" / "stores" / store_id


def _json(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value as the manifest will return it: tuples are lists."""
    out: dict[str, Any] = json.loads(json.dumps(dict(value), allow_nan=False))
    return out
