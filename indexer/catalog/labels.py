"""Zero-shot labels of the frames, saved for filters such as `label.pneumothorax > 0.8`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from indexer.catalog.batching import chunks
from indexer.catalog.database import Database
from indexer.catalog.schema import frames, instances, label_scores, labels
from indexer.catalog.vectors_in_use import VectorsInUse
from retrieval.encoders.released import title
from retrieval.errors import UnknownFilterKeyword


@dataclass(frozen=True)
class SavedSet:
    """A label set with labels saved in the catalog. `made_by` identifies the model, prompts and calibration.

    `former_model` names the model that made them, if the store has had another since.
    """

    label_set: str
    labels: tuple[str, ...]
    made_by: str
    is_probability: bool
    frames: int = 0
    former_model: str | None = None


class Labels:
    """The labels of one catalog's frames."""

    def __init__(self, database: Database, in_use: VectorsInUse) -> None:
        self._database = database
        self._in_use = in_use

    def save(self, saved: SavedSet, values: Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]) -> int:
        """Save labels: batches of (frame ids [n], values [n, labels] from 0 to 1, NaN to leave out).

        Returns the frame count.

        Saved labels of the set are removed with the first batch if other labels, another model, other prompts or
        another calibration made them. Each batch is one transaction; run it again to complete a stopped run. Frames
        that were deleted meanwhile are left out. Raises StoreIncompatible if another process has changed the store's
        model.
        """
        count = 0
        for frame_ids, scores in values:
            with self._database.writing() as connection:
                self._in_use.require(connection)
                ids_of = _label_ids(connection, saved)
                there = _still_there(connection, frame_ids)
                for column, label_id in enumerate(ids_of):
                    keep = there & ~np.isnan(scores[:, column])
                    pairs = zip(frame_ids[keep].tolist(), scores[keep, column].tolist(), strict=True)
                    rows = [{"label_id": label_id, "frame_id": i, "score": round(v, 6)} for i, v in pairs]
                    if rows:
                        insert = _insert(connection, label_scores)
                        update = {"score": insert.excluded.score}
                        key = [label_scores.c.label_id, label_scores.c.frame_id]
                        connection.execute(insert.on_conflict_do_update(index_elements=key, set_=update), rows)
                count += int(there.sum())
        return count

    def saved_sets(self) -> list[SavedSet]:
        """Return the saved sets, by name."""
        counted = (
            sa.select(labels, sa.func.count(label_scores.c.frame_id).label("frames"))
            .select_from(labels.outerjoin(label_scores))
            .group_by(labels.c.id)
            .order_by(labels.c.label_set, labels.c.id)
        )
        with self._database.reading() as connection:
            rows = connection.execute(counted).all()
        found: dict[str, SavedSet] = {}
        for row in rows:
            before = found.get(row.label_set)
            names = (*before.labels, row.label) if before else (row.label,)
            most = max(row.frames, before.frames if before else 0)
            former = None if row.former_model is None else title(row.former_model)
            found[row.label_set] = SavedSet(row.label_set, names, row.made_by, row.is_probability, most, former)
        return list(found.values())

    def former_models(self, names: Iterable[Sequence[str]]) -> dict[str, str]:
        """Of the sets that have labels named so in a filter: those that a former model made, with its name.

        Each name is what stands behind `label.`: (NAME,) or (SET, NAME), in any case.
        """
        wanted = [[part.casefold() for part in name] for name in names]
        if not wanted:
            return {}
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(labels).where(labels.c.former_model.is_not(None))).all()
        return {
            row.label_set: title(row.former_model)
            for row in rows
            if any([row.label_set.casefold(), row.label.casefold()][-len(name) :] == name for name in wanted)
        }

    def of_frame(self, frame_id: int) -> dict[str, dict[str, float]]:
        """Return the saved labels of one frame: for each label set, the value of each label."""
        query = (
            sa.select(labels.c.label_set, labels.c.label, label_scores.c.score)
            .select_from(labels.join(label_scores))
            .where(label_scores.c.frame_id == frame_id)
            .order_by(labels.c.label_set, labels.c.id)
        )
        found: dict[str, dict[str, float]] = {}
        with self._database.reading() as connection:
            for label_set, label, score in connection.execute(query):
                found.setdefault(label_set, {})[label] = score
        return found

    def forget(self, label_set: str) -> bool:
        """Remove the saved labels of a set. Returns whether there were any."""
        with self._database.writing() as connection:
            return _forgotten(connection, label_set)


