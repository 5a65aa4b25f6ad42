"""Checks of a catalog's content, and removal of damaged rows so that the next indexing run adds them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from indexer.catalog.batching import delete_where_in
from indexer.catalog.database import Database
from indexer.catalog.removal import DUPLICATE, erase, log_deletions
from indexer.catalog.schema import (
    VECTOR_TABLES,
    child_tables,
    deletions,
    files,
    frames,
    instances,
    metadata,
    reports,
    sentences,
)


class CatalogChecks:
    """Checks one catalog. The methods before "repairs" return the ids of damaged rows and change nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def integrity(self) -> list[str]:
        """Return SQLite's own findings on pages, indexes and references. Empty if there are none, and on PostgreSQL."""
        if not self._database.is_sqlite:
            return []
        with self._database.reading() as connection:
            findings = connection.exec_driver_sql("PRAGMA integrity_check(10)").scalars().all()
            if findings != ["ok"]:
                return [str(line).splitlines()[-1] for line in findings]
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        return [f"{len(broken)} rows refer to rows that do not exist"] if broken else []

    def missing_columns(self) -> tuple[int, list[str]]:
        """The number of columns in the schema, and the missing ones; a table without any of its columns by its name."""
        missing, looked_at = [], 0
        with self._database.reading() as connection:
            inspector = sa.inspect(connection)
            there = set(inspector.get_table_names())
            for table in metadata.sorted_tables:
                looked_at += len(table.columns)
                if table.name not in there:
                    missing.append(table.name)
                    continue
                columns = {column["name"] for column in inspector.get_columns(table.name)}
                missing += [f"{table.name}.{column.name}" for column in table.columns if column.name not in columns]
        return looked_at, missing

    def mistyped(self) -> tuple[int, dict[str, int]]:
        """How many columns were looked at, and of those that hold what they can't, how many rows.

        SQLite takes a value of any type for any column, so that is for SQLite only: PostgreSQL refuses it.
        """
        looked_at, found = 0, dict[str, int]()
        if not self._database.is_sqlite:
            return looked_at, found
        there = set(self.missing_columns()[1])
        with self._database.reading() as connection:
            for table in metadata.sorted_tables:
                columns = [c for c in table.columns if f"{table.name}.{c.name}" not in there]
                if table.name in there or not columns:
                    continue
                looked_at += len(columns)
                counts = [sa.func.sum(sa.cast(sa.not_(_fits(column)), sa.Integer)) for column in columns]
                row = connection.execute(sa.select(*counts).select_from(table)).one()
                found |= {f"{table.name}.{c.name}": n for c, n in zip(columns, row, strict=True) if n}
        return looked_at, found

    def miscounted(self) -> dict[str, list[int]]:
        """Return ids of instances whose rows contradict each other, by the kind of contradiction."""
        beyond = (
            sa.select(frames.c.instance_id)
            .join(instances)
            .where((frames.c.frame_number < 1) | (frames.c.frame_number > instances.c.number_of_frames))
        )
        gaps = (
            sa.select(reports.c.instance_id)
            .join(sentences)
            .group_by(reports.c.instance_id)
            .having(sa.func.count() != sa.func.max(sentences.c.position) + 1)
        )
        deleted = [
            sa.select(table.instance_id)
            .select_from(table.joined)
            .join(deletions, (deletions.c.row_id == table.rows.c.id) & (deletions.c.kind == kind))
            for kind, table in VECTOR_TABLES.items()
        ]
        queries = {
            "have more frames than their header declares": [beyond],
            "lack sentences of their reports": [gaps],
            "have rows that the log lists as deleted": deleted,
        }
        with self._database.reading() as connection:
            found = {
                what: sorted({row for query in some for row in connection.execute(query.distinct()).scalars()})
                for what, some in queries.items()
            }
        return {what: ids for what, ids in found.items() if ids}

    def orphan_rows(self) -> dict[str, list[int]]:
        """Return ids of rows whose parent row is missing, by table."""
        out: dict[str, list[int]] = {}
        with self._database.reading() as connection:
            for table in child_tables():
                held = [sa.exists().where(key.column == key.parent) for key in table.foreign_keys]
                query = sa.select(table.c.id).where(~sa.and_(*held))
                if found := list(connection.execute(query).scalars()):
                    out[table.name] = found
        return out

    def files_without_instances(self) -> list[int]:
        """Ids of files that count as indexed although their instance is missing; they would never be read again."""
        own = ~sa.exists().where(instances.c.file_id == files.c.id)
        other = ~sa.exists().where(instances.c.sop_instance_uid == files.c.sop_instance_uid)
        missing = sa.or_(sa.and_(files.c.reason == "", own), sa.and_(files.c.reason == DUPLICATE, other))
        with self._database.reading() as connection:
            return list(connection.execute(sa.select(files.c.id).where(files.c.status == "indexed", missing)).scalars())

    def images_without_frames(self) -> list[int]:
        """Return ids of instances that are images but have no frame in the catalog; no search can find them."""
        query = sa.select(instances.c.id).where(
            instances.c.kind == "image",
            sa.func.coalesce(instances.c.number_of_frames, 1) > 0,
            ~sa.exists().where(frames.c.instance_id == instances.c.id),
        )
        with self._database.reading() as connection:
            return list(connection.execute(query).scalars())

    # -- repairs

    def drop_instances(self, ids: Sequence[int]) -> None:
        """Remove instances with the rows of their files, so that the next indexing run reads and encodes them again."""
        with self._database.writing() as connection:
            erase(connection, ids, "instance")

    def drop_files(self, ids: Sequence[int]) -> None:
        with self._database.writing() as connection:
            delete_where_in(connection, files, files.c.id, ids)

    def drop_orphan_rows(self, found: dict[str, list[int]]) -> None:
        kinds = {table.rows.name: kind for kind, table in VECTOR_TABLES.items()}
        with self._database.writing() as connection:
            for table in child_tables():
                ids = found.get(table.name, [])
                if table.name in kinds:
                    log_deletions(connection, kinds[table.name], ids)
                delete_where_in(connection, table, table.c.id, ids)


_STORED_AS: tuple[tuple[type[sa.types.TypeEngine[Any]], tuple[str, ...]], ...] = (
    (sa.LargeBinary, ("blob",)),
    (sa.Boolean, ("integer",)),
    (sa.Integer, ("integer",)),
    (sa.Numeric, ("real", "integer")),
    (sa.Float, ("real", "integer")),
)
_NEEDED = "study_instance_uid"  # nullable, but every file that is read has one


def _fits(column: sa.Column[Any]) -> sa.ColumnElement[bool]:
    """Whether SQLite holds in this row what a column of this type has. https://sqlite.org/datatype3.html"""
    kind = column.type.impl if isinstance(column.type, sa.TypeDecorator) else column.type
    stored = next((names for known, names in _STORED_AS if isinstance(kind, known)), ("text",))
    raw = sa.type_coerce(column, sa.types.NullType())  # as it is: SQLAlchemy would make of it what the column says
    fits: list[sa.ColumnElement[bool]] = [sa.func.typeof(raw).in_(stored)]
    if isinstance(kind, sa.Date):
        fits.append(sa.func.date(raw).is_not(None))
    if isinstance(kind, sa.JSON):
        fits.append(sa.func.json_valid(raw) == 1)
    if column.name == _NEEDED or not column.nullable:
        return sa.and_(*fits)
    return sa.or_(raw.is_(None), sa.and_(*fits))
