"""Wiring of the commands that ask: how hits are shown, render, info.

A search in words starts from cold in a second: what it does not need is imported where it is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cli.medlens_output import whole_file
from indexer.keywords import COLUMNS
from indexer.store.store import Store
from indexer.tasks.optimizing import index_facts
from retrieval.encoders.model_source import render_profile_of, resolve_model
from retrieval.errors import QueryError
from retrieval.types import Hit, SearchResults

SPARE_COLUMNS = ("sop_instance_uid", "body_part_examined", "breakdown")  # of a table that is too narrow
_TABLE_COLUMNS = ("modality", "body_part_examined", "study_date", "series_description", "sop_instance_uid")
_HIDDEN = ("archive_root", "file_path", "kind")  # paths can hold names


def hit_rows(results: SearchResults, *, short: bool) -> list[dict[str, Any]]:
    """The hits as rows of equal keys. `short` is for a table, which leaves out what no hit has."""
    rows = [hit_row(hit, short=short) for hit in results.hits]
    empty = (
        [] if not short else [name for name in ("breakdown", "folded", "slice") if not any(row[name] for row in rows)]
    )
    return [{name: value for name, value in row.items() if name not in empty} for row in rows]


def hit_columns() -> tuple[str, ...]:
    """The names in a row of a hit, for a CSV without hits."""
    kept = [name for name in COLUMNS if name != "sop_instance_uid"]
    key = ("sop_instance_uid", "frame_number")
    return ("rank", "score", "breakdown", "folded", *key, *kept, "patient_pseudonym", "slice", "slices")


def hit_row(hit: Hit, *, short: bool) -> dict[str, Any]:
    """A hit as one row: rank, score, key, then what the catalog keeps. `short` is for a table."""
    row: dict[str, Any] = {"rank": hit.rank, "score": round(hit.score, 6)}
    if short:
        several = hit.breakdown if len(hit.breakdown) > 1 else {}
        row["breakdown"] = [f"{name} {value:.3f}" for name, value in several.items()]
        row |= {name: hit.attributes.get(name) for name in _TABLE_COLUMNS}
        place = f"{values['slice']} of {values['slices']}" if (values := hit.attributes).get("slice") else None
        return row | {"slice": place, "frame": hit.key.frame_number, "folded": hit.folded or None}
    attributes = {k: v for k, v in hit.attributes.items() if k not in _HIDDEN}
    key = {"sop_instance_uid": attributes.pop("sop_instance_uid"), "frame_number": hit.key.frame_number}
    breakdown = {name: round(value, 6) for name, value in hit.breakdown.items()}
    return row | {"breakdown": breakdown, "folded": hit.folded} | key | attributes


def picture_kind(output: Path) -> str:
    """PNG or JPEG, by the ending. QueryError for another."""
    kinds = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
    if output.suffix.lower() not in kinds:
        raise QueryError(f"the output ends in {output.suffix!r}, expected .png or .jpg")
    return kinds[output.suffix.lower()]


def render_file(file: Path, output: Path, kind: str, frame: int, window: str | None, model: str | None) -> None:
    """Write a frame as the model's render profile shows it, at full size."""
    from PIL import Image

    from indexer.reading.pictures import load_picture

    picture = load_picture(file, render_profile_of(resolve_model(model)), frame_number=frame, window=window)
    with whole_file(output) as temporary:
        Image.fromarray(picture).save(temporary, kind)


def store_facts(store: Store) -> dict[str, Any]:
    """What `medlens info` says."""
    counts = store.catalog.counts()
    spec = store.model
    return {
        "model": spec["name"],
        "model_source": spec["source"],
        "dimensions": spec["embed_dim"],
        "render_profile": spec["render_profile"]["name"],
        "weights_sha256": spec["weights_sha256"],
        **{k: v for k, v in vars(counts).items() if k not in ("modalities", "rejected")},
        "instances_by_modality": {k or "unknown": v for k, v in counts.modalities.items()},
        "rejected_files": dict(counts.rejected),
        "labelled_frames": {saved.label_set: saved.frames for saved in store.catalog.labels.saved_sets()},
        **{f"{vectors}_index": facts for vectors, facts in index_facts(store).items()},
    }
