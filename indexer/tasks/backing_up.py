"""`medlens backup`: a store in one file, as of one moment, while others write; or the list of what it has erased."""

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
    """What was written. `made` is when the state was taken, in UTC; `bytes` are those of the catalog."""

    made: str
    bytes: int
    has_key: bool


def backup(store: Store, path: Path, *, key: bool = True, force: bool = False) -> Backup:
    """Write the catalog and the key of a store to one file with checksums, which only its owner can read.

    Others may write to the store meanwhile: the backup has one state of it. What is derived from the catalog is left
    out, and so is the key without `key`. A file that is no backup is replaced with `force` only. Raises OutputError if
    the file can't be written or replaced, StoreCorrupt for a damaged catalog, StoreError for a store in PostgreSQL, and
    if the key can't be read.
    """
    output = Output(path, BACKUP, force, private=True)
    require_outputs(output)
    require_not_of_archive(store, output)
    if not store.catalog.in_sqlite:
        raise StoreError(
            f"the store {store.label} is in PostgreSQL, whose own tools back it up",
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
    """Write the list of what a store has erased and keeps out, for a later `restore`; how many digests.

    They say nothing without the store's key. What was erased without being kept out is not among them. Raises
    OutputError.
    """
    output = Output(path, ERASURES, force, private=True)
    require_outputs(output)
    require_not_of_archive(store, output)
    listed = erasures_of(store)
    output.write_text(listed.to_json(_now()))
    return len(listed.digests)


def erasures_of(store: Store) -> ErasureList:
    """What a store has erased and keeps out."""
    return ErasureList(str(store.manifest.get("pseudonym_key_check")), store.catalog.instances.erasures())


@contextmanager
def _folder_beside(output: Path) -> Iterator[Path]:
    """A folder for the catalog's copy on the disk of the output, known by its name as unfinished; for a pipe, anywhere.

    What an earlier backup to this output has left of its own, because it was killed, goes.
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
