"""The BM25 index of a store's reports: derived, mapped when it is opened, and rebuilt when reports change.

It contains words of reports, so deleted reports must leave it: files whose mark differs from the catalog's are
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
_VERSION = 6  # of the words' treatment and the files


def open_report_index(parent: Path, catalog: SqlCatalog, store_id: str) -> ReportIndex:
    """Open the index in the folder `reports` of `parent`.

    It is built and written if it is missing, damaged or outdated.

    An index that can't be written is used nevertheless, with a warning.
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
        log.warning("the report index is damaged (%s); it is rebuilt", type(exc).__name__)
    index = build_report_index(catalog.reports.texts())
    try:
        with locked(parent):
            if catalog.reports.mark()[1] == state[1]:  # otherwise it contains what was deleted meanwhile
                _write(index, parent, mark)
    except OSError as exc:
        log.warning("the report index can't be written: %s", exc.strerror or type(exc).__name__)
    return index


def refresh_report_index(parent: Path, catalog: SqlCatalog, store_id: str) -> None:
    """Update the files from the catalog.

    Raises StoreError if that fails while they contain words of deleted reports.
    """
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
            log.info("the state of the report index can't be read: %s", type(exc).__name__)
        if catalog.reports.mark()[1] == last_deletion:  # otherwise more was deleted while it was built
            raise StoreError(
                "the report index can't be replaced, and it may contain words of deleted reports",
                hint=f"Delete the folder {FOLDER!r} in the store; medlens rebuilds it.",
            )


def report_index_problem(parent: Path, catalog: SqlCatalog, store_id: str) -> str | None:
    """What is wrong with the files; None if nothing is, or there are none. Missing new reports are not an error."""
    folder = parent / FOLDER
    if not folder.exists():
        return None
    try:
        mark = _mark_of(folder)
        if mark["version"] != _VERSION:
            return None  # written by another medlens: it is replaced when it is opened
        ReportIndex.load(folder, mark["checksums"])
    except (OSError, ValueError) as exc:
        return f"it is damaged ({type(exc).__name__})"
    if mark["store_id"] != store_id:
        return "it belongs to another store"
    return STALE if mark["mark"][1] < catalog.reports.mark()[1] else None


def _mark_of(folder: Path) -> dict[str, Any]:
    """Return the state of the catalog that the files have. Raises OSError or ValueError if they don't state it."""
    mark = read_json(folder / _MARK, _MOST_MARK)
    if not isinstance(mark, dict) or not {"store_id", "mark", "version"} <= mark.keys():
        raise ValueError("the description of the report index is incomplete")
    if not isinstance(mark["mark"], list) or [type(number) for number in mark["mark"]] != [int, int]:
        raise ValueError("the description of the report index does not state its state")
    checksums = mark.setdefault("checksums", {})  # none before version 5
    if not isinstance(checksums, dict):
        raise ValueError("the checksums of the report index are not a table")
    return dict(mark)


def _write(index: ReportIndex, parent: Path, mark: dict[str, Any]) -> None:
    """Write into a folder beside the place and move it there: a reader sees the old files, the new ones, or none."""
    with folder_written_whole(parent / FOLDER, like=parent) as made:
        checksums = index.save(made)
        (made / _MARK).write_text(json.dumps(mark | {"checksums": checksums}), encoding="utf-8")
