"""Tables of claimed work and of erased data, and columns to recognise moved files by size and time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_index("ix_files_size", "files", ["size", "mtime_ns"], unique=False)
    if op.get_bind().dialect.name == "postgresql":  # the walk and the catalog are compared side by side, by code point
        op.execute('ALTER TABLE files ALTER COLUMN path TYPE TEXT COLLATE "C"')
    op.create_table(
        "erasures",
        sa.Column("digest", sa.String(length=64), nullable=False, comment="keyed HMAC of what must not come back"),
        sa.Column("scope", sa.String(length=16), nullable=False, comment="patient, study, series, instance or file"),
        sa.PrimaryKeyConstraint("digest", name="pk_erasures"),
    )
    op.create_table(
        "workers",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("place", sa.String(length=32), nullable=False, comment="digest of machine, boot and PID namespace"),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("started", sa.String(length=32), nullable=False, comment="tells a PID that was given out again"),
        sa.Column("expires_at", sa.Double(), nullable=False, comment="seconds since 1970, by the database's clock"),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "claims",
        sa.Column("archive_id", BIG_ID, nullable=False),
        sa.Column("path", sa.Text(), nullable=False, comment="relative to the archive's root, with '/'"),
        sa.Column("worker_id", BIG_ID, nullable=False),
        sa.ForeignKeyConstraint(["archive_id"], ["archives.id"], name="fk_claims_archive_id"),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name="fk_claims_worker_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("archive_id", "path", name="pk_claims"),
    )
    op.create_index("ix_claims_worker_id", "claims", ["worker_id"], unique=False)
