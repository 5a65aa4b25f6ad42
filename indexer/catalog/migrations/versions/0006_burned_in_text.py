"""Whether text may be burned into the pixels; older rows get it from the attributes in the catalog."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from indexer.burned_in import guessed

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

BATCH = 20_000


def upgrade() -> None:
    comment = "yes, likely or no; of images"
    op.add_column("instances", sa.Column("burned_in_text", sa.String(length=8), nullable=True, comment=comment))
    _fill(op.get_bind())


def _fill(connection: sa.Connection) -> None:
    """Give every image its value, in chunks."""
    names = ("id", "kind", "burned_in_annotation", "modality", "sop_class_uid", "image_type", "burned_in_text")
    columns = [sa.column(name, sa.Boolean() if name == "burned_in_annotation" else None) for name in names]
    instances = sa.table("instances", *columns)
    query = sa.select(instances).where(instances.c.kind == "image").order_by(instances.c.id).limit(BATCH)
    update = sa.update(instances).where(instances.c.id == sa.bindparam("row")).values(burned_in_text=sa.bindparam("is"))
    last = 0
    while rows := connection.execute(query.where(instances.c.id > last)).mappings().all():
        connection.execute(update, [{"row": row["id"], "is": guessed(dict(row))} for row in rows])
        last = rows[-1]["id"]
