"""Attributes that differ from frame to frame within an instance."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "frame_attributes",
        sa.Column("instance_id", BIG_ID, nullable=False),
        sa.Column("frame_number", sa.Integer(), nullable=False, comment="from 1, as the standard counts"),
        sa.Column("body_part_examined", sa.Text(), nullable=True, comment="(0018,0015) BodyPartExamined | VR CS, VM 1"),
        sa.Column("image_laterality", sa.Text(), nullable=True, comment="(0020,0062) ImageLaterality | VR CS, VM 1"),
        sa.Column("slice_thickness", sa.Double(), nullable=True, comment="(0018,0050) SliceThickness | VR DS, VM 1"),
        sa.Column(
            "image_orientation_patient",
            sa.Text(),
            nullable=True,
            comment="(0020,0037) ImageOrientationPatient | VR DS, VM 6",
        ),
        sa.Column(
            "image_position_patient",
            sa.Text(),
            nullable=True,
            comment="(0020,0032) ImagePositionPatient | VR DS, VM 3",
        ),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name="fk_frame_attributes_instance_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("instance_id", "frame_number", name="pk_frame_attributes"),
        sqlite_with_rowid=False,
    )
