"""The command `classify`: zero-shot labels for files or for the frames of a store."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from enum import StrEnum
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from cli.medlens_output.files import rows_format
from cli.medlens_output.formats import Format, Row
from cli.medlens_output.lines import say
from cli.medlens_output.progress import progress_bar
from retrieval.errors import MedlensError, QueryError

if TYPE_CHECKING:
    from cli.medlens_output.labels import Layout
    from cli.medlens_output.spool import Spool
    from indexer.output_formats import OutputFormat
    from indexer.tasks.classifying import FileLabeller, LabelledFile, StoreLabeller
    from retrieval.types import SearchFilter

logger = logging.getLogger(__name__)

_SPOOLED = 64  # rows that are lost at most if the run is killed


class LabelLevel(StrEnum):
    FRAME = "frame"
    STUDY = "study"


def classify(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="DICOM files, pictures, or folders of DICOM files to label. Default: the frames of the store."
        ),
    ] = None,
    labels: LabelsOption = "modality",
    independent: IndependentOption = False,
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            help='Label only frames of the store that match this filter, such as "Modality = CR and PatientAge < 16".',
        ),
    ] = None,
    level: Annotated[
        LabelLevel,
        typer.Option("--level", help="What a row of the results describes: a frame, or a study of the store."),
    ] = LabelLevel.FRAME,
    save: Annotated[
        bool,
        typer.Option(
            "--save",
            help="Also save the labels in the store, so that filters can use them: --where 'label.NAME > 0.8'.",
        ),
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            help="A calibration file that `medlens calibrate` wrote. Default: the calibration that the store has.",
        ),
    ] = None,
    sensitivity: Annotated[
        float | None,
        typer.Option(
            "--sensitivity",
            help="Report the findings that are present, with thresholds that miss few of them. 0.95 finds "
            "95 % of the true ones. Needs a calibration.",
        ),
    ] = None,
    specificity: Annotated[
        float | None,
        typer.Option(
            "--specificity",
            help="Report the findings that are present, with thresholds that give few false alarms. 0.95 "
            "is right for 95 % of the images without the finding. Needs a calibration.",
        ),
    ] = None,
    coverage: Annotated[
        float | None,
        typer.Option(
            "--coverage",
            help="Report every label that is plausible, so that the true label is among them in this "
            "share of images, such as 0.9. Needs a calibration.",
        ),
    ] = None,
    unknown: Annotated[
        float | None,
        typer.Option(
            "--unknown",
            help="Mark images that are unlike all images of the calibration. 0.05 also marks 5 % of the "
            "images that are alike. Needs a calibration.",
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    style: FormatOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Write the labels to this file: .jsonl, .csv or .parquet. If the command is stopped, run "
            "it again to continue.",
        ),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Label images without training: DICOM files, pictures, or the frames of a store.

    A score is not a probability. Run `medlens calibrate` first to get probabilities.
    """
    from cli.medlens_output.spool import Spool
    from cli.medlens_output.streams import PARQUET, style_for, write_stream
    from indexer.outputs import Output, require_not_of_archive, require_outputs
    from indexer.tasks.classifying import FileLabeller, StoreLabeller
    from retrieval.types import SearchFilter
    from retrieval.zeroshot.labeller import LabelRequest
    from retrieval.zeroshot.labels import load_labels

    with reporting_errors(style) as chosen:
        with usage(style):
            if files and (where is not None or save or level is LabelLevel.STUDY):
                raise QueryError(
                    "--where, --level study and --save are for a store, but files were named as well",
                    hint="Remove these options, or index the files first and run the command without naming files.",
                )
            request = LabelRequest(sensitivity, specificity, coverage, unknown)
        chosen = style_for(output, chosen, style)
        parquet = output is not None and output.suffix.lower() == PARQUET
        written = None if output is None else Output(output, _format(chosen, parquet, files, level), force)
        require_outputs(written)
        layout: Layout = "flat" if parquet or chosen is Format.CSV else "short" if chosen is Format.TABLE else "nested"
        label_set = load_labels(labels, independent=independent)
        if not files:
            with open_store(store) as opened:
                of_store = StoreLabeller.open(
                    opened, label_set, model=model, device=device, calibration=calibration, request=request
                )
                by_study = level is LabelLevel.STUDY
                require_not_of_archive(opened, written)
                only = SearchFilter(where=where or "")
                notes = (*of_store.filter_notes(only), *opened.notes_on(only))
                for note in notes:
                    say(note, err=True)
                rows = _store_rows(of_store, only, layout, by_study=by_study, save=save)
                head = _head(of_store) if chosen is Format.TABLE else {**_head(of_store), "notes": notes}
                write_stream(rows, chosen, written, head=head)
            return
        of_files = FileLabeller.open(label_set, model=model, device=device, calibration=calibration, request=request)
        unreadable = _Unreadable()
        if written is None:
            rows = _file_rows(of_files.label(files, on_unreadable=unreadable.report), layout)
            write_stream(unreadable.unless_all(rows), chosen, None, head=_head(of_files))
            return
        with Spool(written, f"{of_files.labeller.made_by} {request} {layout}") as spool:
            rest = of_files.label(files, skip=spool.done, on_unreadable=unreadable.report)
            _spool(spool, _file_rows(rest, layout))
            write_stream(unreadable.unless_all(spool.rows()), chosen, written, head=_head(of_files))
            spool.drop()


