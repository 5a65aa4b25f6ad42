"""classify, calibrate and the label sets."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.medlens_commands.common import (
    DEFAULT_STORE,
    DeviceOption,
    FormatOption,
    ModelOption,
    StoreOption,
    answering,
    open_store,
    usage,
)
from cli.medlens_output import Format, Row, require_place, write_rows
from retrieval.errors import MedlensError, QueryError

LabelsOption = Annotated[str, typer.Option("--labels", help='A label set by name, a YAML file, or "label, label".')]
LabelsArgument = Annotated[str, typer.Argument(help='A label set by name, a YAML file, or "label, label".')]
IndependentOption = Annotated[
    bool, typer.Option("--independent", help="Inline labels do not compete: any number of them may hold.")
]


class LabelLevel(StrEnum):
    FRAME = "frame"
    STUDY = "study"


def register(app: typer.Typer) -> None:
    app.command()(classify)
    app.command()(calibrate)
    labels = typer.Typer(help="Label sets for zero-shot classification.", no_args_is_help=True)
    labels.command("list")(labels_list)
    labels.command("show")(labels_show)
    labels.command("check")(labels_check)
    app.add_typer(labels, name="labels")


def classify(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="DICOM files, pictures, or folders of DICOM files. None: the frames of the store."),
    ] = None,
    labels: LabelsOption = "modality",
    independent: IndependentOption = False,
    where: Annotated[
        str | None, typer.Option("--where", help='Only these frames of the store: "Modality = CR and PatientAge < 16".')
    ] = None,
    level: Annotated[
        LabelLevel, typer.Option("--level", help="A row per frame, or per study of the store.")
    ] = LabelLevel.FRAME,
    save: Annotated[
        bool, typer.Option("--save", help="Keep the labels in the store, for --where 'label.NAME > 0.8'.")
    ] = False,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", help="What `medlens calibrate` wrote. Default: the store's own.")
    ] = None,
    sensitivity: Annotated[
        float | None, typer.Option("--sensitivity", help="Say which findings are found, missing few: 0.95.")
    ] = None,
    specificity: Annotated[
        float | None, typer.Option("--specificity", help="Say which findings are found, with few false ones: 0.95.")
    ] = None,
    coverage: Annotated[
        float | None, typer.Option("--coverage", help="Say which labels are possible, so that 0.9 of truths are among.")
    ] = None,
    unknown: Annotated[
        float | None, typer.Option("--unknown", help="Say which images are like none that were calibrated on: 0.05.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    style: FormatOption = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write here: .jsonl, .csv, .parquet. Stopped, the same command goes on."),
    ] = None,
) -> None:
    """Zero-shot labels of files, or of a store's frames. A `score` is no probability; a calibrated one is."""
    from itertools import chain

    from cli.medlens_labelling import Ask, classify_files, classify_resumed, classify_store
    from cli.medlens_streams import PARQUET, style_for, write_stream
    from retrieval.types import SearchFilter
    from retrieval.zeroshot.labelling import wishes_from
    from retrieval.zeroshot.labels import load_labels

    failures: list[str] = []

    def failed(name: str, error: MedlensError) -> None:
        failures.append(name)
        typer.echo(f"medlens: {name}: {error}", err=True)

    def some(rows: Iterator[Row]) -> Iterator[Row]:
        first = next(rows, None)
        if first is None and failures:
            raise QueryError(f"none of {len(failures)} files is an image that can be classified")
        return rows if first is None else chain([first], rows)

    with answering(style) as chosen:
        with usage(style):
            if files and (where is not None or save or level is LabelLevel.STUDY):
                raise QueryError(
                    "files were given with an option that is for a store (--where, --level study or --save)",
                    hint="Index the files first; then leave them away here.",
                )
            wishes = wishes_from(sensitivity, specificity, coverage, unknown)
        require_place(output)
        chosen = style_for(output, chosen, style)
        parquet = output is not None and output.suffix.lower() == PARQUET
        layout = "flat" if parquet or chosen is Format.CSV else "short" if chosen is Format.TABLE else "nested"
        ask = Ask(load_labels(labels, independent=independent), wishes, calibration, layout)  # type: ignore[arg-type]

        def head_of(labeller: object) -> dict[str, object]:
            kept = getattr(labeller, "calibration", None)
            said = {"labels": ask.labels.name, "calibrated_on": kept.said if kept else None}
            return {name: value for name, value in said.items() if value is not None}

        if files and output is not None:
            with classify_resumed(files, ask, model, device, output, failed) as (rows, labeller):
                write_stream(some(rows), chosen, output, head=head_of(labeller))
        elif files:
            rows, labeller = classify_files(files, ask, model, device, failed)
            write_stream(some(rows), chosen, None, head=head_of(labeller))
        else:
            with open_store(store) as opened:
                by_study = level is LabelLevel.STUDY
                rows, labeller = classify_store(
                    opened, ask, model, device, SearchFilter(where=where or ""), by_study=by_study, save=save
                )
                write_stream(rows, chosen, output, head=head_of(labeller))


