"""`medlens evaluate`: wiring. Rows from a pairs file or a store, models that encode them, and where the report goes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cli.medlens_labelling import calibration_of, encoded_pictures
from cli.medlens_progress import progress_bar
from indexer.reading.files import PictureRequest
from indexer.store.store import Store, is_url
from indexer.tasks.judging import store_truth
from retrieval.encoders.clip import ClipEncoder
from retrieval.encoders.model_source import resolve_model
from retrieval.encoders.spec import differing
from retrieval.errors import CalibrationError, EvaluationError, MedlensError
from retrieval.evaluation.evaluate import (
    DENSE,
    RANKERS,
    Compared,
    Evaluation,
    Options,
    Progress,
    compare,
    evaluate,
)
from retrieval.evaluation.pairs import evaluation_rows, read_pairs
from retrieval.evaluation.plots import require_matplotlib
from retrieval.evaluation.report import write_report
from retrieval.evaluation.rows import EvaluationRows
from retrieval.types import Embeddings, RenderProfile
from retrieval.zeroshot.calibration import Calibration, model_fingerprint, read_calibration
from retrieval.zeroshot.labels import LabelSet, load_labels, shipped_label_sets

logger = logging.getLogger(__name__)

STORE_LIMIT = 5000  # frames of a store, unless --limit says otherwise
TRUTH_FIELDS = {
    "body_region": ("body_region", "body_part_examined"),
    "projection": ("projection", "view", "view_position"),
    "pneumonia": ("pneumonia", "label"),
}


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    pairs: Path | None
    store: str
    split: str | None
    text: str | None
    query: str | None
    rankers: tuple[str, ...]
    labels: tuple[str, ...]
    calibrations: tuple[Path, ...]
    zero_shot_only: bool
    trained_on: tuple[Path, ...]
    model: str | None
    compare: str | None
    device: str
    limit: int | None
    resamples: int
    seed: int
    output: Path | None


@dataclass(frozen=True)
class Subject:
    """What a model is judged on, wherever it came from. `own` are vectors that are there already."""

    rows: EvaluationRows
    requests: Callable[[RenderProfile], Sequence[PictureRequest]]
    own_model: Mapping[str, object] | None = None
    own_images: Embeddings | None = None
    own_texts: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    calibration_of: Callable[[LabelSet], Calibration | None] = lambda _: None


def run_evaluation(request: Request) -> tuple[Evaluation, Compared | None]:
    """Judge one model, or two, and write the report if one was asked for."""
    if request.output is not None:
        require_matplotlib()  # before minutes of encoding
    with progress_bar("evaluating") as update:

        def show(what: str, done: int, total: int) -> None:
            update(done, total, what)

        with _subject(request, show) as (subject, model):
            label_sets = _label_sets(request.labels, subject.rows)
            calibrations = _calibrations(request.calibrations, [labels for labels, _ in label_sets], subject)
            options = Options(
                rankers=_rankers(request, subject.rows),
                grade_by=tuple(dict.fromkeys(name for _, name in label_sets)),
                resamples=request.resamples,
                seed=request.seed,
            )

            def judged(name: str | None) -> Evaluation:
                encoder = ClipEncoder.from_source(resolve_model(name), request.device)
                mine = subject.own_model is not None and not differing(subject.own_model, encoder.spec.to_json())
                images = subject.own_images if mine else None
                if images is None:
                    images = _encoded(subject, encoder, show)
                return evaluate(
                    subject.rows,
                    encoder,
                    images,
                    label_sets=label_sets,
                    known_texts=subject.own_texts if mine else {},
                    calibrations=_fitting(calibrations, encoder.spec.to_json()),
                    retrieval=not request.zero_shot_only,
                    options=options,
                    progress=lambda what, done, total: show(f"{what} {encoder.name}", done, total),
                )

            first = judged(model)
            compared = compare(first, judged(request.compare)) if request.compare else None
        if request.output is not None:
            show("writing the report", 0, 1)
            write_report(request.output, first, compared)
    return first, compared


@contextmanager
def _subject(request: Request, progress: Progress) -> Iterator[tuple[Subject, str | None]]:
    """The rows, and the model that is judged if none was named."""
    if request.pairs is None:
        place = request.store if is_url(request.store) else Path(request.store)
        with Store.open(place) as store:
            truth = store_truth(store, limit=request.limit or STORE_LIMIT, seed=request.seed)
            kept = partial(calibration_of, store)
            subject = Subject(truth.rows, truth.requests, store.model, truth.images, truth.sentences, kept)
            yield subject, request.model or str(store.model["source"])
        return
    rows, paths = evaluation_rows(
        read_pairs(request.pairs),
        split=request.split or "dev",
        text=request.text or "text",
        query=request.query,
        trained_on=[read_pairs(path) for path in request.trained_on],
        limit=request.limit,
        seed=request.seed,
        progress=progress,
    )
    yield Subject(rows, lambda profile: [PictureRequest(path, profile) for path in paths]), request.model


def _encoded(subject: Subject, encoder: ClipEncoder, progress: Progress) -> Embeddings:
    """[N, embed_dim], in the order of the rows. Raises EvaluationError if one can't be read."""
    requests = subject.requests(encoder.spec.render_profile)

    def unreadable(at: int, error: MedlensError) -> MedlensError:
        return EvaluationError(
            f"the image of row {at + 1} of {len(requests)} can't be read: {error}",
            hint="All rows are needed: a gallery without some of them would be an easier one.",
        )

    return encoded_pictures(
        encoder, requests, unreadable, lambda done: progress(f"encoding with {encoder.name}", done, len(requests))
    )


