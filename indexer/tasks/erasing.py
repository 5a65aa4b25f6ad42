"""`medlens delete`: what is to be erased is looked at first, then erased with all copies in the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.catalog.conditions import require_valid
from indexer.store.erasure_list import read_erasures
from indexer.store.store import Store
from retrieval.errors import QueryError, StoreIncompatible
from retrieval.types import SearchFilter


@dataclass(frozen=True)
class ErasurePlan:
    """A filter, and how many patients, studies, series ... of the store match it."""

    where: SearchFilter
    matching: Mapping[str, int]

    def __bool__(self) -> bool:
        """Whether anything matches."""
        return any(self.matching.values())


def plan_erasure(
    store: Store,
    *,
    patients: Sequence[str] = (),
    studies: Sequence[str] = (),
    series: Sequence[str] = (),
    where: str = "",
) -> ErasurePlan:
    """Look what would be erased; nothing is changed.

    `patients` are pseudonyms as a search gives them, `studies` and `series` UIDs, `where` is a filter in words; all
    that are given must hold. Raises QueryError if nothing is named, since an empty filter would mean everything, and
    for a filter that makes no sense.
    """
    named = {"patient_pseudonym": patients, "study_instance_uid": studies, "series_instance_uid": series}
    chosen = SearchFilter({name: tuple(values) for name, values in named.items() if values}, where)
    if not chosen:
        raise QueryError(
            "nothing is named to erase",
            hint="Give --patient, --study, --series or --where; all that are given must hold.",
        )
    require_valid(chosen)
    return ErasurePlan(chosen, store.catalog.instances.count_matching(chosen))


def erase_again(store: Store, path: Path) -> int:
    """Erase what the list in a file says, which `write_erasures` made of the same store; how many instances went.

    For a store that was restored from a backup by other means than `restore`. Raises StoreError if the list can't be
    read, StoreIncompatible if it is another store's.
    """
    listed = read_erasures(path)
    if listed.key_check != store.manifest.get("pseudonym_key_check"):
        raise StoreIncompatible(
            f"the list of erasures {path.name!r} belongs to another store than {store.label}",
            hint="Use the list that `medlens backup --erasures` wrote for this store.",
        )
    gone = store.catalog.instances.erase_again(listed.digests, store.erasures)
    store.refresh()
    return gone


def erase(store: Store, plan: ErasurePlan, *, keep_out: bool = True) -> int:
    """Erase what a plan's filter matches now; how many instances went. See `Store.erase` for `keep_out` and errors."""
    return store.erase(plan.where, keep_out=keep_out)
