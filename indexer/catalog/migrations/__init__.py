"""Alembic migrations of the catalog. `indexer.catalog.database` runs them on its own connection."""
