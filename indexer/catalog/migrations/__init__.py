"""Alembic migrations of the catalog, run by `indexer.catalog.database` on the connection that it hands over."""
