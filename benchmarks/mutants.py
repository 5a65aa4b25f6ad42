"""How many seeded mutants of pydicom's test files medlens survives: python benchmarks/mutants.py [--count 10000].

Every mutant is rendered in a guarded worker. Prints what became of them, by reason, and which had to be stopped.
Exits 1 if any is lost.
"""

from __future__ import annotations

import argparse
import collections
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import mutation  # noqa: E402

from indexer.guard.pool import GuardedPool  # noqa: E402
from retrieval.errors import DicomError  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    reasons: collections.Counter[str] = collections.Counter()
    unexpected: collections.Counter[str] = collections.Counter()
    begin, slowest = time.perf_counter(), 0.0
    with GuardedPool(mutation.render_mutant, workers=options.workers) as pool:
        before = begin
        for mutant, outcome in pool.map(mutation.mutants(options.count, options.seed)):
            now = time.perf_counter()
            slowest, before = max(slowest, now - before), now
            reasons[outcome.code if isinstance(outcome, DicomError) else "rendered"] += 1
            if "unexpected" in str(outcome):
                unexpected[str(outcome)] += 1
            if "stopped by the guard" in str(outcome):
                print(f"{Path(mutant.path).name} seed {mutant.seed}: {outcome}")
        restarts = pool.restarts
    for reason, count in reasons.most_common():
        print(f"{count:7d} {reason}")
    for text, count in unexpected.most_common():
        print(f"{count:7d} {text}")
    seconds = time.perf_counter() - begin
    lost = options.count - sum(reasons.values())
    print(
        f"{options.count} mutants of {len(mutation.seeds())} files in {seconds:.0f} s, the longest wait {slowest:.1f} s"
    )
    print(f"{restarts} workers replaced, {lost} mutants lost")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
