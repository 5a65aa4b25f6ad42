"""`medlens delete`, `verify` and `migrate`: wiring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from indexer.catalog.conditions import require_valid
from indexer.store.store import Store
from indexer.tasks.verifying import Check
from retrieval.errors import QueryError
from retrieval.types import SearchFilter


def erasure_filter(patients: Sequence[str], studies: Sequence[str], series: Sequence[str], where: str) -> SearchFilter:
    """What to erase. QueryError if nothing is named: an empty filter would mean everything."""
    named = {"patient_pseudonym": patients, "study_instance_uid": studies, "series_instance_uid": series}
    chosen = SearchFilter({name: tuple(values) for name, values in named.items() if values}, where)
    if not chosen:
        raise QueryError(
            "nothing is named to erase",
            hint="Give --patient, --study, --series or --where; all that are given must hold.",
        )
    require_valid(chosen)
    return chosen


def would_erase(store: Store, where: SearchFilter) -> dict[str, int]:
    return store.catalog.instances.count_matching(where)


def check_row(check: Check) -> dict[str, Any]:
    """A Check as one row of plain values."""
    state = "sound" if not check.wrong else "repaired" if check.repaired else "wrong"
    return {"check": check.name, "state": state, "looked_at": check.looked_at, "wrong": check.wrong} | {
        "detail": check.detail
    }
