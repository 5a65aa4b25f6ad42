"""Run by Alembic. The connection comes from `indexer.catalog.database`, in a transaction: all or nothing."""

from __future__ import annotations

from alembic import context

from indexer.catalog.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
