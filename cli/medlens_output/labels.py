"""The labels of an image as a row: nested for JSON, flat for CSV and Parquet, short for people."""

from __future__ import annotations

from typing import Any, Literal

from retrieval.zeroshot.labelling import ImageLabels

Layout = Literal["nested", "flat", "short"]
UNKNOWN = "unknown"
_HIGHEST = 3  # labels in a short row


def label_row(labels: ImageLabels, layout: Layout) -> dict[str, Any]:
    """What was decided, then the values: all of them, the best first (nested); a column for each label in the set's
    order (flat); or the highest (short)."""
    row = _decided(labels)
    if layout == "flat":
        return row | {f"{_word(labels)}.{n}": None if v is None else round(v, 6) for n, v in labels.values.items()}
    values = {name: value for name, value in labels.values.items() if value is not None}
    if layout == "nested":
        rounded = {name: round(value, 6) for name, value in values.items()}
        words = "probabilities" if labels.calibrated else "scores"
        return row | {words: dict(sorted(rounded.items(), key=lambda item: -item[1]))}
    ranked = sorted(values.items(), key=lambda item: -item[1])
    shown = ranked[1:_HIGHEST] if labels.exclusive else ranked[:_HIGHEST]
    return row | {"then" if labels.exclusive else "highest": [f"{name} {value:.2f}" for name, value in shown]}


def _word(labels: ImageLabels) -> str:
    return "probability" if labels.calibrated else "score"


def _decided(labels: ImageLabels) -> dict[str, Any]:
    row: dict[str, Any] = {}
    if labels.exclusive:
        value = None if labels.label is None else labels.values[labels.label]
        row["label"] = labels.label or UNKNOWN
        row[_word(labels)] = None if value is None else round(value, 6)
    for name in ("found", "present", "uncertain", "possible"):
        chosen = getattr(labels, name)
        if chosen is not None:
            row[name] = list(chosen)
    if labels.unknown is not None:
        row["unknown"] = labels.unknown
    return row
