"""`medlens relocate`: tell a store the new place of an archive. Nothing is decoded or encoded again."""

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
    """What was done with an archive.

    - `files`: the number of its indexed files
    - `relocated`: whether the store knows it by its new place now
    - `looked_at`: the number of files that were compared; of these, `same` have the same content at the new place,
      `differing` have different content, and `missing` are not there
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
    """Change the place of the archive at `old` (a folder, a file or a URL) to `new`. Other archives are not changed.

    A sample of its files is compared with the files at the new place, unless `check` is false. With `dry_run` nothing
    is changed. Raises StoreError if the store has no archive at `old`, if it already has one at `new`, or if no file of
    the sample is at the new place with the same content.
    """
    roots = store.catalog.files.archive_roots()
    archive_id = _archive_at(old, roots)
    root = _place(new)
    if root in roots.values():
        raise StoreError(
            f"the store {store.label} already has an archive at {_name(root)}",
            hint=f"Run `medlens index` on {_name(root)}: it takes over the files that are gone from the old place.",
        )
    sample = _sample(store, archive_id, root, str(old)) if check else Sample()
    moved = not dry_run and store.catalog.files.relocate(archive_id, root)
    if not moved and not dry_run:
        raise StoreError(
            f"another process has just added an archive at {_name(root)} to the store {store.label}",
            hint="Run `medlens index` on it.",
        )
    return Relocation(store.catalog.files.count(archive_id), moved, **vars(sample))


def _sample(store: Store, archive_id: int, root: str, old: str) -> Sample:
    try:
        source = source_at(root)
    except FileUnreadable as exc:
        raise StoreError(str(exc), hint="Give a folder, or add --no-check to change the place unchecked.") from exc
    sample = compared(store.catalog, archive_id, source)
    if sample.looked_at and not sample.same:
        raise StoreError(
            f"none of {sample.looked_at} files of {_name(old)} is in {_name(root)} with the same content: "
            f"{sample.missing} are missing, {sample.differing} differ",
            hint="Name the folder in which the files have the same paths as before. If their paths have changed, run "
            "`medlens index` on the new place: it recognises the files by their content.",
        )
    return sample


def _archive_at(old: str | Path, roots: dict[int, str]) -> int:
    """Return the archive whose root is `old`, as the catalog has it or as a path, with links resolved."""
    wanted = (str(old), os.path.abspath(old), _place(old))  # noqa: PTH100 - without following links
    found = next((archive_id for archive_id, root in roots.items() if root in wanted), None)
    if found is None:
        there = ", ".join(_name(root) for root in roots.values()) or "none"
        raise StoreError(
            f"the store has no archive at {_name(str(old))}; it has {there}",
            hint="Give the full path at which it was indexed; `medlens select --level instance` shows it as "
            "archive_root.",
        )
    return found


def _place(place: str | Path) -> str:
    """Return a root as the catalog has it."""
    return str(place) if "://" in str(place) else str(Path(place).resolve())


def _name(root: str) -> str:
    """Return the name of a place for messages, without its folders."""
    return repr(root if "://" in root else Path(root).name or root)
