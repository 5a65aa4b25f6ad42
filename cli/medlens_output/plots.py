"""The reliability of a calibration as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cli.medlens_output.files import require_place, require_suffix, whole_file
from retrieval.optional import require_optional
from retrieval.zeroshot.calibration import Calibration


def require_plottable(output: Path | None) -> None:
    """QueryError or MedlensError if no plot can be made there, before anything is fitted."""
    if output is None:
        return
    require_suffix("plot", output, ".png", ".svg", ".pdf")
    require_optional("matplotlib", "a plot")
    require_place(output)


def reliability_plot(calibration: Calibration, output: Path) -> None:
    """A picture (.png, .svg or .pdf) of the held-out reliability: how often is a label right that has probability p?"""
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
        axes.set_title(f"{figures.label or calibration.label_set}\nECE {figures.ece}, {figures.rows} rows", fontsize=8)
    with whole_file(output) as temporary:
        figure.savefig(temporary, format=output.suffix[1:].lower())
