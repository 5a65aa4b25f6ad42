"""`label.pneumothorax > 0.8` in a filter: the labels that `medlens classify --save` keeps, as SQL."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from indexer.catalog.schema import frames, instances, label_scores, labels
from retrieval.errors import UnknownFilterKeyword


def label_score(connection: sa.Connection, path: Sequence[str]) -> sa.ScalarSelect[Any]:
    """For a filter on `instances`: the highest score of the instance's frames, NULL without one.

    `path` is what stands behind `label.`: (NAME,) or (SET, NAME), in any case. UnknownFilterKeyword for a label that
    the catalog does not keep, or that several sets have.
    """
    rows = connection.execute(sa.select(labels.c.id, labels.c.label_set, labels.c.label).order_by(labels.c.id)).all()
    wanted = [part.casefold() for part in path]
    found = [row for row in rows if [row.label_set.casefold(), row.label.casefold()][-len(wanted) :] == wanted]
    name = ".".join(("label", *path))
    if len(found) > 1:
        sets = ", ".join(f"label.{row.label_set}.{row.label}" for row in found)
        raise UnknownFilterKeyword(f"{name!r} is a label of several sets", hint=f"Say which: {sets}.")
    if not found:
        near = difflib.get_close_matches(wanted[-1], [row.label.casefold() for row in rows], n=3, cutoff=0.5)
        hint = f"Did you mean {', '.join(near)}?" if near else "medlens classify --labels SET --save keeps labels."
        raise UnknownFilterKeyword(f"the catalog keeps no label {name.removeprefix('label.')!r}", hint=hint)
    return (
        sa.select(sa.func.max(label_scores.c.score))
        .select_from(label_scores.join(frames, label_scores.c.frame_id == frames.c.id))
        .where(label_scores.c.label_id == found[0].id, frames.c.instance_id == instances.c.id)
        .correlate(instances)
        .scalar_subquery()
    )
