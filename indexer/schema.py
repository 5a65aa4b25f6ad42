"""The catalog's tables. One column per row of `keywords.KEYWORDS`; the migrations bring a database to this shape.

Ids of frames and sentences are the ids of the vector indexes. They are never used twice (AUTOINCREMENT, a sequence on
PostgreSQL), so a stale index file can't show another patient's picture under an old id. `deletions` is a log from which
an index catches up without comparing everything.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    Dialect,
    Double,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

from .keywords import KEYWORDS, Keyword, Kind

SCHEMA_REVISION = "0001"
"""The migration that this code was written for. Kept here so that opening a current store needs no Alembic."""

# A file name that is no UTF-8 reaches Python as lone surrogates, which no database takes: they travel as private-use
# characters of plane 16 instead.
_TO_PRIVATE = {code: code + 0x100000 for code in range(0xDC80, 0xDD00)}
_FROM_PRIVATE = {private: code for code, private in _TO_PRIVATE.items()}


class PathText(TypeDecorator[str]):
    """A path, whatever bytes it is made of."""

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

_TYPES: dict[Kind, type[Any]] = {
    Kind.TEXT: Text,
    Kind.INTEGER: BigInteger,
    Kind.NUMBER: Double,
    Kind.DATE: Date,
    Kind.AGE: Double,
    Kind.FLAG: Boolean,
}
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
    Column("path", PathText, nullable=False, comment="relative to the archive's root, with '/'"),
    Column("size", BigInteger, nullable=False, comment="bytes"),
    Column("mtime_ns", BigInteger, nullable=False, comment="nanoseconds since 1970"),
    Column("status", String(16), nullable=False),
    Column("reason", String(64), nullable=False, comment="why rejected; 'duplicate' for a second copy"),
    Column("detail", Text, nullable=False),
    Column("content_hash", String(128), index=True, comment="of the file's bytes; tells a moved file and a conflict"),
    Column("sop_instance_uid", Text, index=True, comment="the instance it holds, indexed or in conflict"),
    UniqueConstraint("archive_id", "path"),
    CheckConstraint("status IN ('indexed', 'rejected')", name="status"),
)

instances = Table(
    "instances",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("file_id", BigId, ForeignKey("files.id"), nullable=False, unique=True),
    Column("kind", String(16), nullable=False, comment="image, report or other"),
    Column("patient_pseudonym", Text, index=True, comment="keyed HMAC of the patient's identity"),
    *_keyword_columns(),
)

frames = Table(
    "frames",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True, comment="the id in the vector index"),
    Column("instance_id", BigId, ForeignKey("instances.id", ondelete="CASCADE"), nullable=False),
    Column("frame_number", Integer, nullable=False, comment="from 1, as the standard counts"),
    Column("vector", LargeBinary, nullable=False, comment="embed_dim x float16, little endian, unit norm"),
    UniqueConstraint("instance_id", "frame_number"),
    sqlite_autoincrement=True,
)

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

deletions = Table(
    "deletions",
    metadata,
    Column("seq", BigId, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False, comment="frame or sentence"),
    Column("row_id", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

manifest = Table(
    "manifest",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", JSON, nullable=False),
)
