"""`medlens reembed`: another model for a store, whose files are read again and whose report sentences are kept."""

from __future__ import annotations

from collections.abc import Callable

from indexer.run.reembedding import OnReembedProgress, ReembedReport, change_model
from indexer.store.store import Store
from retrieval.encoders.clip import ClipEncoder
from retrieval.encoders.known_models import find_model, try_to_remember
from retrieval.encoders.model_source import ModelSource, resolve_model


def reembed(
    store: Store,
    *,
    model: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    drop_unreadable: bool = False,
    restart: bool = False,
    on_model: Callable[[ClipEncoder], None] = lambda encoder: None,
    on_progress: OnReembedProgress = lambda progress: None,
) -> ReembedReport:
    """Give a store another model: encode its frames and report sentences by it, then swap all vectors at once.

    Without `model` a change that was begun goes on; else the model that ships with medlens is taken. Until the swap the
    store answers by its former model, if that is at hand. Rows, reports, pseudonyms, and what was erased stay as they
    are; saved labels are kept and said to be of the former model. `on_model` is called when the model is loaded. The
    other arguments are those of `change_model`, and so is what is raised; besides, WeightsNotFound or EncoderError for
    a model that can't be used.
    """
    source = _source(store, model)
    encoder = ClipEncoder.from_source(source, device)
    try_to_remember(encoder.spec, source)
    on_model(encoder)
    return change_model(
        store,
        encoder,
        workers=workers,
        drop_unreadable=drop_unreadable,
        restart=restart,
        on_progress=on_progress,
    )


def abandon_reembedding(store: Store) -> bool:
    """Drop what was made of a change of the model that is not finished; whether one was begun.

    StoreError while a process is at work on it.
    """
    return store.catalog.model_changes.abandon()


def _source(store: Store, model: str | None) -> ModelSource:
    begun = store.catalog.model_changes.pending()
    return find_model(begun.model) if model is None and begun is not None else resolve_model(model)
