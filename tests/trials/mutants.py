"""Broken files by the thousand, each rendered in a guarded worker."""

from __future__ import annotations

from pathlib import Path

import mutation
from trials.registry import Tally, trial

from indexer.guard.pool import GuardedPool
from retrieval.errors import DecodeGuardError, DicomError


@trial(attempts=40_000, share=0.05)
def mutants(attempts: int, seed: int, folder: Path, tally: Tally) -> None:
    """Seeded mutants of pydicom's test files are rendered or refused, each by itself."""
    made = mutation.mutants(attempts, seed)
    with GuardedPool(mutation.render_mutant, workers=2) as pool:
        for expected, (mutant, outcome) in zip(made, pool.map(made), strict=True):
            of = f"{Path(mutant.path).name}, mutant {mutant.seed}"
            if mutant != expected:
                tally.failed(f"{of} came back in another's place")
            elif isinstance(outcome, str):
                tally.contained()
            elif isinstance(outcome, DecodeGuardError):
                tally.quarantined(outcome.code)
            elif isinstance(outcome, DicomError):  # one that only the outermost guard has caught is to be looked at
                tally.refused("unexpected" if "unexpected" in str(outcome) else outcome.code)
            else:
                tally.failed(f"{of}: {outcome}")
    tally.require(tally.outcomes["contained"] > 0.15 * attempts, f"nearly all mutants are dead: {tally.outcomes}")
    tally.require(tally.outcomes["refused"] > 0.25 * attempts, f"nearly all mutants are well: {tally.outcomes}")
