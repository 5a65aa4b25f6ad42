"""`medlens restore`: make a store from a backup, without what was erased after the backup was made.

A backup knows only what was erased before it was made. Therefore the erasures of the store that it replaces, and those
of a list that was kept apart, are applied before the restored store becomes visible. If there is neither, this is
reported and saved in the settings of the store.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from indexer.catalog.sql_catalog import SqlCatalog
from indexer.store.backup_file import OpenBackup, opened_backup
from indexer.store.erasure_list import ErasureList, read_erasures
from indexer.store.place import (
    CATALOG_FILE,
    KEY_FILE,
    VECTORS_FOLDER,
    enclosing_store,
    is_url,
    key_check,
    os_errors,
    write_key,
)
from indexer.store.store import Store
from indexer.tasks.backing_up import erasures_of
from retrieval.errors import StoreCorrupt, StoreError, StoreIncompatible
from retrieval.on_disk import folder_written_whole, share, sync

log = logging.getLogger(__name__)

RESTORED = "restored"  # a setting: when, from a backup of what time, and how many erasures were available


@dataclass(frozen=True)
class Restored:
    """What was restored.

    - `made`: the time of the backup, in UTC
    - `instances`: the number of instances in the restored store
    - `erasures`: the number of digests in the list of erasures; None without a list
    - `erased`: the number of instances of the backup that were erased again
    - `has_key`: whether the store has its key; without it, it can be searched but not changed
    """

    made: str
    instances: int
    erasures: int | None
    erased: int
    has_key: bool


@dataclass(frozen=True)
class _Previous:
    """The erasures of a store that is replaced, and its key if it has one."""

    erasures: ErasureList
    key: bytes | None


def restore(path: Path, location: str | Path, *, erasures: Path | None = None, replace: bool = False) -> Restored:
    """Make a store from a backup in a new or empty folder, or, with `replace`, in place of an existing store.

    What was erased since the backup was made is erased again, by the erasures of the replaced store and by the list in
    the file `erasures`. The store appears when it is complete, or not at all. Its indexes are exact; run
    `optimize_store` again if they were compressed.

    Raises StoreError if the backup can't be read, if something else is in the folder, or if another process has the
    existing store open. Raises StoreIncompatible if the backup, the list and the existing store have different keys,
    and StoreCorrupt if the backup is damaged.
    """
    if is_url(location):
        raise StoreError(
            "a backup can only be restored to a folder, not to a database URL",
            hint="For PostgreSQL run `pg_restore`, then `medlens delete --erasures FILE` with the list of erasures.",
        )
    place = Path(location).absolute()
    label = repr(place.name)
    _require_place(place, label, replace)
    listed = [] if erasures is None else [read_erasures(erasures)]
    previous = _previous_stores(place, label)
    with opened_backup(path) as source, os_errors(f"the store {label}"):
        _require_one_key(source, [*(each.erasures for each in previous), *listed], label)
        place.parent.mkdir(parents=True, exist_ok=True)
        _require_room(source, place.parent)
        with folder_written_whole(place) as made:
            made.chmod(0o700)
            (made / VECTORS_FOLDER).mkdir(0o700)
            source.extract(made)
            key = next((each.key for each in previous if each.key is not None), None)
            if key is not None and not source.facts.has_key:
                write_key(made / KEY_FILE, key)
            if (place / CATALOG_FILE).exists():
                _share_as_before(made, place)
            done = _finished(made, source, [*(each.erasures for each in previous), *listed])
            if _previous_stores(place, label, excluded=made) != previous:
                raise StoreError(
                    f"something was erased from the store {label} while it was restored", hint="Restore it again."
                )
        sync(place.parent)
    return done


def _require_place(place: Path, label: str, replace: bool) -> None:
    with os_errors(f"the store {label}"):
        if place.is_symlink():
            raise StoreError(f"{label} is a link", hint="Name the folder that it leads to with --store.")
        around = enclosing_store(place.parent)
        if around is not None:
            raise StoreError(
                f"{label} is inside the store {around.name!r}", hint="Name a folder outside that store with --store."
            )
        if not place.exists() or (place.is_dir() and not any(place.iterdir())):
            return
        if not (place / CATALOG_FILE).is_file():
            raise StoreError(f"there is already something else at {label}", hint="Name a new folder with --store.")
        if not replace:
            raise StoreError(
                f"there is already a store at {label}; everything added since the backup was made would be lost",
                hint="Name a new folder with --store, or add --replace to replace the store.",
            )


def _previous_stores(place: Path, label: str, excluded: Path | None = None) -> list[_Previous]:
    """Return the store at a place, and those that killed restorations left beside it, without the folder `excluded`.

    Raises StoreError if the store at the place can't be opened, or if another process has it open.
    """
    found = []
    if (place / CATALOG_FILE).exists():
        try:
            found.append(_previous_store(place))
        except StoreError as exc:
            raise StoreError(
                f"the store {label} can't be replaced: {exc}",
                hint=f"{exc.hint} If it is damaged, move it away and restore to a new folder. Add --erasures FILE, or "
                "everything erased since the backup was made comes back.".strip(),
            ) from exc
    for left in sorted(place.parent.glob(f".{place.name}.*.tmp")):
        if left != excluded and (left / CATALOG_FILE).is_file():
            try:
                found.append(_previous_store(left))
            except StoreError as exc:
                log.info("the remains of a killed restoration can't be opened: %s", exc)
    return found


def _previous_store(folder: Path) -> _Previous:
    with Store.open(folder) as store:
        try:
            key: bytes | None = store.pseudonym_key
        except StoreError:
            key = None
        previous = _Previous(erasures_of(store), key)
        store.catalog.require_unused()  # a process that closes it later would remove the new store's log
    return previous


def _require_one_key(source: OpenBackup, lists: list[ErasureList], label: str) -> None:
    if any(each.key_check != source.facts.key_check for each in lists):
        raise StoreIncompatible(
            f"the backup {source.label} and the store at {label}, or the list of erasures, belong to different stores: "
            "their keys differ",
            hint="Restore to a new folder, and give a list of erasures of the same store.",
        )


def _require_room(source: OpenBackup, folder: Path) -> None:
    needed = sum(member.bytes for member in source.facts.files.values())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StoreError(
            f"the backup {source.label} needs {needed / 1e6:,.0f} MB, but the disk has only {free / 1e6:,.0f} MB free",
            hint="Make room, or name a folder on another disk with --store.",
        )


def _share_as_before(made: Path, place: Path) -> None:
    """Let the users who could read the replaced store read the new one. The key stays readable by its owner only."""
    for name in (CATALOG_FILE, VECTORS_FOLDER):
        share(made / name, place / name if (place / name).exists() else place)
    share(made, place)


def _finished(made: Path, source: OpenBackup, lists: list[ErasureList]) -> Restored:
    """Check the unpacked store, migrate it, erase again what was erased since, and build its index files."""
    SqlCatalog.require_sound(made / CATALOG_FILE, source.label)
    facts = source.facts
    digests = {digest: scope for each in lists for digest, scope in each.digests.items()}
    with Store.open(made) as store:
        if (store.place.store_id, store.manifest.get("pseudonym_key_check")) != (facts.store_id, facts.key_check):
            raise StoreCorrupt(
                f"the backup {source.label} can't be used: its catalog is not the one that its list describes",
                hint="Restore another backup; nothing was changed.",
            )
        has_key = (made / KEY_FILE).exists()
        if has_key and key_check((made / KEY_FILE).read_bytes()) != facts.key_check:
            raise StoreCorrupt(
                f"the backup {source.label} can't be used: its key belongs to another store",
                hint="Restore another backup; nothing was changed.",
            )
        if digests and not has_key:
            raise StoreError(
                f"the backup {source.label} has no key, and without it nothing can be erased again",
                hint=f"Use a backup that has the key, or replace a store that still has its {KEY_FILE}.",
            )
        store.catalog.drop_backups()  # the backup itself is one
        erased = store.catalog.instances.erase_again(digests, store.erasures) if digests else 0
        known = len(digests) if lists else None
        now = datetime.now(UTC).isoformat(timespec="seconds")
        store.manifest[RESTORED] = {"at": now, "backup_of": facts.made, "erasures": known}
        store.refresh()
        return Restored(facts.made, store.catalog.counts().instances, known, erased, has_key)
