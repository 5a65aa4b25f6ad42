"""Plots as SVG. Only this module uses matplotlib, which `pip install medlens[evaluate]` installs."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.errors import EvaluationError
from retrieval.evaluation.evaluate import RetrievalResult
from retrieval.evaluation.label_sets import ZeroShot
from retrieval.evaluation.zero_shot import BINS
from retrieval.neutral import neutral_message
from retrieval.optional import require_optional
from retrieval.statistics.bootstrap import Difference
from retrieval.statistics.measures import Ints
from retrieval.statistics.reliability import ReliabilityBin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind people can distinguish.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
COLOURS = (BLUE, ORANGE, GREEN)
_LONGEST = 80  # characters of a name or title
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.hashsalt": "medlens",  # the same figures give the same file
    "text.parse_math": False,  # a label may hold dollar signs: what is between them is not TeX
}


def require_matplotlib() -> None:
    """Raise EvaluationError unless matplotlib is installed."""
    require_optional("matplotlib", "the report", EvaluationError)


def recall_curves(title: str, results: Sequence[RetrievalResult]) -> str:
    """Recall over depth: one line per ranker with its interval, and the chance level."""
    with _axes(6.0, 3.4) as (figure, axes):
        for result, colour in zip(results, COLOURS, strict=False):
            ks = sorted(result.direction.figures.hits)
            found = [result.estimates[f"R@{k}"] for k in ks]
            axes.fill_between(ks, [e.low for e in found], [e.high for e in found], color=colour, alpha=0.15, lw=0)
            axes.plot(ks, [e.value for e in found], color=colour, marker=".", label=_shown(result.ranker))
        ks = sorted(results[0].direction.figures.hits)
        axes.plot(
            ks, [results[0].estimates[f"R@{k}"].chance for k in ks], color=GREY, linestyle="--", label="random ranking"
        )
        ticks = [k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if k <= ks[-1]]
        axes.set(xscale="log", ylim=(0, 1.02), xlabel="k: number of answers considered", title=_shown(title))
        axes.set_xticks(ticks, [str(k) for k in ticks])
        axes.minorticks_off()
        _percent(axes, "y")
        axes.set_ylabel("queries with a right answer within k")
        _legend(axes)
        axes.grid(alpha=0.2)
        return _svg(figure)


def rank_histogram(title: str, result: RetrievalResult) -> str:
    """The rank of the first right answer, in tenths of the gallery, with a random ranking as a line."""
    with _axes(5.2, 3.4) as (figure, axes):
        share = (result.direction.figures.rank - 0.5) / result.direction.gallery
        counts, edges = np.histogram(share, bins=10, range=(0, 1))
        axes.bar(edges[:-1], counts / len(share), width=0.1, align="edge", color=BLUE, edgecolor="white")
        axes.axhline(0.1, color=GREY, linestyle="--", label="one right answer, at random")
        axes.set(xlim=(0, 1), title=_shown(title), xlabel="rank of the first right answer, as a share of the gallery")
        axes.set_ylabel("queries")
        _percent(axes, "x")
        _percent(axes, "y")
        axes.legend(loc="upper right")
        return _svg(figure)


def confusion_matrix(title: str, names: Sequence[str], counts: Ints) -> str:
    """Counts of truth by answer, each row coloured by its shares."""
    occurs = np.flatnonzero(counts.sum(axis=1))
    side = 1.6 + 0.55 * len(names)
    with _axes(side + 1.2, 1.4 + 0.45 * len(occurs)) as (figure, axes):
        rows = counts[occurs]
        share = rows / rows.sum(axis=1, keepdims=True)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (y, x), count in np.ndenumerate(rows):
            axes.text(x, y, str(count), ha="center", va="center", color="white" if share[y, x] > 0.5 else "black")
        shown = [_shown(name) for name in names]
        axes.set_xticks(range(len(names)), shown, rotation=30, ha="right")
        axes.set_yticks(range(len(occurs)), [shown[int(i)] for i in occurs])
        axes.set(xlabel="answer", ylabel="truth", title=_shown(title))
        for spine in axes.spines.values():
            spine.set_visible(False)
        return _svg(figure)


def reliability_diagram(found: ZeroShot) -> str:
    """The share of right answers by confidence. The diagonal is perfect; larger dots have more answers."""
    with _axes(6.0, 3.4) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="perfectly calibrated")
        for name, bins, ece, colour in (
            ("prompts of the set", found.reliability, found.estimates["ECE"].value, BLUE),
            ("plain softmax", found.plain_reliability, found.plain_estimates["ECE"].value, ORANGE),
        ):
            _dots(axes, f"{name}, ECE {ece:.2f}", bins, colour)
        axes.set(xlim=(0, 1.02), ylim=(-0.02, 1.02), title=_shown(f"{found.labels.name}: reliability, {BINS} bins"))
        axes.set(xlabel="score of the answer", ylabel="share of right answers")
        _percent(axes, "y")
        _legend(axes, scale=0.5)
        return _svg(figure)


def difference_plot(title: str, figures: Mapping[str, Difference]) -> str:
    """Each difference with its interval. If the interval excludes 0, the models differ on these rows."""
    with _axes(5.4, 0.9 + 0.34 * len(figures)) as (figure, axes):
        for y, d in enumerate(figures.values()):
            colour = BLUE if d.differs else GREY
            axes.plot([d.low, d.high], [y, y], color=colour, lw=2)
            axes.plot([d.value], [y], "o", color=colour)
        axes.axvline(0, color="black", lw=0.8)
        axes.set_yticks(range(len(figures)), [_shown(name) for name in figures])
        axes.invert_yaxis()
        axes.set(title=_shown(title), xlabel="second model minus the first")
        return _svg(figure)


def _shown(text: str) -> str:
    """A name that a stranger may have given, as a plot has it: neutral, in one line, and not longer than the plot."""
    line = " ".join(neutral_message(text).split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def _dots(axes: Axes, label: str, bins: Sequence[ReliabilityBin], colour: str) -> None:
    total = sum(one.rows for one in bins)
    x, y = [one.confidence for one in bins], [one.right for one in bins]
    axes.scatter(x, y, s=[15 + 220 * one.rows / total for one in bins], color=colour, alpha=0.75, lw=0, label=label)


def _legend(axes: Axes, scale: float = 1) -> None:
    """A legend beside the plot."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), markerscale=scale)


def _percent(axes: Axes, which: str) -> None:
    from matplotlib.ticker import PercentFormatter

    (axes.xaxis if which == "x" else axes.yaxis).set_major_formatter(PercentFormatter(1, 0))


class _axes:  # noqa: N801 - read like a function
    """A figure with one pair of axes, in medlens's style, without a window. The size is in inches."""

    def __init__(self, width: float, height: float) -> None:
        self._size = width, height

    def __enter__(self) -> tuple[Figure, Axes]:
        import matplotlib
        from matplotlib.figure import Figure

        self._style = matplotlib.rc_context(STYLE)
        self._style.__enter__()
        figure = Figure(self._size, layout="constrained")
        return figure, figure.add_subplot()

    def __exit__(self, *about: Any) -> None:
        self._style.__exit__(*about)


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": "medlens"})
    return out.getvalue()
