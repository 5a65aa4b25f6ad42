"""`medlens evaluate`: evaluate one or two models, on a pairs file or on a store with its own reports."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexer.output_formats import html_page, json_document
from indexer.outputs import Output, require_folder, require_outputs
from indexer.reading.files import PictureRequest
from indexer.store.own_model import model_source
from indexer.store.store import Store
from indexer.tasks.calibrating import stored_calibration
from indexer.tasks.encoding import encode_all_pictures
from indexer.tasks.evaluation_data import store_evaluation_data
from retrieval.encoders.clip import ClipEncoder
from retrieval.encoders.model_source import ModelSource, resolve_model
from retrieval.encoders.spec import differing
from retrieval.errors import CalibrationError, DicomError, EvaluationError
from retrieval.evaluation.evaluate import (
    DENSE,
    RANKERS,
    Comparison,
    Evaluation,
    Options,
    Progress,
    compare,
    evaluate,
)
from retrieval.evaluation.pairs import evaluation_rows, read_pairs
from retrieval.evaluation.plots import require_matplotlib
from retrieval.evaluation.report import METRICS, REPORT, report_files
from retrieval.evaluation.rows import EvaluationRows
from retrieval.types import Embeddings, RenderProfile
from retrieval.zeroshot.calibration import Calibration, read_calibration
from retrieval.zeroshot.labels import LabelSet, load_labels, shipped_label_sets

log = logging.getLogger(__name__)

STORE_LIMIT = 5000  # frames of a store, unless another limit is given
TRUTH_FIELDS = {  # fields that may contain the true labels of a shipped set, if they do not have its name
    "body_region": ("body_region", "body_part_examined"),
    "projection": ("projection", "view", "view_position"),
    "pneumonia": ("pneumonia", "label"),
}


@dataclass(frozen=True)
class EvaluationSettings:
    """How a model is judged, whatever it is judged on.

    - `labels`: label sets, SET or SET=FIELD with the field that says the truth. Without any, the shipped sets of which
      two labels occur.
    - `calibrations`: of these sets, as values or as files; a store adds its own.
    - `rankers` answer the second texts: dense, text, hybrid; none for all of them.
    - `retrieval`: whether retrieval is judged besides the labels.
    - `compare`: a second model, judged on the same rows.
    - `precision`: fp32, so that figures are the same on every machine, bf16, or auto for what indexing would take.
    - `limit`: at most so many images, drawn by whole patients; None for all, or for 5000 frames of a store.
    - `resamples` and `seed` are of the bootstrap; the seed is of the drawing, too.
    - `report`: a folder to write `metrics.json` and `report.html` into. It needs matplotlib. Files that no such
      report left there are replaced with `force` only.
    """

    labels: tuple[str, ...] = ()
    calibrations: tuple[Calibration | Path, ...] = ()
    rankers: tuple[str, ...] = ()
    retrieval: bool = True
    compare: str | None = None
    precision: str = "fp32"
    limit: int | None = None
    resamples: int = 2000
    seed: int = 0
    report: Path | None = None
    force: bool = False


@dataclass(frozen=True)
class EvaluationResult:
    """The figures of one model, and the comparison with a second one, if requested."""

    evaluation: Evaluation
    comparison: Comparison | None = None


def evaluate_pairs(
    pairs: Path,
    settings: EvaluationSettings = EvaluationSettings(),
    *,
    model: str | None = None,
    device: str = "auto",
    split: str = "dev",
    text: str = "text",
    query: str | None = None,
    trained_on: Sequence[Path] = (),
    on_progress: Progress = lambda what, done, total: None,
) -> EvaluationResult:
    """Evaluate a model, by default the shipped one, on a pairs file or the folder that holds one.

    `text` is the field with an image's own text, `query` a field with another text used as the query; the rows of
    `trained_on` are searched for leaks. Raises EvaluationError for rows or fields that can't be used, CalibrationError
    for a calibration of another label set, WeightsNotFound or EncoderError for a model.
    """
    _require_reportable(settings)
    rows, paths = evaluation_rows(
        read_pairs(pairs),
        split=split,
        text=text,
        query=query,
        trained_on=[read_pairs(path) for path in trained_on],
        limit=settings.limit,
        seed=settings.seed,
        progress=on_progress,
    )
    subject = _Subject(rows, lambda profile: [PictureRequest(path, profile) for path in paths])
    return _judged(subject, settings, resolve_model(model), device, on_progress)


def evaluate_store(
    store: Store,
    settings: EvaluationSettings = EvaluationSettings(),
    *,
    model: str | None = None,
    device: str = "auto",
    on_progress: Progress = lambda what, done, total: None,
) -> EvaluationResult:
    """Evaluate a model, by default the store's own, on a store, by its reports and the attributes in its headers.

    For the store's own model nothing is encoded, because its vectors are there. Raises as `evaluate_pairs` does.
    """
    _require_reportable(settings)
    data = store_evaluation_data(store, limit=settings.limit or STORE_LIMIT, seed=settings.seed)
    calibration_of = partial(stored_calibration, store)
    subject = _Subject(data.rows, data.requests, store.model, data.images, data.sentences, calibration_of)
    return _judged(subject, settings, model_source(store, model), device, on_progress)


@dataclass(frozen=True)
class _Subject:
    """The test data, whatever their source. `own_...` belong to the model whose vectors exist already."""

    rows: EvaluationRows
    requests: Callable[[RenderProfile], Sequence[PictureRequest]]
    own_model: Mapping[str, object] | None = None
    own_images: Embeddings | None = None
    own_texts: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    calibration_of: Callable[[LabelSet], Calibration | None] = lambda _: None


def _require_reportable(settings: EvaluationSettings) -> None:
    if settings.report is not None:  # before minutes of encoding
        require_matplotlib()
        require_folder(settings.report)
        if settings.report.is_dir():
            require_outputs(*_report_outputs(settings.report, settings.force).values())


def _report_outputs(folder: Path, force: bool) -> dict[str, Output]:
    """Return the files of a report, by name."""
    return {
        METRICS: Output(
            folder / METRICS, json_document("the figures of a report", ("model", "rows", "options")), force
        ),
        REPORT: Output(folder / REPORT, html_page("a report", "evaluation"), force),
    }


def _write_report(folder: Path, force: bool, files: Mapping[str, str]) -> None:
    require_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise EvaluationError(f"the report can't be written into {folder.name!r}: {exc.strerror}") from exc
    for name, output in _report_outputs(folder, force).items():
        output.write_text(files[name])


def _judged(
    subject: _Subject, settings: EvaluationSettings, model: ModelSource, device: str, on_progress: Progress
) -> EvaluationResult:
    label_sets = _label_sets(settings.labels, subject.rows)
    calibrations = _calibrations(settings.calibrations, [labels for labels, _ in label_sets], subject)
    options = Options(
        rankers=_rankers(settings.rankers, subject.rows),
        grade_by=tuple(dict.fromkeys(name for _, name in label_sets)),
        resamples=settings.resamples,
        seed=settings.seed,
    )

    def judged(source: ModelSource) -> Evaluation:
        encoder = ClipEncoder.from_source(source, device, settings.precision)
        own = subject.own_model is not None and not differing(subject.own_model, encoder.spec.to_json())
        images = subject.own_images if own else None
        if images is None:
            images = _encoded(subject, encoder, on_progress)
        vectors = "the vectors of images are the store's; " if own and subject.own_images is not None else ""
        note = f"{vectors}{encoder.name} was computed in {encoder.device.precision} by medlens {version('medlens')}"
        found = evaluate(
            subject.rows,
            encoder,
            images,
            label_sets=label_sets,
            known_texts=subject.own_texts if own else {},
            calibrations=_fitting(calibrations, encoder.spec.to_json()),
            retrieval=settings.retrieval,
            options=options,
            progress=lambda what, done, total: on_progress(f"{what} {encoder.name}", done, total),
        )
        return replace(found, notes=[*found.notes, note])

    first = judged(model)
    comparison = compare(first, judged(resolve_model(settings.compare))) if settings.compare else None
    if settings.report is not None:
        on_progress("writing the report", 0, 1)
        _write_report(settings.report, settings.force, report_files(first, comparison))
    return EvaluationResult(first, comparison)


def _encoded(subject: _Subject, encoder: ClipEncoder, on_progress: Progress) -> Embeddings:
    """Return [N, embed_dim], in the order of the rows. Raises EvaluationError if one can't be read."""
    requests = subject.requests(encoder.spec.render_profile)

    def unreadable(at: int, error: DicomError) -> EvaluationError:
        return EvaluationError(
            f"the image of row {at + 1} of {len(requests)} can't be read: {error}",
            hint=(
                "The evaluation needs all rows, because leaving some out would make retrieval easier. "
                "Correct the file or remove the row."
            ),
        )

    return encode_all_pictures(encoder, requests, unreadable, partial(on_progress, f"encoding with {encoder.name}"))


