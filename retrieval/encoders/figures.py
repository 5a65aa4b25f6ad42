"""The headline of a model's figures, from the metrics.json that `medlens train` writes beside its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retrieval.bounded import read_json

METRICS_NAME = "metrics.json"
_MOST_BYTES = 4 << 20
_AT = "10"


def read_figures(folder: Path) -> str | None:
    """Recall at 10 both ways on the first set of dev rows, in one line; None if the folder states none."""
    try:
        values = read_json(folder / METRICS_NAME, _MOST_BYTES)
        name, figures = next(iter(values["retrieval"].items()))
        there, back = (_share(figures[way][_AT]) for way in ("image_to_text", "text_to_image"))
        return f"R@{_AT} on {int(figures['images'])} dev images of {str(name)[:60]}: {there} to text, {back} to image"
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration):
        return None


def _share(figure: Any) -> str:
    return f"{100 * float(figure['value']):.0f} %"
