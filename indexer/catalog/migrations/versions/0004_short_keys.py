"""Short keys of frames, which people use to name them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from retrieval.types import FrameKey

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BATCH = 20_000


def upgrade() -> None:
    short_key = sa.String(length=13).with_variant(sa.String(length=13, collation="C"), "postgresql")
    comment = "FrameKey.short: what people name a frame by"
    op.add_column("frames", sa.Column("short_key", short_key, nullable=True, comment=comment))
    _fill(op.get_bind())
    op.create_index("ix_frames_short_key", "frames", ["short_key"], unique=False)


def _fill(connection: sa.Connection) -> None:
    """Give every frame its short key, in chunks."""
    frames = sa.table("frames", *(sa.column(name) for name in ("id", "instance_id", "frame_number", "short_key")))
    instances = sa.table("instances", sa.column("id"), sa.column("sop_instance_uid"))
    query = (
        sa.select(frames.c.id, instances.c.sop_instance_uid, frames.c.frame_number)
        .select_from(frames.join(instances, frames.c.instance_id == instances.c.id))
        .order_by(frames.c.id)
        .limit(BATCH)
    )
    update = sa.update(frames).where(frames.c.id == sa.bindparam("row")).values(short_key=sa.bindparam("short"))
    last = 0
    while rows := connection.execute(query.where(frames.c.id > last)).all():
        connection.execute(update, [{"row": row[0], "short": FrameKey(row[1], row[2]).short} for row in rows])
        last = rows[-1][0]