def _format(style: Format, as_parquet: bool, files: list[Path] | None, level: LabelLevel) -> OutputFormat:
    """Return how a file of labels is recognised: by the columns that name the labelled file, frame or study."""
    from cli.medlens_output.labels import DECIDED
    from cli.medlens_output.streams import PARQUET_MARK
    from indexer.output_formats import parquet

    if as_parquet:
        return parquet("labels in Parquet", PARQUET_MARK)
    of_frames = ("sop_instance_uid", "frame_number", "study_instance_uid")
    place = ("file",) if files else ("study_instance_uid", "frames") if level is LabelLevel.STUDY else of_frames
    return rows_format("labels", style, place, ("labels",), DECIDED)


class _Unreadable:
    """Counts the files that can't be labelled, and reports each on stderr."""

    def __init__(self) -> None:
        self._count = 0

    def report(self, name: str, error: MedlensError) -> None:
        self._count += 1
        say(f"medlens: {name}: {error}", err=True)

    def unless_all(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Yield the rows. Raises QueryError if there are none because no file could be read."""
        first = next(rows, None)
        if first is None and self._count:
            raise QueryError(f"none of the {self._count} files could be read as an image")
        return rows if first is None else chain([first], rows)


def _spool(spool: Spool, rows: Iterator[Row]) -> None:
    """Write rows to a spool as they arrive, in chunks."""
    if spool.done:
        logger.warning("continuing: %d files are labelled already", len(spool.done))
    done = len(spool.done)
    with progress_bar("files") as update:
        while chunk := list(islice(rows, _SPOOLED)):
            spool.add(chunk)
            done += len(chunk)
            update(done, None, "")


def _store_rows(
    labeller: StoreLabeller, where: SearchFilter, layout: Layout, *, by_study: bool, save: bool
) -> Iterator[Row]:
    from cli.medlens_output.labels import label_row

    with progress_bar("frames") as update:

        def report_progress(done: int) -> None:
            update(done, None, "")

        if by_study:
            for study in labeller.studies(where, save=save, on_progress=report_progress):
                place: Row = {"study_instance_uid": study.study_instance_uid, "frames": study.frames}
                yield {**place, **label_row(study.labels, layout)}
            return
        for frame in labeller.frames(where, save=save, on_progress=report_progress):
            key = frame.key
            place = {"sop_instance_uid": key.sop_instance_uid, "frame_number": key.frame_number}
            place = place | {"study_instance_uid": frame.study_instance_uid}
            yield {**place, **label_row(frame.labels, layout)}


def _file_rows(labelled: Iterator[LabelledFile], layout: Layout) -> Iterator[Row]:
    from cli.medlens_output.labels import label_row

    for found in labelled:
        yield {"file": found.file, **label_row(found.labels, layout)}


def _head(opened: FileLabeller | StoreLabeller) -> Row:
    calibration = opened.labeller.calibration
    head = {"labels": opened.labeller.labels.name}
    return head if calibration is None else {**head, "calibrated_on": calibration.calibrated_on}
