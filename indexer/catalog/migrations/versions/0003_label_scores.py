"""Zero-shot labels of frames, for filters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "labels",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("label_set", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column(
            "made_by",
            sa.String(length=64),
            nullable=False,
            comment="digest of the model, the set's wording and the calibration",
        ),
        sa.Column("is_probability", sa.Boolean(), nullable=False, comment="calibrated; else a score"),
        sa.PrimaryKeyConstraint("id", name="pk_labels"),
        sa.UniqueConstraint("label_set", "label", name="uq_labels_label_set"),
    )
    op.create_table(
        "label_scores",
        sa.Column("label_id", BIG_ID, nullable=False),
        sa.Column("frame_id", BIG_ID, nullable=False),
        sa.Column("score", sa.Double(), nullable=False, comment="0 to 1"),
        sa.ForeignKeyConstraint(["label_id"], ["labels.id"], name="fk_label_scores_label_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["frame_id"], ["frames.id"], name="fk_label_scores_frame_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("label_id", "frame_id", name="pk_label_scores"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_label_scores_frame_id", "label_scores", ["frame_id"], unique=False)
