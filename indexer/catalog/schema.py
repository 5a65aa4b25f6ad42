"""The catalog's tables. One column per row of `keywords.KEYWORDS`; the migrations bring a database to this shape.

Ids of frames and sentences are the ids of the vector indexes. They are never used twice (AUTOINCREMENT, a sequence on
PostgreSQL), so a stale index file can't show another patient's picture under an old id. `deletions` is a log from which
an index catches up without comparing everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Date,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    Join,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    and_,
    func,
)

from indexer.keywords import BY_FRAME, COLUMNS, KEYWORDS, Keyword, ValueKind
from indexer.vector_sets import VECTOR_SETS, VectorKind, VectorSet
from retrieval.types import SHORT_KEY_LETTERS

SCHEMA_REVISION = "0007"
"""The migration that this code was written for. Kept here so that opening a current store needs no Alembic."""

# A file name that is not UTF-8 reaches Python as lone surrogates, which no database accepts: they are stored as
# private-use characters of plane 16 instead.
_TO_PRIVATE = {code: code + 0x100000 for code in range(0xDC80, 0xDD00)}
_FROM_PRIVATE = {private: code for code, private in _TO_PRIVATE.items()}


# Compared by code point, so that a prefix is a range.
ShortKey = String(SHORT_KEY_LETTERS).with_variant(String(SHORT_KEY_LETTERS, collation="C"), "postgresql")


class PathText(TypeDecorator[str]):
    """A path, of any bytes."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return value if value is None or value.isascii() else value.translate(_TO_PRIVATE)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        text = str(value)
        return text if text.isascii() else text.translate(_FROM_PRIVATE)


BigId = BigInteger().with_variant(Integer, "sqlite")  # SQLite's AUTOINCREMENT wants INTEGER by that name

_TYPES: dict[ValueKind, type[Any]] = {
    ValueKind.TEXT: Text,
    ValueKind.INTEGER: BigInteger,
    ValueKind.NUMBER: Double,
    ValueKind.DATE: Date,
    ValueKind.AGE: Double,
    ValueKind.FLAG: Boolean,
}
OWN_COLUMNS = ("patient_pseudonym", "kind", "burned_in_text")
"""Of instances, what is kept beside the keywords and can be asked for."""

_INDEXED = ("study_instance_uid", "series_instance_uid", "modality", "body_part_examined")


def dicom_comment(keyword: Keyword) -> str:
    """`(0008,0060) Modality | VR CS, VM 1`."""
    group, element = keyword.tag >> 16, keyword.tag & 0xFFFF
    return f"({group:04X},{element:04X}) {keyword.name} | VR {keyword.vr}, VM {keyword.vm}"


def _keyword_columns() -> list[Column[Any]]:
    return [
        Column(
            keyword.column,
            _TYPES[keyword.kind],
            nullable=keyword.name != "SOPInstanceUID",
            unique=True if keyword.name == "SOPInstanceUID" else None,
            index=True if keyword.column in _INDEXED else None,
            comment=dicom_comment(keyword),
        )
        for keyword in KEYWORDS
    ]


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

archives = Table(
    "archives",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("root", PathText, nullable=False, unique=True, comment="absolute path of the archive's root"),
)

files = Table(
    "files",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("archive_id", BigId, ForeignKey("archives.id"), nullable=False),
    # Collated "C" on PostgreSQL: the walk over the archive and the catalog are compared side by side, by code point.
    Column("path", PathText, nullable=False, comment="relative to the archive's root, with '/'"),
    # Together they are the file's version, as its source states it; without times, a digest of its tag.
    Column("size", BigInteger, nullable=False, comment="bytes"),
    Column("mtime_ns", BigInteger, nullable=False, comment="nanoseconds since 1970"),
    Column("status", String(16), nullable=False),
    Column("reason", String(64), nullable=False, comment="why rejected; 'duplicate' for a second copy"),
    Column("detail", Text, nullable=False),
    Column("content_hash", String(128), index=True, comment="of the file's bytes; tells a moved file and a conflict"),
    Column("sop_instance_uid", Text, index=True, comment="the instance it holds, indexed or in conflict"),
    UniqueConstraint("archive_id", "path"),
    Index("ix_files_size", "size", "mtime_ns"),  # a moved file has kept both
    CheckConstraint("status IN ('indexed', 'rejected')", name="status"),
)

instances = Table(
    "instances",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("file_id", BigId, ForeignKey("files.id"), nullable=False, unique=True),
    Column("kind", String(16), nullable=False, comment="image, report or other"),
    Column("patient_pseudonym", Text, index=True, comment="keyed HMAC of the patient's identity"),
    Column("burned_in_text", String(8), comment="yes, likely or no; of images"),
    *_keyword_columns(),
)

frames = Table(
    "frames",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True, comment="the id in the vector index"),
    Column("instance_id", BigId, ForeignKey("instances.id", ondelete="CASCADE"), nullable=False),
    Column("frame_number", Integer, nullable=False, comment="from 1, as the standard counts"),
    Column("short_key", ShortKey, index=True, comment="FrameKey.short: what people name a frame by"),
    Column("vector", LargeBinary, nullable=False, comment="embed_dim x float16, little endian, unit norm"),
    UniqueConstraint("instance_id", "frame_number"),
    sqlite_autoincrement=True,
)