def _calibrations(named: Sequence[Path], asked: Sequence[LabelSet], subject: Subject) -> dict[str, Calibration]:
    """By the label sets' fingerprints: those named, else the store's. CalibrationError for one of another set."""
    found = {labels.fingerprint: kept for labels in asked if (kept := subject.calibration_of(labels)) is not None}
    for path in named:
        kept = read_calibration(path)
        if kept.labels_sha256 not in {labels.fingerprint for labels in asked}:
            raise CalibrationError(
                f"the calibration {path.name!r} is for the label set {kept.label_set!r} which is not judged so worded",
                hint=f"Judged are: {', '.join(labels.name for labels in asked) or 'none'}. Name others with --labels.",
            )
        found[kept.labels_sha256] = kept
    return found


def _fitting(calibrations: Mapping[str, Calibration], model: Mapping[str, object]) -> dict[str, Calibration]:
    """Those of a model; of the others the log says that they are left out."""
    own = model_fingerprint(model)
    for kept in calibrations.values():
        if kept.model_sha256 != own:
            logger.warning(
                "the calibration of %r is of the model %r, not of %s", kept.label_set, kept.model, model["name"]
            )
    return {labels: kept for labels, kept in calibrations.items() if kept.model_sha256 == own}


def _label_sets(asked: Sequence[str], rows: EvaluationRows) -> list[tuple[LabelSet, str]]:
    """Those named, with the field that says the truth; else the shipped ones of which two labels occur."""
    out = []
    for one in asked:
        name, _, field_name = one.partition("=")
        labels = load_labels(name)
        fields = [field_name] if field_name else [f for f in truth_fields(labels.name) if f in rows.fields]
        if not fields or fields[0] not in rows.fields:
            raise EvaluationError(
                f"the rows have no field {field_name or labels.name!r} to say which label of {labels.name!r} is "
                f"true; there are: {', '.join(rows.fields) or 'none'}",
                hint=f"Name one of them: --labels {name}=FIELD.",
            )
        out.append((labels, fields[0]))
    if asked:
        return out
    for name in shipped_label_sets():
        labels = load_labels(name)
        for field_name in truth_fields(name):
            if field_name in rows.fields and len(np.unique(t := rows.truth(labels, field_name))) > 1 + (-1 in t):
                out.append((labels, field_name))
                break
    return out


def truth_fields(label_set: str) -> tuple[str, ...]:
    """The fields that may say the truth of a shipped label set."""
    return TRUTH_FIELDS.get(label_set, (label_set,))


def _rankers(request: Request, rows: EvaluationRows) -> tuple[str, ...]:
    unknown = [name for name in request.rankers if name not in RANKERS]
    if unknown:
        raise EvaluationError(f"there is no ranker {unknown[0]!r}", hint=f"There are: {', '.join(RANKERS)}.")
    if rows.asked is None and {*request.rankers} - {DENSE}:
        raise EvaluationError(
            "the text ranker needs a text to rank by that is not the query itself",
            hint="Name a field of the pairs file with another text about the image: --query FIELD. A store needs "
            "reports of several sentences.",
        )
    return request.rankers or RANKERS
