"""The report of an indexing run, in a few lines for people or as one row."""

from __future__ import annotations

from collections import Counter
from typing import Any

from cli.medlens_output.progress import duration
from indexer.records import IndexReport
from indexer.run.batches import TOO_LONG


def summary(report: IndexReport) -> list[str]:
    """Return the report as a few lines for people."""
    rate = report.frames / report.seconds if report.seconds else 0.0
    lines = [
        f"indexed {report.indexed} files ({report.frames} frames, {report.reports} reports) "
        f"in {duration(report.seconds)}" + (f", {rate:.0f} frames/s" if report.frames else "")
    ]
    for count, what in (
        (report.unchanged, "unchanged"),
        (report.updated, "updated"),
        (report.removed, "removed"),
        (report.relocated, "in an archive that has moved; known by its new place"),
        (report.moved, "moved; their vectors were kept"),
        (report.vanished, "vanished from the archive; they stay in the store until you add --prune"),
        (report.erased, "left out because they were erased before (add --readmit to index them)"),
        (report.duplicates, "copies of indexed files"),
    ):
        if count:
            lines.append(f"  {count} {what}")
    if too_long := report.warnings.get(TOO_LONG):
        lines.append(
            f"  {too_long} reports have a sentence that is longer than the model reads: its end is found by words"
        )
    if report.not_embedded:
        kinds = ", ".join(f"{modality} {n}" for modality, n in sorted(report.not_embedded.items()))
        lines.append(
            f"  {sum(report.not_embedded.values())} catalogued without embedding, because they are not images: {kinds}"
        )
    if report.rejected:
        lines.append(f"  {len(report.rejected)} rejected:")
        lines += [f"    {n:6d}  {reason}" for reason, n in Counter(r.reason for r in report.rejected).most_common()]
        lines.append("  (add --report FILE to list them)")
    return lines


def outcome_row(report: IndexReport) -> dict[str, Any]:
    """Return the report as one row of plain values."""
    values = {k: v for k, v in vars(report).items() if k not in ("rejected", "warnings")}
    values["reports_with_long_sentences"] = report.warnings.get(TOO_LONG, 0)
    return values | {"rejected": dict(Counter(r.reason for r in report.rejected))}
