"""The command `migrate`: update an older store to the current schema."""

from __future__ import annotations

from cli.medlens_commands._errors import reporting_errors
from cli.medlens_commands._options import DEFAULT_STORE, StoreOption
from cli.medlens_output.lines import say


def migrate(store: StoreOption = DEFAULT_STORE) -> None:
    """Update a store that an older medlens wrote to the current schema. A store in a folder is backed up first."""
    from indexer.store.store import Store

    with reporting_errors(None):
        done = Store.upgrade(store)
        say("the store was migrated" if done else "the store has the current schema already; nothing was changed")
