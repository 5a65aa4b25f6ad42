"""Wiring of `medlens calibrate`: truth file in, calibration out, with its held-out figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cli.medlens_labelling import CALIBRATION_KEY, encoded_pictures
from cli.medlens_output import require_place, whole_file, write_text
from cli.medlens_progress import progress_bar
from indexer.reading.files import PictureRequest
from indexer.store.questions import store_model
from indexer.store.store import Store
from retrieval.encoders.clip import ClipEncoder
from retrieval.encoders.model_source import resolve_model
from retrieval.encoders.numpy_text.encoder import LightEncoder
from retrieval.errors import CalibrationError, MedlensError, QueryError
from retrieval.optional import require_optional
from retrieval.types import Embeddings, SearchFilter
from retrieval.zeroshot.calibration import Calibration, HeldOut
from retrieval.zeroshot.classify import ZeroShotClassifier
from retrieval.zeroshot.fitting import LabelledRows, fit_calibration, require_fitting
from retrieval.zeroshot.labels import LabelSet
from retrieval.zeroshot.truth import Truth, TruthRow

_SHOWN = 3  # wrong rows in a message
_UIDS = 5000  # per filter


def calibrate_store(store: Store, truth: Truth, labels: LabelSet, model: str | None, device: str) -> Calibration:
    """Calibrate on a store's vectors and keep the calibration in the store's manifest."""
    require_fitting()  # before minutes of work
    encoder = store_model(store, model, device)
    rows, vectors, pseudonyms = _stored(store, truth)
    kept = _fitted(encoder, labels, truth, rows, vectors, _patients(rows, pseudonyms, truth.name))
    store.manifest[CALIBRATION_KEY + labels.fingerprint[:32]] = json.loads(kept.model_dump_json())
    return kept


def calibrate_files(folder: Path, truth: Truth, labels: LabelSet, model: str | None, device: str) -> Calibration:
    """Calibrate on pictures or DICOM files, which the truth file names relative to `folder`."""
    require_fitting()  # before minutes of work
    encoder = ClipEncoder.from_source(resolve_model(model), device)
    requests = [PictureRequest(folder / str(row.file), encoder.spec.render_profile) for row in truth.rows]

    def unreadable(at: int, error: MedlensError) -> MedlensError:
        return CalibrationError(
            f"line {truth.rows[at].line} of the truth file {truth.name!r} names an image that can't be used: {error}",
            hint="Files are looked for beside the truth file; drop the row, or mend the file.",
        )

    with progress_bar("pictures") as update:
        vectors = encoded_pictures(encoder, requests, unreadable, lambda done: update(done, len(requests), ""))
    patients = [row.patient or str(row.file) for row in truth.rows]
    return _fitted(encoder, labels, truth, truth.rows, vectors, patients)


def figure_rows(calibration: Calibration) -> list[dict[str, Any]]:
    """The held-out figures, a row per label or one for a choice, then the labels that could not be calibrated."""
    rows = [_figures(figures) for figures in calibration.held_out]
    missing = [fit.name for fit in calibration.labels if fit.slope is None]
    nothing = dict.fromkeys(rows[0]) if rows else {}
    return rows + [nothing | {"label": name, "rows": "not calibrated"} for name in missing]


def require_plottable(output: Path | None) -> None:
    """QueryError or MedlensError if no plot can be made there, before anything is fitted."""
    if output is None:
        return
    if output.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise QueryError(f"the plot ends in {output.suffix!r}, expected .png, .svg or .pdf")
    require_optional("matplotlib", "a plot")
    require_place(output)


def reliability_plot(calibration: Calibration, output: Path) -> None:
    """A picture (.png, .svg or .pdf) of the held-out reliability: how often is what was said with p right?"""
    from matplotlib.figure import Figure

    shown = calibration.held_out
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(3.2 * columns, 3.4 * lines), layout="constrained")
    for place, figures in enumerate(shown, 1):
        axes = figure.add_subplot(lines, columns, place)
        said, right, count = (np.array(values) for values in zip(*figures.reliability, strict=True))
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        axes.scatter(said, right, s=8 + 200 * count / count.sum(), color="tab:blue", alpha=0.8)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="probability", ylabel="share that is right")
        axes.set_title(f"{figures.label or calibration.label_set}\nECE {figures.ece}, {figures.rows} rows", fontsize=8)
    with whole_file(output) as temporary:
        figure.savefig(temporary, format=output.suffix[1:].lower())


def write_calibration(calibration: Calibration, output: Path) -> None:
    write_text(output, calibration.model_dump_json(indent=1) + "\n")


def _fitted(
    encoder: ClipEncoder | LightEncoder,
    labels: LabelSet,
    truth: Truth,
    rows: Sequence[TruthRow],
    vectors: Embeddings,
    patients: list[str],
) -> Calibration:
    classifier = ZeroShotClassifier(labels, encoder, encoder.logit_scale)
    values = np.array([row.values for row in rows])
    labelled = LabelledRows(vectors, values, patients, truth.name, truth.sha256)
    return fit_calibration(classifier, labelled, encoder.spec.to_json())


def _stored(store: Store, truth: Truth) -> tuple[list[TruthRow], Embeddings, list[str | None]]:
    """Truth rows by frame, with the frames' vectors and pseudonyms. A row without a frame is said of all of them."""
    wanted: dict[str, list[TruthRow]] = {}
    for row in truth.rows:
        wanted.setdefault(str(row.uid), []).append(row)
    uids = list(wanted)
    rows: list[TruthRow] = []
    vectors: list[Embeddings] = []
    pseudonyms: list[str | None] = []
    met: set[int] = set()
    for start in range(0, len(uids), _UIDS):
        where = SearchFilter({"sop_instance_uid": tuple(uids[start : start + _UIDS])})
        for batch in store.catalog.label_scores.iter_frames(where):
            frames = zip(batch.sop_instance_uids, batch.frame_numbers, batch.patients, strict=True)
            for i, (uid, number, pseudonym) in enumerate(frames):
                for mine in (row for row in wanted[uid] if row.frame in (None, number)):
                    met.add(mine.line)
                    rows.append(mine)
                    vectors.append(batch.vectors[i])
                    pseudonyms.append(pseudonym)
    missing = [row for row in truth.rows if row.line not in met]
    if missing:
        shown = ", ".join(str(row.line) for row in missing[:_SHOWN])
        raise CalibrationError(
            f"{len(missing)} of the {len(truth.rows)} images in the truth file {truth.name!r} are not in the store "
            f"{store.label} (lines {shown}{' ...' if len(missing) > _SHOWN else ''})",
            hint="The truth may be of another archive; index these images, or drop their rows.",
        )
    return rows, np.stack(vectors), pseudonyms


def _patients(rows: Sequence[TruthRow], pseudonyms: Sequence[str | None], where: str) -> list[str]:
    """Who is who, by the store; by the truth file where the store does not know. They must not contradict."""
    named: dict[str, set[str]] = {}
    for row, pseudonym in zip(rows, pseudonyms, strict=True):
        if row.patient is not None and pseudonym is not None:
            named.setdefault(pseudonym, set()).add(row.patient)
    torn = sum(len(names) > 1 for names in named.values())
    if torn:
        raise CalibrationError(
            f"the patients of the truth file {where!r} are not the store's: {torn} patients of the store have several "
            "names there",
            hint="The truth may be of another archive; without its column `patient` the store's own patients are used.",
        )
    return [p or row.patient or str(row.uid) for row, p in zip(rows, pseudonyms, strict=True)]


def _figures(figures: HeldOut) -> dict[str, Any]:
    said = {
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
    return {name: value for name, value in said.items() if name != "positives" or value is not None}
