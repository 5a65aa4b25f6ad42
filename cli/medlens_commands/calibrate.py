"""The command `calibrate`: turn scores into probabilities, using labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.medlens_commands._errors import reporting_errors, usage
from cli.medlens_commands._options import (
    DEFAULT_STORE,
    DeviceOption,
    ForceOption,
    FormatOption,
    IndependentOption,
    LabelsOption,
    ModelOption,
    StoreOption,
    open_store,
)
from cli.medlens_output.formats import write_rows
from cli.medlens_output.progress import progress_bar
from retrieval.errors import QueryError

if TYPE_CHECKING:
    from retrieval.zeroshot.calibration import Calibration, HeldOut


def calibrate(
    labels: LabelsOption,
    truth: Annotated[
        Path,
        typer.Option(
            "--truth",
            help="The known labels of images: a CSV or JSON-lines file with the columns sop_instance_uid "
            "or file, label or labels, and optionally patient.",
        ),
    ],
    independent: IndependentOption = False,
    store: StoreOption = DEFAULT_STORE,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Also write the calibration to this JSON file. Required if --truth names image files "
            "instead of SOP Instance UIDs.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Also draw a reliability diagram to this file: .png, .svg or .pdf.")
    ] = None,
    style: FormatOption = None,
    force: ForceOption = False,
) -> None:
    """Turn the scores of a label set into probabilities, using images whose labels you know.

    The figures are measured on patients that were left out of the fit.
    """
    from cli.medlens_output.plots import KIND, reliability_plot, require_plottable
    from indexer.output_formats import json_document, picture
    from indexer.outputs import Output, require_outputs
    from indexer.tasks.calibrating import calibrate_files, calibrate_store
    from retrieval.zeroshot.ground_truth import read_truth
    from retrieval.zeroshot.labels import load_labels

    with reporting_errors(style) as chosen:
        with usage(style):
            require_plottable(plot)
        keys = ("format", "label_set", "labels_sha256", "kind")
        written = None if output is None else Output(output, json_document("a calibration", keys), force)
        plotted = None if plot is None else Output(plot, picture("a plot of a calibration", KIND), force)
        require_outputs(written, plotted)
        label_set = load_labels(labels, independent=independent)
        read = read_truth(truth, label_set)
        if read.by_file:
            with usage(style):
                if output is None:
                    raise QueryError(
                        "the truth file names image files, so the calibration can't be kept in a store; name an "
                        "output file with -o"
                    )
            with progress_bar("pictures") as update:
                made = calibrate_files(
                    read,
                    truth.parent,
                    label_set,
                    model=model,
                    device=device,
                    on_progress=lambda done, total: update(done, total, ""),
                )
        else:
            with open_store(store) as opened:
                made = calibrate_store(opened, read, label_set, model=model, device=device)
        if written is not None:
            written.write_text(made.model_dump_json(indent=1) + "\n")
        if plotted is not None:
            reliability_plot(made, plotted)
        head = {"labels": made.label_set, "model": made.model, "calibrated_on": made.calibrated_on}
        write_rows(_rows(made), chosen, head=head)


def _rows(calibration: Calibration) -> list[dict[str, Any]]:
    """The held-out figures, one row per label or one row for a choice, then the labels that could not be calibrated."""
    rows = [_row(figures) for figures in calibration.held_out]
    missing = [fit.name for fit in calibration.labels if fit.slope is None]
    nothing = dict.fromkeys(rows[0]) if rows else {}
    return rows + [nothing | {"label": name, "rows": "not calibrated"} for name in missing]


def _row(figures: HeldOut) -> dict[str, Any]:
    row = {
        "label": figures.label or "(choice)",
        "rows": figures.rows,
        "positives": figures.positives,
        "ece": str(figures.ece),
        "ece_of_scores": round(figures.ece_before, 3),
        "ece_if_perfect": round(figures.ece_floor, 3),
        "auroc": str(figures.auroc),
        "accuracy": str(figures.accuracy) if figures.accuracy else None,
        "coverage_of_90": str(figures.coverage),
        "set_size": round(figures.set_size, 2),
        "sensitivity_of_90": str(figures.sensitivity) if figures.sensitivity else None,
    }
    return {name: value for name, value in row.items() if name != "positives" or value is not None}
