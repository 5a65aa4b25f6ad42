"""Run trials and report: `make trials TRIALS='mutants --share 0.1 --seed 7'`. Exits 1 if one fails."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

from trials.registry import OUTCOMES, all_trials, run_by_name

COLUMNS = ("trial", "tried", *OUTCOMES, "own_memory_mib", "peak_memory_mib", "seconds")


def main(arguments: Sequence[str] | None = None) -> int:
    trials = all_trials()
    listing = "\n".join(f"  {each.name:12} {each.attempts:7} attempts  {each.about}" for each in trials.values())
    parser = argparse.ArgumentParser(
        prog="python -m trials",
        description=__doc__,
        epilog=f"trials:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which trials; without names, all")
    parser.add_argument("--share", type=float, default=1.0, help="share of each trial's attempts (1.0: the whole)")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other attempts (0)")
    parser.add_argument("--report", type=Path, help="write the reports here, as JSON")
    asked = parser.parse_args(arguments)
    if unknown := sorted(set(asked.names) - set(trials)):
        parser.error(f"unknown trial {', '.join(unknown)}; expected some of {', '.join(trials)}")
    if not 0 < asked.share <= 1:
        parser.error(f"--share is {asked.share}, expected more than 0 and at most 1")
    reports = []
    print("  ".join(f"{column:>15}" for column in COLUMNS), flush=True)
    for name in asked.names or trials:
        if lacks := trials[name].missing():
            print(f"{name} is not run: {lacks}", flush=True)
            continue
        # Each in a process of its own: the peak of memory is then the trial's.
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            report = alone.submit(run_by_name, name, asked.share, asked.seed).result()
        reports.append(report)
        print("  ".join(f"{getattr(report, column):>15}" for column in COLUMNS), flush=True)
        for kind, found in report.kinds.items():
            print("  ".join(f"{each:>15}" for each in (kind, sum(found.values()), *found.values())))
        for reason, count in report.reasons.items():
            print(f"{count:>32} {reason}")
        for failure in report.failures:
            print(f"FAILED {name}, seed {asked.seed}: {failure}")
        if report.tried != report.attempts:
            print(f"FAILED {name}: {report.attempts - report.tried} of {report.attempts} attempts have no outcome")
    if asked.report is not None:
        asked.report.write_text(json.dumps([asdict(report) for report in reports], indent=1) + "\n", encoding="utf-8")
    return 0 if all(report.passed for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
