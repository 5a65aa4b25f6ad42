"""`medlens index`: wiring and its summary."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from cli.medlens_progress import duration
from cli.medlens_run_log import said, told_to_people, told_to_programs
from indexer.reading.frames import FramePolicy
from indexer.records import IndexReport
from indexer.run.options import IndexOptions, Progress, Shard
from indexer.run.pipeline import index_archive
from indexer.sources.folders import Folder, iter_files
from indexer.store.store import Store, is_url
from retrieval.encoders.clip import ClipEncoder
from retrieval.encoders.model_source import resolve_model
from retrieval.errors import MedlensError, StoreNotFound

logger = logging.getLogger(__name__)


def run_index(
    archives: Sequence[Path],
    location: str,
    model: str | None,
    device: str,
    *,
    frames: FramePolicy = FramePolicy(),
    workers: int | None = None,
    prune: bool = False,
    keep_descriptions: bool = True,
    shard: Shard = Shard(),
    readmit: bool = False,
    log_json: bool = False,
) -> IndexReport:
    """Open or make the store, load the model, index. Nothing is made if there is nothing to index.

    Progress is told on stderr, as JSON lines with `log_json`, not at all where only errors are to be said.
    """
    place: str | Path = location if is_url(location) else Path(location)
    skip = () if isinstance(place, str) else (place,)
    try:
        store = Store.open(place)
    except StoreNotFound:
        _require_files(archives, skip)
        encoder = ClipEncoder.from_source(resolve_model(model), device)
        store = Store.create(place, encoder.spec.to_json())
    else:
        encoder = encoder_of(store, model, device)

    def index(tell: Callable[[Progress], None]) -> IndexReport:
        return index_archive(
            [Folder(archive, skip) for archive in archives],
            store,
            encoder,
            IndexOptions(frames, workers, prune, shard, readmit, keep_descriptions),
            on_progress=tell,
        )

    with store:
        if log_json:
            with told_to_programs(encoder.name, str(encoder.device), len(archives)) as log:
                report = index(log.tell)
                log.write("done", **outcome_row(report))
                return report
        if not logger.isEnabledFor(logging.WARNING):
            return index(lambda progress: None)
        with told_to_people(loads=logger.isEnabledFor(logging.INFO)) as tell:
            report = index(tell)
        logger.info(said(report.loads))
        return report


def encoder_of(store: Store, model: str | None, device: str) -> ClipEncoder:
    """The store's own model, or the one asked for if it is the same. Raises StoreIncompatible otherwise."""
    encoder = ClipEncoder.from_source(resolve_model(model or store.model["source"]), device)
    store.require_model(encoder.spec.to_json())
    return encoder


def summary(report: IndexReport) -> list[str]:
    """The report in a few lines for people."""
    rate = report.frames / report.seconds if report.seconds else 0.0
    lines = [
        f"indexed {report.indexed} files ({report.frames} frames, {report.reports} reports) "
        f"in {duration(report.seconds)}" + (f", {rate:.0f} frames/s" if report.frames else "")
    ]
    for count, what in (
        (report.unchanged, "unchanged"),
        (report.updated, "updated"),
        (report.removed, "removed"),
        (report.moved, "moved: their vectors were kept"),
        (report.erased, "erased before, and kept out (--readmit takes them in)"),
        (report.duplicates, "copies of indexed files"),
    ):
        if count:
            lines.append(f"  {count} {what}")
    if report.not_embedded:
        kinds = ", ".join(f"{modality} {n}" for modality, n in sorted(report.not_embedded.items()))
        lines.append(f"  {sum(report.not_embedded.values())} catalogued but not embedded, being no images: {kinds}")
    if report.rejected:
        lines.append(f"  {len(report.rejected)} rejected:")
        lines += [f"    {n:6d}  {reason}" for reason, n in Counter(r.reason for r in report.rejected).most_common()]
        lines.append("  (--report FILE lists them)")
    return lines


def outcome_row(report: IndexReport) -> dict[str, Any]:
    """The report as one row of plain values."""
    values = {k: v for k, v in vars(report).items() if k not in ("rejected", "warnings")}
    return values | {"rejected": dict(Counter(r.reason for r in report.rejected))}


def _require_files(archives: Sequence[Path], skip: Sequence[Path]) -> None:
    if not any(list(islice(iter_files(a, skip=skip, on_rejection=lambda r: None), 1)) for a in archives):
        names = ", ".join(repr(a.name or str(a)) for a in archives)
        raise MedlensError(f"there are no files in {names}", hint="Name a folder that holds DICOM files, at any depth.")
