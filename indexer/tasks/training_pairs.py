"""A store as training pairs: its frames as small pictures, the report of their study as the text.

Training needs neither DICOM nor a catalog: it reads a folder with a pairs file. The folder is created here once per
run, rendered as the encoder sees the files, and names a patient only by the pseudonym. A patient's side of the split
depends on the pseudonym alone: it stays the same as the store grows, and in every run on it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from indexer.catalog.conditions import require_valid
from indexer.on_disk import locked
from indexer.reading.files import PictureRequest
from indexer.reading.pictures import load_pictures
from indexer.sources.opening import locate
from indexer.tasks.evaluation_data import FIELDS, frame_rows, plane_of, sentences_by_study
from retrieval.errors import DicomError, FileUnreadable, TrainingError
from retrieval.on_disk import folder_written_whole
from retrieval.row_files import plain
from retrieval.types import RenderProfile, SearchFilter, Uint8Image

if TYPE_CHECKING:
    from indexer.store.store import Store

PAIRS_NAME, STAMP_NAME = "pairs.jsonl", "export.json"
NOWHERE = "bad-path"


@dataclass(frozen=True)
class ExportSettings:
    """`where` filters frames, `dev_share` of the patients are dev rows, a picture has at most `longest` pixels along an
    edge.
    """

    where: str = ""
    dev_share: float = 0.1
    longest: int = 512
    profile: RenderProfile = RenderProfile()


@dataclass(frozen=True)
class ExportedPairs:
    """The content of the folder.

    `unreadable` counts frames by the error code of their file; `changed`: the store has changed since.
    """

    pairs: Path
    rows: int
    patients: int
    without_report: int
    unreadable: dict[str, int]
    changed: bool = False


@dataclass(frozen=True)
class _Frame:
    place: tuple[str, str, int]  # archive root, path in it, frame number
    row: dict[str, Any]


def export_pairs(
    store: Store,
    folder: Path,
    settings: ExportSettings = ExportSettings(),
    *,
    keep: bool = False,
    workers: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ExportedPairs:
    """Fill `folder` with pairs.jsonl and pictures, unless it has them already.

    With `keep` it is also left unchanged if it was made from another state of the store. Several processes may call
    this at once: one of them does it. Raises TrainingError if no frame has a report or none can be read, QueryError for
    an invalid filter.
    """
    frames, without_report = _plan(store, settings)
    plan = [asdict(settings), str(store.manifest.get("store_id")), [frame.row for frame in frames]]
    stamp = {"settings": _digest(plan[:2]), "plan": _digest(plan)}
    with locked(folder.parent):
        there = _stamp_of(folder)
        if there and (there["plan"] == stamp["plan"] or (keep and there["settings"] == stamp["settings"])):
            return ExportedPairs(folder / PAIRS_NAME, **there["outcome"], changed=there["plan"] != stamp["plan"])
        with folder_written_whole(folder) as made:
            made.chmod(0o700)  # pictures and reports of patients
            (made / "images").mkdir()
            outcome = _write(frames, made, settings, workers, progress)
            outcome["without_report"] = without_report
            (made / STAMP_NAME).write_text(json.dumps(stamp | {"outcome": outcome}), encoding="utf-8")
    return ExportedPairs(folder / PAIRS_NAME, **outcome)


def side_of(group: str, dev_share: float) -> str:
    """Return `dev` or `train`, always the same for a patient."""
    drawn = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
    return "dev" if drawn < dev_share else "train"


def _plan(store: Store, settings: ExportSettings) -> tuple[list[_Frame], int]:
    """Return the rows, and the number of frames without a report."""
    chosen = SearchFilter(where=settings.where)
    require_valid(chosen)
    ids = store.catalog.frames.ids_matching(chosen)
    sentences_of = sentences_by_study(store)
    frames, without = [], 0
    for number, values in frame_rows(store, ids).items():
        study = str(values["study_instance_uid"])
        sentences = list(dict.fromkeys(text for _, text in sentences_of.get(study, ())))
        if not sentences:
            without += 1
            continue
        # Without a patient, a digest of the study is used instead: its UID must not be in a training set.
        group = values["patient_pseudonym"] or f"study-{hashlib.sha256(study.encode()).hexdigest()[:16]}"
        row = {
            "image": f"images/{number}.png",
            "text": " ".join(_ended(sentence) for sentence in sentences),
            "group": group,
            "split": side_of(group, settings.dev_share),
            "plane": plane_of(values["image_orientation_patient"]),
            **{name: plain(values[name]) for name in FIELDS},
        }
        place = (values["archive_root"], values["file_path"], values["frame_number"])
        frames.append(_Frame(place, {name: value for name, value in row.items() if value}))
    if not frames:
        raise TrainingError(
            f"the store {store.label} has no frame with a report to train on; {without} frames have no report",
            hint="Index structured reports of the same studies, or check the filter under `where`.",
        )
    return frames, without


def _write(
    frames: list[_Frame], out: Path, settings: ExportSettings, workers: int, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    readable_rows: list[dict[str, Any]] = []
    unreadable: Counter[str] = Counter()
    requests, requested_rows = [], []
    for frame in frames:
        root, path, number = frame.place
        try:
            place = locate(root, path)
        except FileUnreadable:
            unreadable[NOWHERE] += 1
            continue
        requests.append(PictureRequest(place, settings.profile, number, longest=settings.longest))
        requested_rows.append(frame.row)
    pictures = load_pictures(requests, workers=workers)
    for done, (row, (_, outcome)) in enumerate(zip(requested_rows, pictures, strict=True), 1):
        if isinstance(outcome, DicomError):
            unreadable[outcome.code] += 1
        else:
            _grey(outcome).save(out / row["image"], compress_level=1)
            readable_rows.append(row)
        progress(done, len(requested_rows))
    if not readable_rows:
        why = ", ".join(f"{number} {code}" for code, number in unreadable.items())
        raise TrainingError(
            f"none of the {len(frames)} frames could be read: {why}",
            hint=(
                "The archive must be where it was when you indexed it. Run `medlens verify --files` to "
                "find missing files."
            ),
        )
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in readable_rows)
    (out / PAIRS_NAME).write_text("".join(lines), encoding="utf-8")
    return {
        "rows": len(readable_rows),
        "patients": len({row["group"] for row in readable_rows}),
        "unreadable": dict(unreadable),
    }


def _grey(picture: Uint8Image) -> Image.Image:
    return Image.fromarray(picture).convert("L")  # the towers are trained on grey


def _ended(sentence: str) -> str:
    return sentence if sentence[-1] in ".!?;:" else f"{sentence}."


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def _stamp_of(folder: Path) -> Mapping[str, Any] | None:
    """Return what a folder was made from, None if there is none."""
    try:
        values = json.loads((folder / STAMP_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) and {"settings", "plan", "outcome"} <= values.keys() else None
