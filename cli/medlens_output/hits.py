"""Rows of search results and of description sentences."""

from __future__ import annotations

from typing import Any

from indexer.keywords import COLUMNS
from retrieval.search.describe import SentenceHit
from retrieval.search.refs import LEAST_LETTERS
from retrieval.types import Hit, SearchResults

SPARE_COLUMNS = ("sop_instance_uid", "body_part_examined", "breakdown")  # left out if the terminal is too narrow
_TABLE_COLUMNS = ("modality", "body_part_examined", "study_date", "series_description", "sop_instance_uid")
_HIDDEN = ("archive_root", "file_path", "kind")  # file paths can contain names of people


def hit_rows(results: SearchResults, *, short: bool) -> list[dict[str, Any]]:
    """Return the hits as rows with the same keys. `short`, for a table, leaves out values that no hit has."""
    rows = [hit_row(hit, short=short) for hit in results.hits]
    empty = (
        [] if not short else [name for name in ("breakdown", "folded", "slice") if not any(row[name] for row in rows)]
    )
    return [{name: value for name, value in row.items() if name not in empty} for row in rows]


def hit_columns() -> tuple[str, ...]:
    """Return the names of the columns of a hit, for a CSV without hits."""
    kept = [name for name in COLUMNS if name != "sop_instance_uid"]
    key = ("ref", "sop_instance_uid", "frame_number")
    own = ("patient_pseudonym", "burned_in_text", "slice", "slices")
    return ("rank", "score", "breakdown", "folded", *key, *kept, *own)


def hit_row(hit: Hit, *, short: bool) -> dict[str, Any]:
    """Return a hit as one row: rank, score, key, then the attributes in the catalog. `short` is for a table."""
    row: dict[str, Any] = {"rank": hit.rank, "score": round(hit.score, 6)}
    if short:
        several = hit.breakdown if len(hit.breakdown) > 1 else {}
        row["ref"] = hit.key.short[:LEAST_LETTERS]
        row["breakdown"] = [f"{name} {value:.3f}" for name, value in several.items()]
        row |= {name: hit.attributes.get(name) for name in _TABLE_COLUMNS}
        place = f"{values['slice']} of {values['slices']}" if (values := hit.attributes).get("slice") else None
        return row | {"slice": place, "frame": hit.key.frame_number, "folded": hit.folded or None}
    attributes = {k: v for k, v in hit.attributes.items() if k not in _HIDDEN}
    uid = attributes.pop("sop_instance_uid")
    key = {"ref": hit.key.short, "sop_instance_uid": uid, "frame_number": hit.key.frame_number}
    breakdown = {name: round(value, 6) for name, value in hit.breakdown.items()}
    return row | {"breakdown": breakdown, "folded": hit.folded} | key | attributes


def sentence_row(hit: SentenceHit, *, short: bool, phrases: bool) -> dict[str, Any]:
    """Return a sentence as one row. `short` is for a table."""
    row: dict[str, Any] = {"rank": hit.rank, "score": round(hit.score, 6), "text": hit.text}
    if phrases:
        return row
    if short:
        whose = {True: "yes", False: "no", None: "?"}
        borrowed = {} if hit.borrowed is None else {"borrowed": round(hit.borrowed, 3)}
        return row | {"studies": len(hit.studies), "same patient": whose[hit.same_patient], "borrowed": None} | borrowed
    borrowed_from = None if hit.borrowed is None else {"study": hit.studies[0], "score": round(hit.borrowed, 6)}
    return row | {
        "studies": list(hit.studies),
        "same_study": hit.same_study,
        "same_patient": hit.same_patient,
        "borrowed_from": borrowed_from,
    }
