"""Studies, series or instances that match a filter, without a query: for counts and cohorts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any, Literal

import sqlalchemy as sa

from indexer.catalog.conditions import conditions
from indexer.catalog.schema import OWN_COLUMNS, archives, files, frames, instances
from indexer.keywords import COLUMNS, AttributeLevel
from retrieval.types import SearchFilter

SelectionLevel = Literal["study", "series", "instance"]
_STUDY = ("patient_pseudonym", *(name for name, k in COLUMNS.items() if k.level is AttributeLevel.STUDY))
_SERIES = tuple(name for name, k in COLUMNS.items() if k.level is AttributeLevel.SERIES)
_STUDY_ATTRIBUTES, _SERIES_ATTRIBUTES = (
    tuple(n for n in names if not n.endswith("_uid")) for names in (_STUDY, _SERIES)
)
_BATCH = 10_000


def select_instances(connection: sa.Connection, where: SearchFilter) -> Iterator[dict[str, Any]]:
    """Return every matching instance, by patient, study and series: its attributes, `file_path` and `archive_root`."""
    query = (
        sa.select(
            *(instances.c[name] for name in (*OWN_COLUMNS, *COLUMNS)),
            files.c.path.label("file_path"),
            archives.c.root.label("archive_root"),
        )
        .select_from(instances.join(files, instances.c.file_id == files.c.id).join(archives))
        .where(*conditions(connection, where))
        .order_by(*(instances.c[name] for name in ("patient_pseudonym", "study_instance_uid", "series_instance_uid")))
        .order_by(instances.c.instance_number, instances.c.id)
        .execution_options(yield_per=_BATCH)
    )
    for row in connection.execute(query):
        yield dict(row._mapping)


def select_series(connection: sa.Connection, where: SearchFilter) -> Iterator[dict[str, Any]]:
    """Return every series with a matching instance: the attributes of study and series, and the number of matches."""
    attributes = [sa.func.min(instances.c[name]).label(name) for name in (*_STUDY_ATTRIBUTES, *_SERIES_ATTRIBUTES)]
    by = [instances.c.study_instance_uid, instances.c.series_instance_uid]
    per_instance = sa.select(sa.func.count()).where(frames.c.instance_id == instances.c.id).scalar_subquery()
    query = (
        sa.select(*by, *attributes, sa.func.count().label("instances"), sa.func.sum(per_instance).label("frames"))
        .where(*conditions(connection, where))
        .group_by(*by)
        .order_by(*by)
        .execution_options(yield_per=_BATCH)
    )
    for row in connection.execute(query):
        values = dict(row._mapping)
        yield values | {"frames": int(values["frames"])}


def select_studies(connection: sa.Connection, where: SearchFilter) -> Iterator[dict[str, Any]]:
    """Return every study with a matching instance: its attributes, its modalities, and the number of matches."""
    for uid, group in groupby(select_series(connection, where), key=lambda row: row["study_instance_uid"]):
        rows = list(group)
        modalities = {str(row["modality"]) for row in rows if row["modality"]}
        yield {
            "study_instance_uid": uid,
            **{name: next((r[name] for r in rows if r[name] is not None), None) for name in _STUDY_ATTRIBUTES},
            "modalities": sorted(modalities),
            "series": len(rows),
            "instances": sum(row["instances"] for row in rows),
            "frames": sum(row["frames"] for row in rows),
        }


SELECTED: dict[SelectionLevel, tuple[str, ...]] = {  # the names in a row
    "study": ("study_instance_uid", *_STUDY_ATTRIBUTES, "modalities", "series", "instances", "frames"),
    "series": (
        "study_instance_uid",
        "series_instance_uid",
        *_STUDY_ATTRIBUTES,
        *_SERIES_ATTRIBUTES,
        "instances",
        "frames",
    ),
    "instance": (*OWN_COLUMNS, *COLUMNS),
}
SELECT = {"study": select_studies, "series": select_series, "instance": select_instances}
