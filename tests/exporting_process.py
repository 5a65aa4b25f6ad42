"""What one of several processes does that train on the same store. A module of its own: a child imports little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from indexer.store.store import Store
from indexer.tasks.training_pairs import export_pairs


def export_in_process(store: Path, out: Path, answers: Any) -> None:
    """Answers whether it was this one that read the files."""
    with Store.open(store) as opened:
        reads: list[int] = []
        export_pairs(opened, out, workers=1, progress=lambda done, total: reads.append(done))
        answers.put(bool(reads))
