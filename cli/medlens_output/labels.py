"""The labels of an image as a row: nested for JSON, flat for CSV and Parquet, short for a table."""

from __future__ import annotations

from typing import Any, Literal

from retrieval.zeroshot.labeller import ImageLabels

Layout = Literal["nested", "flat", "short"]
UNKNOWN = "unknown"
# The columns of labels begin with one of these.
DECIDED = ("label", "score", "probabilit", "found", "present", "uncertain", "possible", "unknown", "then", "highest")
_HIGHEST = 3  # labels in a short row


def label_row(labels: ImageLabels, layout: Layout) -> dict[str, Any]:
    """Return the decisions, then the scores or probabilities.

    `nested` has all of them, best first; `flat` has a column per label, in the order of the set; `short` has the
    highest ones.
    """
    word = "probability" if labels.calibrated else "score"
    row = _decided(labels, word)
    if layout == "flat":
        return row | {f"{word}.{name}": None if v is None else round(v, 6) for name, v in labels.values.items()}
    if layout == "nested":
        rounded = {name: round(value, 6) for name, value in labels.values.items() if value is not None}
        words = "probabilities" if labels.calibrated else "scores"
        return row | {words: dict(sorted(rounded.items(), key=lambda item: -item[1]))}
    values = [(name, value) for name, value in labels.values.items() if value is not None]
    ranked = sorted(values, key=lambda item: -item[1])
    shown = ranked[1:_HIGHEST] if labels.exclusive else ranked[:_HIGHEST]
    return row | {"then" if labels.exclusive else "highest": [f"{name} {value:.2f}" for name, value in shown]}


def _decided(labels: ImageLabels, word: str) -> dict[str, Any]:
    row: dict[str, Any] = {}
    if labels.exclusive:
        value = None if labels.label is None else labels.values[labels.label]
        row["label"] = labels.label or UNKNOWN
        row[word] = None if value is None else round(value, 6)
    for name in ("found", "present", "uncertain", "possible"):
        chosen = getattr(labels, name)
        if chosen is not None:
            row[name] = list(chosen)
    if labels.unknown is not None:
        row["unknown"] = labels.unknown
    return row