def _calibrations(
    given: Sequence[Calibration | Path], judged: Sequence[LabelSet], subject: _Subject
) -> dict[str, Calibration]:
    """Return calibrations by fingerprint of their label set: the given ones, else the store's.

    Raises CalibrationError for another set.
    """
    found = {
        labels.fingerprint: calibration
        for labels in judged
        if (calibration := subject.calibration_of(labels)) is not None
    }
    for one in given:
        calibration = read_calibration(one) if isinstance(one, Path) else one
        if calibration.labels_sha256 not in {labels.fingerprint for labels in judged}:
            name = f" {one.name!r}" if isinstance(one, Path) else ""
            raise CalibrationError(
                f"the calibration{name} is for the label set {calibration.label_set!r}, which is not "
                "evaluated with the same prompts",
                hint=(
                    f"The evaluated label sets are: {', '.join(labels.name for labels in judged) or 'none'}. "
                    "Name others with --labels."
                ),
            )
        found[calibration.labels_sha256] = calibration
    return found


def _fitting(calibrations: Mapping[str, Calibration], model: Mapping[str, object]) -> dict[str, Calibration]:
    """Return the calibrations of a model, and log that the others are not used."""
    for calibration in calibrations.values():
        if not calibration.is_for(model):
            log.warning(
                "the calibration of %r belongs to the model %r, not to %s; it is not used",
                calibration.label_set,
                calibration.model,
                model["name"],
            )
    return {labels: found for labels, found in calibrations.items() if found.is_for(model)}


