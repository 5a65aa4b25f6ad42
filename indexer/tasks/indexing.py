"""`medlens index`: read archives into a store, which is created if there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from indexer.reading.frames import FramePolicy
from indexer.records import IndexReport
from indexer.run.options import IndexOptions, OnProgress, Shard
from indexer.run.pipeline import index_archive
from indexer.sources.folders import Folder, iter_files
from indexer.store.own_model import model_source
from indexer.store.place import group_id, require_group
from indexer.store.store import Store, is_url
from retrieval.encoders.clip import ClipEncoder
from retrieval.encoders.known_models import try_to_remember
from retrieval.encoders.model_source import resolve_model
from retrieval.errors import MedlensError, StoreNotFound


def index(
    archives: Sequence[Path],
    location: str | Path,
    *,
    model: str | None = None,
    device: str = "auto",
    frames: FramePolicy = FramePolicy(),
    workers: int | None = None,
    prune: bool = False,
    shard: Shard = Shard(),
    readmit: bool = False,
    keep_descriptions: bool = True,
    group: str | None = None,
    on_model: Callable[[ClipEncoder], None] = lambda encoder: None,
    on_progress: OnProgress = lambda progress: None,
) -> IndexReport:
    """Embed folders or files into the store at a folder or a database URL, and say what was done.

    A store that is not there is made for `model`, by default the shipped one; nothing is made if there is nothing to
    index. It is its owner's alone, or may be read by the users of `group`. An existing store keeps its own model. Where
    the model lies is written down for this user: the store does not say. `on_model` is called when the model is loaded,
    before the first file is read. The other arguments are those of
    `index_archive`, and so is what is raised; besides, StoreError where the store can't be opened or made,
    WeightsNotFound or EncoderError for a model that can't be used, StoreIncompatible for another model than the
    store's, and MedlensError where there are no files.
    """
    if group is not None:
        group_id(group)  # a missing group is reported before anything is loaded
    skip = () if is_url(location) else (Path(location),)
    try:
        store = Store.open(location)
    except StoreNotFound:
        _require_files(archives, skip)
        source = resolve_model(model)
        encoder = ClipEncoder.from_source(source, device)
        store = Store.create(location, encoder.spec.to_json(), group=group)
    else:
        if group is not None:
            require_group(store.place, group)
        source = model_source(store, model)
        encoder = ClipEncoder.from_source(source, device)
        store.require_model(encoder.spec.to_json())
    try_to_remember(encoder.spec, source)
    with store:
        on_model(encoder)
        return index_archive(
            [Folder(archive, skip) for archive in archives],
            store,
            encoder,
            IndexOptions(frames, workers, prune, shard, readmit, keep_descriptions),
            on_progress=on_progress,
        )


def _require_files(archives: Sequence[Path], skip: Sequence[Path]) -> None:
    if not any(list(islice(iter_files(a, skip=skip, on_rejection=lambda r: None), 1)) for a in archives):
        names = ", ".join(repr(a.name or str(a)) for a in archives)
        raise MedlensError(
            f"there are no files in {names}", hint="Name a folder that contains DICOM files, directly or in subfolders."
        )