frame_attributes = Table(
    "frame_attributes",
    metadata,
    Column("instance_id", BigId, ForeignKey("instances.id", ondelete="CASCADE"), primary_key=True),
    Column("frame_number", Integer, primary_key=True, autoincrement=False, comment="from 1, as the standard counts"),
    *(Column(name, _TYPES[COLUMNS[name].kind], comment=dicom_comment(COLUMNS[name])) for name in BY_FRAME),
    sqlite_with_rowid=False,
)
"""Rows for the frames of those instances only whose frames differ; there the instance's own columns are empty."""

reports = Table(
    "reports",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("instance_id", BigId, ForeignKey("instances.id", ondelete="CASCADE"), nullable=False, unique=True),
    Column("text", Text, nullable=False),
)

sentences = Table(
    "sentences",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True, comment="the id in the sentence index"),
    Column("report_id", BigId, ForeignKey("reports.id", ondelete="CASCADE"), nullable=False),
    Column("position", Integer, nullable=False, comment="from 0"),
    Column("text", Text, nullable=False),
    Column("vector", LargeBinary, nullable=False, comment="embed_dim x float16, little endian, unit norm"),
    UniqueConstraint("report_id", "position"),
    sqlite_autoincrement=True,
)

labels = Table(
    "labels",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("label_set", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("made_by", String(64), nullable=False, comment="digest of the model, the set's wording and the calibration"),
    Column("is_probability", Boolean, nullable=False, comment="calibrated; else a score"),
    Column("former_model", JSON(none_as_null=True), comment="which model made it; empty for the store's present one"),
    UniqueConstraint("label_set", "label"),
)

label_scores = Table(
    "label_scores",
    metadata,
    Column("label_id", BigId, ForeignKey("labels.id", ondelete="CASCADE"), primary_key=True),
    Column("frame_id", BigId, ForeignKey("frames.id", ondelete="CASCADE"), primary_key=True, index=True),
    Column("score", Double, nullable=False, comment="0 to 1"),
    sqlite_with_rowid=False,
)

deletions = Table(
    "deletions",
    metadata,
    Column("seq", BigId, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False, comment="frame or sentence"),
    Column("row_id", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

erasures = Table(
    "erasures",
    metadata,
    Column("digest", String(64), primary_key=True, comment="keyed HMAC of what must not come back"),
    Column("scope", String(16), nullable=False, comment="patient, study, series, instance or file"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("place", String(32), nullable=False, comment="digest of machine, boot and PID namespace"),
    Column("pid", BigInteger, nullable=False),
    Column("started", String(32), nullable=False, comment="tells a PID that was given out again"),
    Column("expires_at", Double, nullable=False, comment="seconds since 1970, by the database's clock"),
    sqlite_autoincrement=True,
)

claims = Table(
    "claims",
    metadata,
    Column("archive_id", BigId, ForeignKey("archives.id"), primary_key=True),
    Column("path", PathText, primary_key=True, comment="relative to the archive's root, with '/'"),
    Column("worker_id", BigId, ForeignKey("workers.id", ondelete="CASCADE"), nullable=False, index=True),
)

manifest = Table(
    "manifest",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", JSON, nullable=False),
)


@dataclass(frozen=True)
class VectorTable:
    """The table with the vectors of one kind: `rows` with `id` and `vector`, and its join to the instances."""

    rows: Table
    joined: Table | Join  # the rows, with the table that has instance_id
    instance_id: Column[Any]


def vector_table(of_set: VectorSet) -> VectorTable:
    """The tables of a set of vectors, joined along their foreign keys."""
    tables = [metadata.tables[name] for name in of_set.tables]
    joined: Table | Join = tables[0]
    for table in tables[1:]:
        joined = joined.join(table)
    return VectorTable(tables[0], joined, tables[-1].c.instance_id)


FRAMES_IN_FULL: Join = frames.join(instances).outerjoin(
    frame_attributes,
    and_(
        frame_attributes.c.instance_id == frames.c.instance_id,
        frame_attributes.c.frame_number == frames.c.frame_number,
    ),
)
"""The frames with their instances and with what is said of them by frame; see `of_frame`."""


def of_frame(name: str) -> ColumnElement[Any]:
    """Return the value of a column of `instances` that holds for one frame of FRAMES_IN_FULL."""
    column = instances.c[name]
    return func.coalesce(frame_attributes.c[name], column, type_=column.type) if name in BY_FRAME else column


VECTOR_TABLES: Mapping[VectorKind, VectorTable] = {kind: vector_table(each) for kind, each in VECTOR_SETS.items()}


def _next_vectors(of_set: VectorSet) -> Table:
    rows = of_set.tables[0]
    return Table(
        f"next_{rows}",
        metadata,
        Column("row_id", BigId, ForeignKey(f"{rows}.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
        Column("vector", LargeBinary, nullable=False, comment="embed_dim x float16, little endian, unit norm"),
    )


NEXT_VECTORS: Mapping[VectorKind, Table] = {kind: _next_vectors(each) for kind, each in VECTOR_SETS.items()}
"""While the model of a store is being changed: the vectors by the new model, as far as they are made."""


def child_tables() -> list[Table]:
    """Return the tables whose rows refer to a parent row; a table comes before the tables that refer to it."""
    names = dict.fromkeys(name for each in VECTOR_SETS.values() for name in each.tables)
    return [metadata.tables[name] for name in (*names, "instances")]