def label_score(connection: sa.Connection, path: Sequence[str]) -> sa.ScalarSelect[Any]:
    """Return the SQL for a filter on `instances`: the highest score of the instance's frames, NULL without one.

    `path` is what follows `label.`: (NAME,) or (SET, NAME), in any case. Raises UnknownFilterKeyword for a label that
    is not saved, or that several sets have.
    """
    rows = connection.execute(sa.select(labels.c.id, labels.c.label_set, labels.c.label).order_by(labels.c.id)).all()
    wanted = [part.casefold() for part in path]
    found = [row for row in rows if [row.label_set.casefold(), row.label.casefold()][-len(wanted) :] == wanted]
    name = ".".join(("label", *path))
    if len(found) > 1:
        sets = ", ".join(f"label.{row.label_set}.{row.label}" for row in found)
        raise UnknownFilterKeyword(
            f"several label sets have the label {name!r}", hint=f"Name the label set too: {sets}."
        )
    if not found:
        near = difflib.get_close_matches(wanted[-1], [row.label.casefold() for row in rows], n=3, cutoff=0.5)
        hint = (
            f"Did you mean {', '.join(near)}?"
            if near
            else "To save labels in the store, run `medlens classify --labels SET --save`."
        )
        raise UnknownFilterKeyword(f"the store has no saved label {name.removeprefix('label.')!r}", hint=hint)
    return (
        sa.select(sa.func.max(label_scores.c.score))
        .select_from(label_scores.join(frames, label_scores.c.frame_id == frames.c.id))
        .where(label_scores.c.label_id == found[0].id, frames.c.instance_id == instances.c.id)
        .correlate(instances)
        .scalar_subquery()
    )


def mark_former(connection: sa.Connection, former: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    """When the model of the store changes: all labels are of the former model, but those that the new one once made."""
    kept = {name: former[name] for name in ("name", "weights_sha256", "fingerprint") if name in former}
    connection.execute(sa.update(labels).where(labels.c.former_model.is_(None)).values(former_model=kept))
    back = [
        row.id
        for row in connection.execute(sa.select(labels.c.id, labels.c.former_model))
        if row.former_model.get("fingerprint") == present.get("fingerprint") is not None
    ]
    for part in chunks(back):
        connection.execute(sa.update(labels).where(labels.c.id.in_(part)).values(former_model=None))


def _label_ids(connection: sa.Connection, saved: SavedSet) -> list[int]:
    """The ids of a set's labels, in its order; what something else made of the set is replaced."""
    mine = labels.c.label_set == saved.label_set
    wanted = [(name, saved.made_by, saved.is_probability, None) for name in saved.labels]
    columns = (labels.c.label, labels.c.made_by, labels.c.is_probability, labels.c.former_model)
    query = sa.select(*columns).where(mine).order_by(labels.c.id)
    if [tuple(row) for row in connection.execute(query)] != wanted:
        _forgotten(connection, saved.label_set)
        rows = [
            {"label_set": saved.label_set, "label": name, "made_by": made_by, "is_probability": probability}
            for name, made_by, probability, _ in wanted
        ]
        connection.execute(sa.insert(labels), rows)
    return list(connection.execute(sa.select(labels.c.id).where(mine).order_by(labels.c.id)).scalars())


def _insert(connection: sa.Connection, table: sa.Table) -> Any:
    """The dialect's own INSERT, which handles conflicts. PostgreSQL's is imported here because the import is slow."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)


def _forgotten(connection: sa.Connection, label_set: str) -> bool:
    return bool(connection.execute(sa.delete(labels).where(labels.c.label_set == label_set)).rowcount)


def _still_there(connection: sa.Connection, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    if not len(ids):
        return np.zeros(0, np.bool_)
    span = frames.c.id.between(int(ids.min()), int(ids.max()))
    present = np.fromiter(connection.execute(sa.select(frames.c.id).where(span)).scalars(), np.int64)
    return np.isin(ids, present)
