"""Check a whole store: every row, every vector, the index files, the key; and repair what can be repaired.

Derived files are rebuilt. Rows that can't be trusted, such as a damaged vector or half an instance, are removed, so
that the next `medlens index` reads and encodes those files again. Damaged database pages and a missing key can't be
repaired here: they need a backup.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np

from indexer.catalog.checks import CatalogChecks
from indexer.catalog.claims import Claims
from indexer.sources.opening import source_at
from indexer.sources.source import Source
from indexer.store.report_index import STALE
from indexer.store.store import Store
from indexer.vector_sets import VECTOR_SETS, VectorKind
from retrieval.errors import FileUnreadable, StoreCorrupt, StoreError

log = logging.getLogger(__name__)

_BATCH = 4096
_AGAIN = "removed from the store; run `medlens index` on the archive again"


@dataclass(frozen=True)
class Check:
    """One check. `looked_at` is the number of things checked, `wrong` how many of them are wrong.

    `detail` says what is wrong and what to do; `repaired` whether nothing remains to be done except to index again.
    """

    name: str
    looked_at: int
    wrong: int = 0
    detail: str = ""
    repaired: bool = False

    @property
    def sound(self) -> bool:
        return not self.wrong or self.repaired


OnCheck = Callable[[Check], None]


def verify_store(
    store: Store, *, files: bool = False, repair: bool = False, on_check: OnCheck = lambda check: None
) -> list[Check]:
    """Check everything in a store; with `files`, also whether the files of the archives exist unchanged.

    With `repair`, repair what can be repaired. Each Check goes to `on_check` as soon as it is done.
    """
    checks = store.catalog.checks
    steps: dict[str, Callable[[], Check]] = {
        "database": lambda: _database(checks),
        "tables": lambda: _tables(checks),
        "values": lambda: _values(checks),
        "key": lambda: _key(store, repair),
        "rows": lambda: _orphan_rows(checks, store.catalog.counts().instances, repair),
        "indexed files": lambda: _files_without_instances(checks, store.catalog.counts().files, repair),
        "images": lambda: _images_without_frames(checks, store.catalog.counts().instances, repair),
        "counts": lambda: _counts(checks, store.catalog.counts().instances, repair),
        **{f"{kind} vectors": partial(_vectors, store, kind, repair) for kind in VECTOR_SETS},
        **{f"{kind} index": partial(_index, store, kind, repair) for kind in VECTOR_SETS},
        "report index": lambda: _report_index(store, repair),
        "leftovers": lambda: _leftovers(store, repair),
        "dead workers": lambda: _leases(store.catalog.claims, repair),
    }
    if files:
        steps["files"] = lambda: _files(store)
    done = []
    for name, step in steps.items():
        try:
            check = step()
        except StoreCorrupt as exc:  # as far as it could be read
            check = Check(name, 1, 1, f"{exc}. {exc.hint or ''}".strip())
        on_check(check)
        done.append(check)
    return done


def _database(checks: CatalogChecks) -> Check:
    found = checks.integrity()
    detail = f"{found[0]}; restore a backup, or index the archive into a new store" if found else ""
    return Check("database", 1, len(found), detail)


def _tables(checks: CatalogChecks) -> Check:
    looked_at, missing = checks.missing_columns()
    detail = f"{', '.join(missing)} missing; restore a backup, or index the archive into a new store"
    return Check("tables", looked_at, len(missing), detail if missing else "")


def _values(checks: CatalogChecks) -> Check:
    looked_at, found = checks.mistyped()
    columns = ", ".join(f"{name} ({rows} rows)" for name, rows in found.items())
    detail = f"{columns} of another type than the column; restore a backup, or index the archive into a new store"
    return Check("values", looked_at, len(found), detail if found else "")


def _key(store: Store, repair: bool) -> Check:
    try:
        store.pseudonym_key  # noqa: B018 - reading it checks it
    except StoreError as exc:
        return Check("key", 1, 1, f"{exc}. {exc.hint or ''}".strip())
    mode = store.place.key_mode()
    if not mode & 0o077:
        return Check("key", 1)
    if repair:
        store.place.protect_key()
    return Check("key", 1, 1, f"others may read it (mode {mode:04o}, expected 0600)", repaired=repair)


def _orphan_rows(checks: CatalogChecks, instances: int, repair: bool) -> Check:
    found = checks.orphan_rows()
    wrong = sum(map(len, found.values()))
    if wrong and repair:
        checks.drop_orphan_rows(found)
    detail = ", ".join(f"{len(ids)} {name} hang on nothing" for name, ids in found.items())
    return Check("rows", instances, wrong, detail, repaired=repair)


def _files_without_instances(checks: CatalogChecks, files: int, repair: bool) -> Check:
    ids = checks.files_without_instances()
    if ids and repair:
        checks.drop_files(ids)
    detail = (
        "the catalog calls files indexed whose content it does not have; "
        f"{_AGAIN if repair else '--repair makes the next run read them again'}"
    )
    return Check("indexed files", files, len(ids), detail if ids else "", repaired=repair)


def _images_without_frames(checks: CatalogChecks, instances: int, repair: bool) -> Check:
    ids = checks.images_without_frames()
    if ids and repair:
        checks.drop_instances(ids)
    detail = (
        f"images have no frame in the catalog; {_AGAIN if repair else '--repair makes the next run read them again'}"
    )
    return Check("images", instances, len(ids), detail if ids else "", repaired=repair)


def _counts(checks: CatalogChecks, instances: int, repair: bool) -> Check:
    found = checks.miscounted()
    ids = sorted({one for some in found.values() for one in some})
    if ids and repair:
        checks.drop_instances(ids)
    what = ", ".join(f"{len(some)} {what}" for what, some in found.items())
    detail = f"{what}; {_AGAIN if repair else '--repair makes the next run read them again'}"
    return Check("counts", instances, len(ids), detail if ids else "", repaired=repair)


def _vectors(store: Store, kind: VectorKind, repair: bool) -> Check:
    count, bad = store.catalog.vectors.bad(kind, int(store.model["embed_dim"]))
    if bad and repair:
        store.catalog.checks.drop_instances(store.catalog.vectors.instances_of(kind, bad))
    detail = (
        "vectors have a wrong size, are not finite or do not have unit norm; "
        f"{_AGAIN if repair else '--repair makes the next run encode them again'}"
    )
    return Check(f"{kind} vectors", count, len(bad), detail if bad else "", repaired=repair)


def _index(store: Store, kind: VectorKind, repair: bool) -> Check:
    """Check every id and every vector of the index that searches would use, and its file."""
    name = f"{kind} index"
    problem = store.derived.index_file_problem(kind)
    index = store.index(kind)
    ids = index.ids
    looked_at, wrong = len(ids), int(problem is not None)
    for start in range(0, len(ids), _BATCH):
        part = ids[start : start + _BATCH]
        found, vectors = store.catalog.vectors.vectors_of(part.tolist(), kind)
        wrong += len(part) - len(found)  # not in the catalog
        wrong += int((vectors.view(np.uint16) != index.vectors_of(found).view(np.uint16)).any(axis=1).sum())
    wrong += max(store.catalog.vectors.count(kind) - looked_at, 0)
    if not wrong:
        return Check(name, looked_at)
    if repair:
        store.derived.rebuild()
    how = "built anew" if repair else "--repair builds it anew"
    return Check(name, looked_at, wrong, f"{problem or 'it differs from the catalog'}; {how}", repaired=repair)


def _report_index(store: Store, repair: bool) -> Check:
    """Check the report index. An outdated one is not an error: the next search updates it."""
    before = store.derived.report_index_problem()
    store.reports_index()
    problem = store.derived.report_index_problem() or (before if before != STALE else None)
    if problem and repair:
        store.refresh()
    detail = f"{problem}; {'rebuilt' if repair else '--repair rebuilds it'}" if problem else ""
    return Check("report index", 1, int(problem is not None), detail, repaired=repair)


def _leftovers(store: Store, repair: bool) -> Check:
    """A repair leaves the files of the indexes as the catalog has them, also where one before it was stopped."""
    found = store.derived.leftovers()
    if repair:
        store.refresh()
    detail = "unfinished files of a process that was killed; they may contain vectors and words of reports"
    return Check("leftovers", len(found), len(found), detail if found else "", repaired=repair)


def _leases(claims: Claims, repair: bool) -> Check:
    """Check for leases of processes that have ended.

    Every indexing run drops them, with their claims, when it begins.
    """
    looked_at, dead = claims.lease_count(), claims.expired_leases()
    if dead and repair:
        claims.drop_expired_leases()
    detail = "processes ended while they were indexing; the next run takes over their files" if dead else ""
    return Check("dead workers", looked_at, len(dead), detail, repaired=repair)


def _files(store: Store) -> Check:
    started, looked_at, gone, changed = time.monotonic(), 0, 0, 0
    for archive, root in store.catalog.files.archive_roots().items():
        source: Source | None = None
        with suppress(FileUnreadable):  # a kind of source that can't be read: all its files count as missing
            source = source_at(root)
        for path, known in store.catalog.files.known(archive):
            if known.status != "indexed":
                continue
            looked_at += 1
            found = source.stat(path) if source is not None else None
            gone += found is None
            changed += found is not None and found.version != known.version
    log.info("checked %d files in %.1f s", looked_at, time.monotonic() - started)
    detail = (
        f"{gone} files are missing and {changed} have changed; run `medlens index` on the archive "
        "again, with --prune to remove the missing ones"
    )
    return Check("files", looked_at, gone + changed, detail if gone + changed else "")