def calibrate(
    labels: LabelsOption,
    truth: Annotated[
        Path, typer.Option("--truth", help="CSV or JSON lines: sop_instance_uid or file, and label(s), and patient.")
    ],
    independent: IndependentOption = False,
    store: StoreOption = DEFAULT_STORE,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the calibration here (JSON), too; a must for files.")
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the reliability: .png, .svg or .pdf.")] = None,
    style: FormatOption = None,
) -> None:
    """Fit probabilities to labelled images, judged on patients that the fit has not seen."""
    from cli.medlens_calibrating import (
        calibrate_files,
        calibrate_store,
        figure_rows,
        reliability_plot,
        require_plottable,
        write_calibration,
    )
    from retrieval.zeroshot.labels import load_labels
    from retrieval.zeroshot.truth import read_truth

    with answering(style) as chosen:
        with usage(style):
            require_plottable(plot)
        require_place(output)
        label_set = load_labels(labels, independent=independent)
        read = read_truth(truth, label_set)
        if read.by_file:
            with usage(style):
                if output is None:
                    raise QueryError("the truth file names files: say with -o where the calibration goes")
            kept = calibrate_files(truth.parent, read, label_set, model, device)
        else:
            with open_store(store) as opened:
                kept = calibrate_store(opened, read, label_set, model, device)
        if output is not None:
            write_calibration(kept, output)
        if plot is not None:
            reliability_plot(kept, plot)
        head = {"labels": kept.label_set, "model": kept.model, "calibrated_on": kept.said}
        write_rows(figure_rows(kept), chosen, head=head)


def labels_list(style: FormatOption = None) -> None:
    """The label sets that ship with medlens."""
    from retrieval.zeroshot.labels import load_labels, shipped_label_sets

    with answering(style) as chosen:
        sets = [load_labels(name) for name in shipped_label_sets()]
        rows = [{"name": s.name, "title": s.title, "kind": s.kind, "labels": list(s.names)} for s in sets]
        write_rows(rows, chosen)


def labels_show(labels: LabelsArgument, independent: IndependentOption = False, style: FormatOption = None) -> None:
    """One label set: its labels and how each is said."""
    from retrieval.zeroshot.labels import load_labels

    with answering(style) as chosen:
        found = load_labels(labels, independent=independent)
        absent = {label.name: {"absent": list(label.absent_prompts)} for label in found.labels if found.independent}
        rows = [
            {"label": label.name, "prompts": list(label.prompts)} | absent.get(label.name, {}) for label in found.labels
        ]
        write_rows(rows, chosen, head={"name": found.name, "title": found.title, "kind": found.kind})


def labels_check(
    file: LabelsArgument,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    style: FormatOption = None,
) -> None:
    """Read a label set and say what a model hears: how alike a label's phrasings are, which labels it confuses."""
    from cli.medlens_labelling import heard

    with answering(style) as chosen:
        rows, head = heard(file, model, device)
        write_rows(rows, chosen, head=head)
