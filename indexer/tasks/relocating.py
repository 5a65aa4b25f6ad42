"""`medlens relocate`: an archive that lies elsewhere now is known by its new place, and nothing is read anew."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from indexer.run.moves import Sample, compared
from indexer.sources.opening import source_at
from indexer.store.store import Store
from retrieval.errors import FileUnreadable, StoreError


@dataclass(frozen=True)
class Relocation:
    """What was done with an archive: how many indexed `files` it has, and whether they are known by the new place.

    Of a sample of them, `looked_at` were looked for there: so many have the `same` bytes, have `differing` ones, or are
    `missing`.
    """

    files: int
    relocated: bool
    looked_at: int = 0
    same: int = 0
    differing: int = 0
    missing: int = 0


def relocate(
    store: Store, old: str | Path, new: str | Path, *, check: bool = True, dry_run: bool = False
) -> Relocation:
    """Know the archive at `old`, a folder, a file or a URL, by its new place `new`. Other archives stay as they are.

    A sample of the archive's files is compared with what is at the new place; without `check` nothing there is looked
    at. With `dry_run` nothing is changed. Raises StoreError if the store has no archive at `old` or has one at `new`,
    and if none of the sample is at the new place with the same bytes.
    """
    roots = store.catalog.files.archive_roots()
    archive_id = _archive_at(old, roots)
    root = _place(new)
    if root in roots.values():
        raise StoreError(
            f"the store {store.label} has an archive at {_name(root)} already",
            hint=f"Run `medlens index` on {_name(root)}: it takes over what is no longer at the old place.",
        )
    sample = _sample(store, archive_id, root, str(old)) if check else Sample()
    moved = not dry_run and store.catalog.files.relocate(archive_id, root)
    if not moved and not dry_run:
        raise StoreError(
            f"another process has just added an archive at {_name(root)} to the store {store.label}",
            hint="Run the same command again.",
        )
    return Relocation(store.catalog.files.count(archive_id), moved, **vars(sample))


def _sample(store: Store, archive_id: int, root: str, old: str) -> Sample:
    try:
        source = source_at(root)
    except FileUnreadable as exc:
        raise StoreError(str(exc), hint="Give a folder, or --no-check to change the place without looking.") from exc
    sample = compared(store.catalog, archive_id, source)
    if sample.looked_at and not sample.same:
        raise StoreError(
            f"none of {sample.looked_at} files of {_name(old)} is in {_name(root)} with the same bytes: "
            f"{sample.missing} are missing, {sample.differing} differ",
            hint="Name the folder that holds now what the old one held: the paths below it are the same. "
            "For files in other folders, run `medlens index` on the new place: it knows them by their content.",
        )
    return sample


def _archive_at(old: str | Path, roots: dict[int, str]) -> int:
    """The archive whose root is `old`: as it stands in the catalog, or as a path, through links if they are there."""
    wanted = (str(old), os.path.abspath(old), _place(old))  # noqa: PTH100 - without following links
    found = next((archive_id for archive_id, root in roots.items() if root in wanted), None)
    if found is None:
        there = ", ".join(_name(root) for root in roots.values()) or "none"
        raise StoreError(
            f"the store has no archive at {_name(str(old))}; it has {there}",
            hint="Give the whole path under which it was indexed: `medlens select --level instance` shows it as "
            "archive_root.",
        )
    return found


def _place(place: str | Path) -> str:
    """A root as the catalog has it."""
    return str(place) if "://" in str(place) else str(Path(place).resolve())


def _name(root: str) -> str:
    """What messages call a place: no folders."""
    return repr(root if "://" in root else Path(root).name or root)
