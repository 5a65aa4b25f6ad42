"""Alembic migrations of the catalog, run by `indexer.database` on the connection that it hands over."""
