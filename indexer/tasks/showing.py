"""`medlens show`: everything that a store has about one frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from indexer.reading.frames import slice_positions
from indexer.sources.opening import locate
from indexer.sources.source import Where
from indexer.store.store import Store
from retrieval.errors import QueryError
from retrieval.search.refs import STORED_FORMS, FrameRef, ShortRef, StoredRef, parse_ref, resolve
from retrieval.types import FrameKey


@dataclass(frozen=True)
class FrameFacts:
    """A frame of a store.

    - `attributes`: its values in the catalog, with `slice` and `slices` if it is part of a stack.
    - `frame_numbers`: the indexed frames of its instance, ascending.
    - `report`: the text of its study's reports, empty if there is none.
    - `labels`: saved labels, by label set, each with its value from 0 to 1.
    - `former_labels`: of those sets that a model made which the store had before, the model's name.
    """

    key: FrameKey
    attributes: Mapping[str, Any]
    frame_numbers: tuple[int, ...]
    report: str
    labels: Mapping[str, Mapping[str, float]]
    former_labels: Mapping[str, str]

    @property
    def where(self) -> Where:
        """Return where its file is. Raises FileUnreadable for an archive that this version of medlens can't read."""
        return locate(self.attributes["archive_root"], self.attributes["file_path"])


def show(store: Store, ref: str | StoredRef | FrameKey) -> FrameFacts:
    """Return everything about the frame that a reference names. No model is loaded and no file is opened.

    Raises QueryError for a reference to nothing in the store, to several frames, or to a file.
    """
    frames = store.catalog.frames
    key = ref if isinstance(ref, FrameKey) else resolve(_stored(ref), frames)
    found = frames.find(key)
    _, attributes = frames.get([found.id])[found.id]
    place = slice_positions(store.catalog.instances.slices_of([found.lineage.series])).get(key.sop_instance_uid)
    labels = store.catalog.labels.of_frame(found.id)
    of_stack = {"slice": place.number if place else None, "slices": place.total if place else None}
    return FrameFacts(
        key,
        {**attributes, **of_stack},
        tuple(other.frame_number for other in frames.frames_of_instance(key.sop_instance_uid)),
        store.catalog.reports.text_of(found.lineage.study),
        labels,
        store.catalog.labels.former_models((label_set, label) for label_set, its in labels.items() for label in its),
    )


def _stored(ref: str | StoredRef) -> StoredRef:
    parsed = parse_ref(ref) if isinstance(ref, str) else ref
    if isinstance(parsed, FrameRef | ShortRef):
        return parsed
    raise QueryError(
        f"{parsed.name!r} is a file; expected a frame of the store",
        hint=f"Enter {STORED_FORMS}. For a file, run `medlens describe` or `medlens search --like`.",
    )
