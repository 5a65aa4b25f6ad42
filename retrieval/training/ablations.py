"""Tables of ablations for the model card, from the files that benchmarks/ablations.py writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrieval.errors import TrainingError


def ablation_lines(paths: Sequence[Path]) -> list[str]:
    """Markdown, a table for each file: the first variant's figures, what guessing would give, and how much the others
    differ from the first, with paired intervals. No lines for no files.

    Raises TrainingError for a file that the script did not write.
    """
    if not paths:
        return []
    lines = [
        "## What each trick is worth",
        "",
        "One change at a time. In points: the first row of a table has the figures, the others what they differ from "
        "it, with the 95 % interval of the paired difference in brackets; bold where that leaves 0 out.",
        "",
    ]
    for path in paths:
        lines += _table(path)
    return lines


def _table(path: Path) -> list[str]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        first, *others = document["variants"]
        names = list(first["figures"])
        changed = _said(document["schedule"])
        lines = [
            f"{document['judged']}{f' All with {changed}.' if changed else ''}",
            "",
            f"| change | {' | '.join(names)} |",
            "|---|" + "---|" * len(names),
            _row("none", first["figures"], names),
        ]
        if "chance" in first:
            lines.append(_row("guessing", first["chance"], names))
        for other in others:
            cells = (_difference(*other["difference"][name]) for name in names)
            lines.append(f"| {_said(other['change'])} | {' | '.join(cells)} |")
    except OSError as exc:
        raise TrainingError(f"the ablations file {path.name!r} can't be read: {exc.strerror}") from exc
    except (KeyError, TypeError, ValueError) as exc:
        raise TrainingError(
            f"{path.name!r} is not a file that benchmarks/ablations.py writes: {type(exc).__name__}: {exc}",
            hint="Write the file again with benchmarks/ablations.py, or remove it from `ablations`.",
        ) from exc
    return [*lines, ""]


def _row(what: str, values: Mapping[str, float], names: Sequence[str]) -> str:
    return f"| {what} | {' | '.join(f'{100 * values[name]:.1f}' for name in names)} |"


def _difference(value: float, low: float, high: float) -> str:
    words = f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    return f"**{words}**" if low > 0 or high < 0 else words


def _said(change: Mapping[str, Any], parent: str = "") -> str:
    """A change of a configuration as `image.start: null, image.locked_groups: 0`."""
    parts = []
    for key, value in change.items():
        name = f"{parent}{key}"
        parts.append(_said(value, f"{name}.") if isinstance(value, Mapping) else f"{name}: {json.dumps(value)}")
    return ", ".join(parts)
