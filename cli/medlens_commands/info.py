"""The command `info`: what a store contains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.medlens_commands._errors import reporting_errors
from cli.medlens_commands._options import DEFAULT_STORE, FormatOption, StoreOption, open_store
from cli.medlens_output.formats import Format, write_rows

if TYPE_CHECKING:
    from indexer.tasks.facts import StoreFacts


def info(store: StoreOption = DEFAULT_STORE, style: FormatOption = None) -> None:
    """Show what a store contains: its model with the terms of its weights, its counts, and its indexes."""
    from indexer.tasks.facts import store_facts

    with reporting_errors(style) as chosen, open_store(store) as opened:
        row = _row(store_facts(opened))
        if chosen is Format.TABLE:
            write_rows([{"": name.replace("_", " "), " ": _words(value)} for name, value in row.items()], chosen)
        else:
            write_rows([row], chosen)


def _row(facts: StoreFacts) -> dict[str, Any]:
    model, counts = facts.model, facts.counts
    return {
        "model": model["name"],
        "model_fingerprint": model.get("fingerprint"),
        "model_terms": facts.model_terms,
        "dimensions": model["embed_dim"],
        "render_profile": facts.render_profile,
        "weights_sha256": model.get("weights_sha256"),
        **{k: v for k, v in vars(counts).items() if k not in ("modalities", "rejected")},
        "instances_by_modality": {k or "unknown": v for k, v in counts.modalities.items()},
        "rejected_files": dict(counts.rejected),
        "vanished": facts.vanished,
        "archives": facts.archives,
        "archives_not_found": facts.archives_not_found,
        "restored": dict(facts.restored),
        "labelled_frames": dict(facts.labelled_frames),
        "labels_of_former_models": dict(facts.former_labels),
        "next_model": None if facts.next_model is None else dict(facts.next_model),
        **{f"{vectors}_index": dict(known) for vectors, known in facts.indexes.items()},
    }


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return "" if value is None else str(value)
