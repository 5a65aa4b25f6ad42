"""`medlens restore`: a backup as a store again, without what was erased since it was made.

A backup remembers what was erased before it was made, and not what was erased after. So the erasures of the store that
it replaces, and those of a list that was kept apart, are applied before anybody can see the restored store. Where there
is neither, that is reported, and kept in the store's settings.
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

RESTORED = "restored"  # a setting: when, from a backup of when, and how many erasures were at hand


@dataclass(frozen=True)
class Restored:
    """What was restored. `made` is when the backup was made, in UTC.

    `erasures` is how many digests of what was erased were at hand, None if no list was; `erased` is how many instances
    of the backup were erased by them. Without `has_key` the store can be searched, and not extended.
    """

    made: str
    instances: int
    erasures: int | None
    erased: int
    has_key: bool


@dataclass(frozen=True)
class _Former:
    """What a store has that was there before: what it has erased, and its key, if it has one."""

    erasures: ErasureList
    key: bytes | None


def restore(path: Path, location: str | Path, *, erasures: Path | None = None, replace: bool = False) -> Restored:
    """Make a store of a backup, in a folder that is new or empty, or with `replace` in place of the store there.

    What was erased since the backup was made is erased again: what the store that is replaced has erased, and what the
    list in the file `erasures` says. The store appears when all is done, or not at all. Its indexes are exact: optimize
    it again if it was.

    Raises StoreError if the backup can't be read, something else is at the place, or another process has the store
    there open; StoreIncompatible if the backup, the list and the store there do not have one key; StoreCorrupt if the
    backup is damaged.
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
    former = _formers(place, label)
    with opened_backup(path) as source, os_errors(f"the store {label}"):
        _require_one_key(source, [*(each.erasures for each in former), *listed], label)
        place.parent.mkdir(parents=True, exist_ok=True)
        _require_room(source, place.parent)
        with folder_written_whole(place) as made:
            made.chmod(0o700)
            (made / VECTORS_FOLDER).mkdir(0o700)
            source.extract(made)
            key = next((each.key for each in former if each.key is not None), None)
            if key is not None and not source.facts.has_key:
                write_key(made / KEY_FILE, key)
            if (place / CATALOG_FILE).exists():
                _share_as_before(made, place)
            done = _finished(made, source, [*(each.erasures for each in former), *listed])
            if _formers(place, label, but=made) != former:
                raise StoreError(f"the store {label} has erased more while it was restored", hint="Restore it again.")
        sync(place.parent)
    return done


def _require_place(place: Path, label: str, replace: bool) -> None:
    with os_errors(f"the store {label}"):
        if place.is_symlink():
            raise StoreError(f"{label} is a link", hint="Name the folder that it leads to with --store.")
        around = enclosing_store(place.parent)
        if around is not None:
            raise StoreError(f"{label} lies in the store {around.name!r}", hint="Name a folder outside with --store.")
        if not place.exists() or (place.is_dir() and not any(place.iterdir())):
            return
        if not (place / CATALOG_FILE).is_file():
            raise StoreError(f"there is something else already at {label}", hint="Name a new folder with --store.")
        if not replace:
            raise StoreError(
                f"there is a store already at {label}; what it has got since the backup was made would be lost",
                hint="Name a new folder with --store, or replace that store with --replace.",
            )


def _formers(place: Path, label: str, but: Path | None = None) -> list[_Former]:
    """The store at a place, which nobody else may have open, and what restorations that were killed have left beside
    it; not the folder `but`, which is being made."""
    found = []
    if (place / CATALOG_FILE).exists():
        try:
            found.append(_former(place))
        except StoreError as exc:
            raise StoreError(
                f"the store {label} can't be replaced: {exc}",
                hint=f"{exc.hint} If it is damaged, move it away and restore to a new folder, with --erasures FILE if "
                "there is a list: what was erased since the backup was made comes back else.".strip(),
            ) from exc
    for left in sorted(place.parent.glob(f".{place.name}.*.tmp")):
        if left != but and (left / CATALOG_FILE).is_file():
            try:
                found.append(_former(left))
            except StoreError as exc:
                log.info("what a killed process has left beside the store can't be opened: %s", exc)
    return found


def _former(folder: Path) -> _Former:
    with Store.open(folder) as store:
        try:
            key: bytes | None = store.pseudonym_key
        except StoreError:
            key = None
        former = _Former(erasures_of(store), key)
        store.catalog.require_unused()  # closing a file of this name later would take the new store's log with it
    return former


def _require_one_key(source: OpenBackup, lists: list[ErasureList], label: str) -> None:
    if any(each.key_check != source.facts.key_check for each in lists):
        raise StoreIncompatible(
            f"the backup {source.label} is not of the store at {label}, or the list of erasures is of another store: "
            "their keys differ",
            hint="Restore to a new folder, with a list of erasures of the same store.",
        )


def _require_room(source: OpenBackup, folder: Path) -> None:
    needed = sum(member.bytes for member in source.facts.files.values())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StoreError(
            f"the backup {source.label} needs {needed / 1e6:,.0f} MB, of which the disk has {free / 1e6:,.0f}",
            hint="Make room, or name a folder on another disk with --store.",
        )


def _share_as_before(made: Path, place: Path) -> None:
    """Give the new store's folders and catalog to those who could read the old one. The key stays its owner's."""
    for name in (CATALOG_FILE, VECTORS_FOLDER):
        share(made / name, place / name if (place / name).exists() else place)
    share(made, place)


def _finished(made: Path, source: OpenBackup, lists: list[ErasureList]) -> Restored:
    """Check what was unpacked, bring it to the present schema, erase again, and build what is derived."""
    SqlCatalog.require_sound(made / CATALOG_FILE, source.label)
    facts = source.facts
    digests = {digest: scope for each in lists for digest, scope in each.digests.items()}
    with Store.open(made) as store:
        if (store.place.store_id, store.manifest.get("pseudonym_key_check")) != (facts.store_id, facts.key_check):
            raise StoreCorrupt(
                f"the backup {source.label} can't be used: its catalog is another than its list says",
                hint="Restore another backup; nothing was changed.",
            )
        has_key = (made / KEY_FILE).exists()
        if has_key and key_check((made / KEY_FILE).read_bytes()) != facts.key_check:
            raise StoreCorrupt(
                f"the backup {source.label} can't be used: its key is another store's",
                hint="Restore another backup; nothing was changed.",
            )
        if digests and not has_key:
            raise StoreError(
                f"the backup {source.label} has no key, without which erasures can't be applied again",
                hint=f"Restore a backup with its key, or onto a store that still has its {KEY_FILE}.",
            )
        store.catalog.drop_backups()  # the state before a migration: the backup itself has it
        erased = store.catalog.instances.erase_again(digests, store.erasures) if digests else 0
        known = len(digests) if lists else None
        now = datetime.now(UTC).isoformat(timespec="seconds")
        store.manifest[RESTORED] = {"at": now, "backup_of": facts.made, "erasures": known}
        store.refresh()
        return Restored(facts.made, store.catalog.counts().instances, known, erased, has_key)
