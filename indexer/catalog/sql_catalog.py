"""The catalog: what is in the archive, with every vector. The vector indexes are derived from it.

A row and its vector are committed in one transaction, so that no crash can separate them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from indexer.catalog.checks import CatalogChecks
from indexer.catalog.claims import Claims
from indexer.catalog.copies import require_sound
from indexer.catalog.database import Database, parse_url
from indexer.catalog.files import Files
from indexer.catalog.frames import Frames
from indexer.catalog.instances import Instances
from indexer.catalog.labels import Labels
from indexer.catalog.manifest import Manifest, write_settings
from indexer.catalog.model_change import ModelChanges
from indexer.catalog.reports import Reports
from indexer.catalog.schema import files, frames, instances, reports, sentences
from indexer.catalog.vectors import VectorSets
from indexer.catalog.vectors_in_use import VectorsInUse
from retrieval.errors import StoreError, StoreNotFound
from retrieval.on_disk import make_private


@dataclass(frozen=True)
class Counts:
    """The numbers of rows in the catalog. `files` counts indexed files, second copies included."""

    files: int = 0
    instances: int = 0
    frames: int = 0
    studies: int = 0
    series: int = 0
    patients: int = 0
    reports: int = 0
    sentences: int = 0
    modalities: Mapping[str, int] = field(default_factory=dict)  # instances by Modality, '' if it is not stated
    rejected: Mapping[str, int] = field(default_factory=dict)  # files by reason


class SqlCatalog:
    """The catalog in SQLite or PostgreSQL, by subject. Safe for several threads and processes.

    Every method of a subject is one transaction. Database errors are raised as StoreError with a hint.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.manifest = Manifest(database)
        self.vectors_in_use = VectorsInUse(database)
        self.vectors = VectorSets(database, lambda: self.embed_dim)
        self.files = Files(database, lambda: self.embed_dim, self.vectors_in_use)
        self.claims = Claims(database)
        self.instances = Instances(database)
        self.frames = Frames(database, self.vectors, self.vectors_in_use)
        self.reports = Reports(database)
        self.labels = Labels(database, self.vectors_in_use)
        self.model_changes = ModelChanges(database)
        self.checks = CatalogChecks(database)

    @classmethod
    def create(cls, url: str | Path, manifest: Mapping[str, Any] | None = None) -> SqlCatalog:
        """Create the tables at a database URL, or in a new SQLite file, and set the manifest, completely or not at all.

        Raises StoreError if there is a catalog already.
        """
        parsed = parse_url(url)
        database = Database(parsed)
        try:
            if database.is_sqlite and Path(str(parsed.database)).exists():
                raise StoreError(
                    f"the catalog of {database.label} can't be created: a file of that name exists already"
                )
            if database.is_sqlite:
                with suppress(OSError):  # SQLite reports the same, faster and in more detail
                    make_private(Path(str(parsed.database)))
            if database.revision() is not None:
                raise StoreError(
                    f"{database.label} contains a store already", hint="Open that store, or name another location."
                )
            database.migrate(lambda connection: write_settings(connection, manifest or {}))
        except BaseException:
            database.close()
            raise
        return cls(database)

    @classmethod
    def open(cls, url: str | Path) -> SqlCatalog:
        """Open what `create` made. On SQLite, an older schema is migrated after a backup.

        Raises StoreNotFound, StoreCorrupt, or StoreIncompatible for a newer schema, or on PostgreSQL for an older one,
        which `upgrade` migrates.
        """
        parsed = parse_url(url)
        database = Database(parsed)
        try:
            if database.is_sqlite and not Path(str(parsed.database)).exists():
                raise StoreNotFound(f"there is no catalog in {database.label}")
            database.require_current()
        except BaseException:
            database.close()
            raise
        return cls(database)

    @classmethod
    def upgrade(cls, url: str | Path) -> bool:
        """Migrate an older catalog, on SQLite after a backup. Returns whether anything had to be done.

        Raises as `open` does, except for an older schema on PostgreSQL, which it migrates.
        """
        parsed = parse_url(url)
        database = Database(parsed)
        try:
            if database.is_sqlite and not Path(str(parsed.database)).exists():
                raise StoreNotFound(f"there is no catalog in {database.label}")
            if not database.outdated():
                return False
            database.migrate()
            return True
        finally:
            database.close()

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> SqlCatalog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def embed_dim(self) -> int | None:
        """The numbers per vector, from the model in the manifest. None before a model is set."""
        model = self.manifest.get("model")
        return int(model["embed_dim"]) if model and "embed_dim" in model else None

    def state(self) -> Hashable:
        """Return a value that changes with every commit. Reading it is cheap."""
        return self._database.state()

    @property
    def in_sqlite(self) -> bool:
        """Whether the catalog is in SQLite, and not in PostgreSQL."""
        return self._database.is_sqlite

    @property
    def schema(self) -> str:
        """The revision of the schema."""
        return str(self._database.revision())

    def copy_to(self, path: Path) -> None:
        """Write one state of a catalog in SQLite to a new file. See `Database.copy_to`."""
        self._database.copy_to(path)

    @staticmethod
    def require_sound(path: Path, label: str) -> None:
        """Raise StoreCorrupt unless an SQLite file is sound, whoever made it. See `copies.require_sound`."""
        require_sound(path, label)

    def require_unused(self) -> None:
        """Raise StoreError if another process has a catalog in SQLite open. See `Database.require_unused`."""
        self._database.require_unused()

    def drop_backups(self) -> None:
        """Remove the backups that migrations left beside a catalog in SQLite."""
        for path in self._database.backups():
            path.unlink(missing_ok=True)

    def counts(self) -> Counts:
        def distinct(column: sa.Column[Any]) -> sa.ScalarSelect[int]:
            return sa.select(sa.func.count(column.distinct())).scalar_subquery()

        def size(table: sa.Table) -> sa.ScalarSelect[int]:
            return sa.select(sa.func.count()).select_from(table).scalar_subquery()

        with self._database.reading() as connection:
            totals = connection.execute(
                sa.select(
                    sa.select(sa.func.count()).where(files.c.status == "indexed").scalar_subquery().label("files"),
                    size(instances).label("instances"),
                    size(frames).label("frames"),
                    distinct(instances.c.study_instance_uid).label("studies"),
                    distinct(instances.c.series_instance_uid).label("series"),
                    distinct(instances.c.patient_pseudonym).label("patients"),
                    size(reports).label("reports"),
                    size(sentences).label("sentences"),
                )
            ).one()
            modality = sa.func.coalesce(instances.c.modality, "")
            by_modality = connection.execute(sa.select(modality, sa.func.count()).group_by(modality).order_by(modality))
            modalities = {row[0]: row[1] for row in by_modality}
            by_reason = connection.execute(
                sa.select(files.c.reason, sa.func.count())
                .where(files.c.status == "rejected")
                .group_by(files.c.reason)
                .order_by(files.c.reason)
            )
            rejected = {row[0]: row[1] for row in by_reason}
        return Counts(**totals._mapping, modalities=modalities, rejected=rejected)
