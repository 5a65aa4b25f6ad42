"""`medlens delete`: first show what would be erased, then erase it with all copies in the store."""

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
    """A filter, and how many patients, studies, series ... of the store match it.

    `notes` say what the store has instead if nothing matches.
    """

    where: SearchFilter
    matching: Mapping[str, int]
    notes: tuple[str, ...] = ()

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
    """Return what would be erased; nothing is changed.

    `patients` are pseudonyms from a search, `studies` and `series` are UIDs, `where` is a filter; only what matches all
    of them counts. Raises QueryError if nothing is named, because an empty filter would mean everything, for an invalid
    filter, and for a filter whose words would be read as other values: what is erased must be what was written.
    """
    named = {"patient_pseudonym": patients, "study_instance_uid": studies, "series_instance_uid": series}
    chosen = SearchFilter({name: tuple(values) for name, values in named.items() if values}, where)
    if not chosen:
        raise QueryError(
            "nothing was named to erase",
            hint=(
                "Name what to erase with --patient, --study, --series or --where. If you use several, "
                "only what matches all of them is erased."
            ),
        )
    require_valid(chosen)
    readings = store.catalog.instances.filter_notes(chosen, empty=False)
    if readings:
        raise QueryError(
            f"a filter for erasing must name the values themselves, but {'; '.join(readings)}",
            hint="Write the values instead of the words, and dates as 2020-01-31.",
        )
    matching = store.catalog.instances.count_matching(chosen)
    empty = not any(matching.values())
    return ErasurePlan(chosen, matching, store.catalog.instances.filter_notes(chosen, empty=True) if empty else ())


def erase_again(store: Store, path: Path) -> int:
    """Erase what a list of `write_erasures` names, for a store that was restored by other means than `restore`.

    Returns the number of instances that were erased. Raises StoreError if the list can't be read, StoreIncompatible if
    it belongs to another store.
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
    """Erase what the filter of a plan matches now.

    Returns the number of instances. See `Store.erase` for `keep_out` and errors.
    """
    return store.erase(plan.where, keep_out=keep_out)
