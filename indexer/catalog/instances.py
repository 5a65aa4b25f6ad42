"""The instances: cohorts, their patients, the positions of slices, and permanent erasure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from indexer.catalog import claims
from indexer.catalog.batching import rows_where_in
from indexer.catalog.conditions import column_named, conditions
from indexer.catalog.database import Database
from indexer.catalog.erasure import Erasures, all_erased, instances_erased, keep_out
from indexer.catalog.filter_notes import filter_notes
from indexer.catalog.removal import erase
from indexer.catalog.schema import frames, instances, reports, sentences
from indexer.catalog.selection import SELECT, SelectionLevel
from retrieval.types import SearchFilter

_NAMED = {"patient_pseudonym": "patient", "study_instance_uid": "study", "series_instance_uid": "series"}


@dataclass(frozen=True)
class SliceRow:
    """The geometry of one image of a series, as `frames.slice_positions` needs it."""

    sop_instance_uid: str
    attributes: Mapping[str, Any]


class Instances:
    """The instances of one catalog. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def select(self, where: SearchFilter, level: SelectionLevel = "study") -> Iterator[dict[str, Any]]:
        """Yield what matches the filter, as one row per study, series or instance, in the order of their UIDs.

        A row of a study has its attributes, `modalities`, and how many matching `series`, `instances` and `frames` it
        has.
        """
        with self._database.reading() as connection:
            yield from SELECT[level](connection, where)

    def filter_notes(self, where: SearchFilter, *, empty: bool) -> tuple[str, ...]:
        """Return what the words of a filter were read as and, if no instance passes (`empty`), what the store has."""
        with self._database.reading() as connection:
            return filter_notes(connection, where, empty=empty, by_frame=False)

    def patients_of(self, sop_instance_uids: Iterable[str]) -> dict[str, str | None]:
        """Return the patient's pseudonym by SOP Instance UID, for the instances that exist."""
        query = sa.select(instances.c.sop_instance_uid, instances.c.patient_pseudonym)
        with self._database.reading() as connection:
            rows = rows_where_in(connection, query, instances.c.sop_instance_uid, list(sop_instance_uids))
            return {row[0]: row[1] for row in rows}

    def slices_of(self, series_instance_uids: Iterable[str]) -> list[SliceRow]:
        """Return the geometry of all images of these series that have one."""
        geometry = ("image_orientation_patient", "image_position_patient")
        names = ("sop_instance_uid", "series_instance_uid", *geometry, "image_type", "instance_number")
        query = (
            sa.select(*(instances.c[name] for name in names))
            .where(instances.c.kind == "image", *(instances.c[name].is_not(None) for name in geometry))
            .order_by(instances.c.id)
        )
        wanted = list(dict.fromkeys(series_instance_uids))
        with self._database.reading() as connection:
            rows = rows_where_in(connection, query, instances.c.series_instance_uid, wanted)
            return [SliceRow(row[0], dict(zip(names, row, strict=True))) for row in rows]

    def count_matching(self, where: SearchFilter) -> dict[str, int]:
        """Count what `delete_matching` would erase: patients, studies, instances, frames and report sentences."""

        def distinct(column: sa.Column[Any]) -> sa.Function[int]:
            return sa.func.count(column.distinct())

        with self._database.reading() as connection:
            chosen = conditions(connection, where)
            row = connection.execute(
                sa.select(
                    distinct(instances.c.patient_pseudonym).label("patients"),
                    distinct(instances.c.study_instance_uid).label("studies"),
                    sa.func.count().label("instances"),
                ).where(*chosen)
            ).one()
            held = sa.select(sa.func.count()).select_from(frames.join(instances)).where(*chosen)
            sentence_count = (
                sa.select(sa.func.count()).select_from(sentences.join(reports).join(instances)).where(*chosen)
            )
            return {
                **row._mapping,
                "frames": connection.execute(held).scalar_one(),
                "sentences": connection.execute(sentence_count).scalar_one(),
            }

    def delete_matching(self, where: SearchFilter, erased: Erasures | None = None) -> int:
        """Erase instances with the rows of their files, their frames, vectors and reports.

        Returns the number of instances.

        SQLite overwrites the freed space (secure_delete), its write-ahead log is emptied, and copies of the catalog
        from migrations are removed. PostgreSQL runs VACUUM; its own logs and backups are its administrator's task. The
        derived indexes drop the rows when they next catch up: `Store.refresh` does so at once.

        With `erased`, a later run keeps out what was erased, and everything else of a patient, study or series that the
        filter names on its own. Without it, a file that is still in the archive is indexed again.
        """
        if not where:
            raise ValueError("delete_matching needs a condition, because an empty filter would erase everything")
        with self._database.writing() as connection:
            query = sa.select(instances.c.id).where(*conditions(connection, where))
            ids = connection.execute(query).scalars().all()
            named = [_NAMED.get(column_named(name)) for name in where.equals]
            scope = named[0] if len(named) == 1 and not where.where else None
            erase(connection, ids, scope or "instance", erased)
            claims.drop_expired_leases(connection)
        self._database.scrub()
        return len(ids)

    def erasures(self) -> dict[str, str]:
        """Return the digests of what was erased and is kept out, with their scopes."""
        with self._database.reading() as connection:
            return all_erased(connection)

    def erase_again(self, digests: Mapping[str, str], erased: Erasures) -> int:
        """Erase what another state of this store had erased, by its digests, and keep it out.

        Copies are removed as by `delete_matching`. Returns the number of instances that were erased.
        """
        with self._database.writing() as connection:
            keep_out(connection, digests)
            ids = instances_erased(connection, digests.keys(), erased)
            erase(connection, ids, "instance", erased)
        if ids:
            self._database.scrub()
        return len(ids)
