"""The BM25 index of a store's reports beside its vectors: derived, mapped when opened, built anew when reports change.

It holds words of reports, so what is deleted from the catalog must leave it: a file whose mark is not the catalog's is
replaced, by `Store.refresh` at the latest. A reader that has mapped the old files keeps them until it closes.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from indexer.catalog.sql_catalog import SqlCatalog
from indexer.on_disk import locked
from retrieval.bounded import read_json
from retrieval.errors import StoreError
from retrieval.on_disk import folder_written_whole
from retrieval.search.bm25 import ReportIndex, build_report_index

log = logging.getLogger(__name__)

FOLDER = "reports"
STALE = "it may hold words of reports that were deleted"
_MARK = "mark.json"
_MOST_MARK = 1 << 20  # bytes
_VERSION = 5  # of the words' treatment and the files


def open_report_index(parent: Path, catalog: SqlCatalog, store_id: str) -> ReportIndex:
    """The index in the folder `reports` of `parent`; built and written there if it is missing, damaged or outdated.

    An index that can't be written is used all the same, with a warning.
    """
    state = catalog.reports.mark()
    mark = {"store_id": store_id, "mark": state, "version": _VERSION}
    folder = parent / FOLDER
    try:
        written = _mark_of(folder)
        if written == mark | {"checksums": written["checksums"]}:
            return ReportIndex.load(folder, written["checksums"])
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as exc:
        log.warning("the index of the reports is damaged (%s); building it anew", type(exc).__name__)
    index = build_report_index(catalog.reports.texts())
    try:
        with locked(parent):
            if catalog.reports.mark()[1] == state[1]:  # else it has what was deleted meanwhile
                _write(index, parent, mark)
    except OSError as exc:
        log.warning("the index of the reports can't be written: %s", exc.strerror or type(exc).__name__)
    return index


def refresh_report_index(parent: Path, catalog: SqlCatalog, store_id: str) -> None:
    """Bring the files up to the catalog. StoreError if that fails while they hold words of deleted reports."""
    while True:
        last_deletion = catalog.reports.mark()[1]
        open_report_index(parent, catalog, store_id)
        try:
            written = _mark_of(parent / FOLDER)
            if written["store_id"] == store_id and written["mark"][1] >= last_deletion:
                return
        except FileNotFoundError:
            return
        except (OSError, ValueError) as exc:
            log.info("what the index of the reports is of can't be read: %s", type(exc).__name__)
        if catalog.reports.mark()[1] == last_deletion:  # else somebody deleted more while it was built
            raise StoreError(
                "the index of the reports can't be replaced, and may hold words of reports that were deleted",
                hint=f"Delete the folder {FOLDER!r} in the store; it is built anew.",
            )


def report_index_problem(parent: Path, catalog: SqlCatalog, store_id: str) -> str | None:
    """What is wrong with the files; None if nothing is, or there are none. That they lack new reports is not wrong."""
    folder = parent / FOLDER
    if not folder.exists():
        return None
    try:
        mark = _mark_of(folder)
        if mark["version"] != _VERSION:
            return None  # of another medlens: it is replaced when it is opened
        ReportIndex.load(folder, mark["checksums"])
    except (OSError, ValueError) as exc:
        return f"it is damaged ({type(exc).__name__})"
    if mark["store_id"] != store_id:
        return "it belongs to another store"
    return STALE if mark["mark"][1] < catalog.reports.mark()[1] else None


def _mark_of(folder: Path) -> dict[str, Any]:
    """What the files are of. OSError or ValueError if they don't say."""
    mark = read_json(folder / _MARK, _MOST_MARK)
    known = isinstance(mark, dict) and {"store_id", "mark", "version"} <= mark.keys()
    if not known or not (isinstance(mark["mark"], list) and [type(n) for n in mark["mark"]] == [int, int]):
        raise ValueError("the mark of the report index says too little")
    checksums = mark.setdefault("checksums", {})  # none before version 5
    if not isinstance(checksums, dict):
        raise ValueError("the checksums of the report index are not a table")
    return mark


def _write(index: ReportIndex, parent: Path, mark: dict[str, Any]) -> None:
    """Into a folder beside the place, then moved there: a reader sees the old files, the new ones, or none."""
    with folder_written_whole(parent / FOLDER, like=parent) as made:
        checksums = index.save(made)
        (made / _MARK).write_text(json.dumps(mark | {"checksums": checksums}), encoding="utf-8")