def _label_sets(named: Sequence[str], rows: EvaluationRows) -> list[tuple[LabelSet, str]]:
    """Return the named label sets with the field of their true labels; by default the shipped sets of which two labels
    occur.
    """
    out = []
    for text in named:
        name, _, field_name = text.partition("=")
        labels = load_labels(name)
        fields = [field_name] if field_name else [f for f in _truth_fields(labels.name) if f in rows.fields]
        if not fields or fields[0] not in rows.fields:
            raise EvaluationError(
                f"the rows have no field {field_name or labels.name!r} with the true labels of "
                f"{labels.name!r}; their fields are: {', '.join(rows.fields) or 'none'}",
                hint=f"Name the field with the true labels: --labels {name}=FIELD.",
            )
        out.append((labels, fields[0]))
    if named:
        return out
    for name in shipped_label_sets():
        labels = load_labels(name)
        for field_name in _truth_fields(name):
            if field_name in rows.fields and len(np.unique(t := rows.truth(labels, field_name))) > 1 + (-1 in t):
                out.append((labels, field_name))
                break
    return out


def _truth_fields(label_set: str) -> tuple[str, ...]:
    """Return the fields that may contain the true labels of a shipped label set."""
    return TRUTH_FIELDS.get(label_set, (label_set,))


def _rankers(named: Sequence[str], rows: EvaluationRows) -> tuple[str, ...]:
    unknown = [name for name in named if name not in RANKERS]
    if unknown:
        raise EvaluationError(f"unknown ranker {unknown[0]!r}", hint=f"Use one of: {', '.join(RANKERS)}.")
    if rows.queries is None and {*named} - {DENSE}:
        raise EvaluationError(
            "the text ranker needs a text for each image that differs from the query",
            hint=(
                "For a pairs file, name a field with another text about the image: --query FIELD. A "
                "store needs reports with several sentences."
            ),
        )
    return tuple(named) or RANKERS
