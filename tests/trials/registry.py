"""Long trials: many seeded attempts at breaking medlens, and what became of each.

Whole: `make trials`. A share of a few per cent: `make test`. A trial is a function in a module of this folder, and the
decorator is all it takes to be found:

    @trial(attempts=40_000, share=0.05)
    def mutants(attempts: int, seed: int, folder: Path, tally: Tally) -> None:
        ...
        tally.read()                 # nothing was wrong with it, and it did what it should
        tally.refused("not-dicom")   # ended in the error that it should end in
        tally.contained("guard")     # brought a worker down, or was a kill: all else came out unharmed
        tally.quarantined("guard")   # set aside by a store, with the reason, while all else was taken in
        tally.failed("a frame was encoded twice")   # got through: the trial fails

Each attempt is counted once; the same seed makes the same attempts. `kind`, where there are several, is a row of the
report's table.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

_SHOWN = 20  # failures that a report spells out
OUTCOMES = ("read", "refused", "contained", "quarantined", "failed")


@dataclass
class Tally:
    """What became of the attempts so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    kinds: dict[str, Counter[str]] = field(default_factory=dict)

    def read(self, count: int = 1, *, kind: str = "") -> None:
        self._count("read", count, kind)

    def contained(self, count: int = 1, reason: str = "", *, kind: str = "") -> None:
        self._count("contained", count, kind)
        if reason:
            self.reasons[reason] += count

    def refused(self, reason: str, *, kind: str = "") -> None:
        self._count("refused", 1, kind)
        self.reasons[reason] += 1

    def quarantined(self, reason: str, *, kind: str = "") -> None:
        self._count("quarantined", 1, kind)
        self.reasons[reason] += 1

    def failed(self, how: str, *, kind: str = "") -> None:
        self._count("failed", 1, kind)
        self.failures.append(how)

    def note(self, what: str) -> None:
        """Count something besides the outcomes; told among the reasons."""
        self.reasons[what] += 1

    def _count(self, outcome: str, count: int, kind: str) -> None:
        self.outcomes[outcome] += count
        if kind:
            self.kinds.setdefault(kind, Counter())[outcome] += count

    def require(self, holds: bool, otherwise: str) -> None:
        """A condition on the whole trial, such as that not all attempts came to nothing."""
        if not holds:
            self.failures.append(otherwise)

    @property
    def tried(self) -> int:
        return self.outcomes.total()


@dataclass(frozen=True)
class Trial:
    name: str
    about: str
    attempts: int  # of the whole trial
    share: float  # of it in `make test`
    run: Callable[[int, int, Path, Tally], None]
    missing: Callable[[], str] = lambda: ""  # what the machine lacks for it


@dataclass(frozen=True)
class Report:
    trial: str
    seed: int
    attempts: int
    tried: int
    read: int
    refused: int
    contained: int
    quarantined: int
    failed: int
    own_memory_mib: int  # the peak of the process that ran the trial
    peak_memory_mib: int  # of that, or of one that it started
    seconds: float
    reasons: dict[str, int]
    failures: list[str]
    kinds: dict[str, dict[str, int]]

    @property
    def passed(self) -> bool:
        return not self.failures and self.tried == self.attempts


TRIALS: dict[str, Trial] = {}


def trial(
    *, attempts: int, share: float, missing: Callable[[], str] = lambda: ""
) -> Callable[[Callable[[int, int, Path, Tally], None]], Trial]:
    """Register a function as the trial of its name; the first line of its docstring says what is tried.

    `missing` says what the machine lacks for it, if anything: then it is not run.
    """

    def register(run: Callable[[int, int, Path, Tally], None]) -> Trial:
        about = (run.__doc__ or "").strip().partition("\n")[0]
        made = Trial(run.__name__, about, attempts, share, run, missing)
        if made.name in TRIALS:
            raise ValueError(f"there are two trials of the name {made.name}")
        TRIALS[made.name] = made
        return made

    return register


def all_trials() -> dict[str, Trial]:
    """The trials of this folder's modules, by name."""
    for module in sorted(module.name for module in iter_modules([str(Path(__file__).parent)])):
        if module != "__main__":
            import_module(f"trials.{module}")
    return dict(sorted(TRIALS.items()))


def run_trial(trial: Trial, *, share: float, seed: int, folder: Path) -> Report:
    """Run that share of a trial's attempts, at least one, in this process. `folder` is empty and the trial's own."""
    attempts, tally, started = max(round(trial.attempts * share), 1), Tally(), time.monotonic()
    trial.run(attempts, seed, folder, tally)
    return Report(
        trial.name,
        seed,
        attempts,
        tally.tried,
        *(tally.outcomes[outcome] for outcome in OUTCOMES),
        own_memory_mib=peak_memory(resource.RUSAGE_SELF),
        peak_memory_mib=peak_memory(resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN),
        seconds=round(time.monotonic() - started, 1),
        reasons=dict(tally.reasons.most_common()),
        failures=tally.failures[:_SHOWN],
        kinds={kind: {name: found[name] for name in OUTCOMES} for kind, found in tally.kinds.items()},
    )


def run_by_name(name: str, share: float, seed: int) -> Report:
    with tempfile.TemporaryDirectory(prefix=f"medlens-{name}-") as folder:
        return run_trial(all_trials()[name], share=share, seed=seed, folder=Path(folder))


def peak_memory(*whose: int) -> int:
    """MiB of the largest so far: RUSAGE_SELF is this process, RUSAGE_CHILDREN those that it started and that ended."""
    unit = 1 if sys.platform == "darwin" else 1024
    return max(resource.getrusage(who).ru_maxrss for who in whose) * unit // 2**20
