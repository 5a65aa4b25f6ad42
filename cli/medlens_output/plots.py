"""A reliability diagram of a calibration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cli.medlens_output.files import require_suffix
from retrieval.neutral import neutral
from retrieval.optional import require_optional
from retrieval.zeroshot.calibration import Calibration

if TYPE_CHECKING:
    from indexer.outputs import Output

KIND = "reliability"
# The metadata field in which a picture names the program that made it.
_MARK = {".png": "Software", ".svg": "Creator", ".pdf": "Creator"}


def require_plottable(output: Path | None) -> None:
    """Raise QueryError or MedlensError if no plot can be written there, before anything is fitted."""
    if output is None:
        return
    require_suffix("plot", output, ".png", ".svg", ".pdf")
    require_optional("matplotlib", "a plot")


def reliability_plot(calibration: Calibration, output: Output) -> None:
    """Return a picture (.png, .svg or .pdf) of how often a label with probability p is right in the held-out part."""
    from matplotlib.figure import Figure

    shown = calibration.held_out
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(3.2 * columns, 3.4 * lines), layout="constrained")
    for place, figures in enumerate(shown, 1):
        axes = figure.add_subplot(lines, columns, place)
        predicted, right, count = (np.array(values) for values in zip(*figures.reliability, strict=True))
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        axes.scatter(predicted, right, s=8 + 200 * count / count.sum(), color="tab:blue", alpha=0.8)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="probability", ylabel="share that is right")
        axes.set_title(
            f"{neutral(figures.label or calibration.label_set)}\nECE {figures.ece}, {figures.rows} rows",
            fontsize=8,
            parse_math=False,  # a label may hold dollar signs
        )
    suffix = output.path.suffix.lower()
    with output.whole() as temporary:
        figure.savefig(temporary, format=suffix[1:], metadata={_MARK[suffix]: f"medlens {KIND}"})
