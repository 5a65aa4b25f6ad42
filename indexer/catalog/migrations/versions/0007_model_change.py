"""Vectors by the model that a store is being changed to, and which former model made saved labels."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    for rows in ("frames", "sentences"):
        op.create_table(
            f"next_{rows}",
            sa.Column("row_id", BIG_ID, autoincrement=False, nullable=False),
            sa.Column(
                "vector", sa.LargeBinary(), nullable=False, comment="embed_dim x float16, little endian, unit norm"
            ),
            sa.ForeignKeyConstraint(["row_id"], [f"{rows}.id"], name=f"fk_next_{rows}_row_id", ondelete="CASCADE"),
            sa.PrimaryKeyConstraint("row_id", name=f"pk_next_{rows}"),
        )
    comment = "which model made it; empty for the store's present one"
    op.add_column("labels", sa.Column("former_model", sa.JSON(), nullable=True, comment=comment))
