"""`medlens backup`: write a store to one file while others use it, or write the list of what it has erased."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from indexer.on_disk import unfinished
from indexer.output_formats import beginning, json_document
from indexer.outputs import Output, require_not_of_archive, require_outputs
from indexer.store.backup_file import LIST, BackupFacts, member_of, write_backup
from indexer.store.erasure_list import KEYS, ErasureList
from indexer.store.place import CATALOG_FILE, KEY_FILE, write_key
from indexer.store.store import Store
from retrieval.errors import StoreError
from retrieval.on_disk import remove, sync

BACKUP = beginning("a backup of a store", f"{LIST}\0".encode())
ERASURES = json_document("a list of erasures", KEYS)


@dataclass(frozen=True)
class Backup:
    """What was written: the time of the backup in UTC, and the size of the catalog in bytes."""

    made: str
    bytes: int
    has_key: bool


def backup(store: Store, path: Path, *, key: bool = True, force: bool = False) -> Backup:
    """Write the catalog and the key of a store to one file with checksums that only its owner can read.

    Others may write to the store meanwhile; the backup has one state of it. Index files are left out, and so is the key
    if `key` is false. A file that is not a backup is replaced only with `force`. Raises OutputError if the file can't
    be written or replaced, StoreCorrupt if the catalog is damaged, and StoreError for a store in PostgreSQL or if the
    key can't be read.
    """
    output = Output(path, BACKUP, force, private=True)
    require_outputs(output)
    require_not_of_archive(store, output)
    if not store.catalog.in_sqlite:
        raise StoreError(
            f"the store {store.label} is in PostgreSQL and can't be written to a file by medlens",
            hint="Run `pg_dump --format=custom --file=FILE DATABASE`, copy the store's pseudonym.key, and keep the "
            "list that `medlens backup --erasures FILE` writes beside them.",
        )
    secret = store.pseudonym_key if key else None
    with output.whole() as temporary, _folder_beside(temporary) as folder:
        made = _now()
        store.catalog.copy_to(folder / CATALOG_FILE)
        if secret is not None:
            write_key(folder / KEY_FILE, secret)
        names = (CATALOG_FILE, KEY_FILE)[: 1 + (secret is not None)]
        facts = BackupFacts(
            store_id=store.place.store_id,
            schema=store.catalog.schema,
            made=made,
            key_check=str(store.manifest.get("pseudonym_key_check")),
            files={name: member_of(folder / name) for name in names},
        )
        write_backup(temporary, folder, facts)
        if temporary.is_file():
            sync(temporary)
    return Backup(made, facts.files[CATALOG_FILE].bytes, facts.has_key)


def write_erasures(store: Store, path: Path, *, force: bool = False) -> int:
    """Write the list of what a store has erased and keeps out, for a later `restore`.

    Returns the number of digests. They reveal nothing without the key of the store. What was erased without being kept
    out is not in the list. Raises OutputError.
    """
    output = Output(path, ERASURES, force, private=True)
    require_outputs(output)
    require_not_of_archive(store, output)
    listed = erasures_of(store)
    output.write_text(listed.to_json(_now()))
    return len(listed.digests)


def erasures_of(store: Store) -> ErasureList:
    """Return the list of what a store has erased and keeps out."""
    return ErasureList(str(store.manifest.get("pseudonym_key_check")), store.catalog.instances.erasures())


@contextmanager
def _folder_beside(output: Path) -> Iterator[Path]:
    """Make a temporary folder for the copy of the catalog: beside the output, or anywhere if the output is a pipe.

    The unfinished files of an earlier backup to this output, which was killed, are removed.
    """
    if not output.is_file():
        with tempfile.TemporaryDirectory() as made:
            yield Path(made)
        return
    name, number, _ = output.name.rsplit(".", 2)  # .NAME.HEX.tmp
    for path in unfinished(output.parent):
        if path.name.startswith(f"{name}."):
            remove(path)
    folder = output.with_name(f"{name}.{number}.parts.tmp")
    folder.mkdir(0o700)
    try:
        yield folder
    finally:
        remove(folder)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
