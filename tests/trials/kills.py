"""Jobs killed (SIGKILL) at any moment: what they leave is a state of an uninterrupted run, and the next run ends well.

Half of the kills come at steps, spread over all that the job takes (see `killing.Steps`), half at moments spread evenly
over the time that it takes.
"""

from __future__ import annotations

import gc
import os
import random
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import crash_trial
from trials.jobs import JOBS, Case, Seen, files_of, look, make_inputs, table_digests
from trials.killing import Steps, forked
from trials.registry import Tally, Trial, trial

from indexer.store.store import Store

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_LANES = 2
_FEW = 20  # attempts that one process makes alone
_IMPORTED_LATE = ("alembic.command", "alembic.config", "bm25s", "faiss", "indexer.vectors.choose", "Stemmer", "tqdm")


@trial(attempts=400, share=0.05)
def kills(attempts: int, seed: int, folder: Path, tally: Tally) -> None:
    """SIGKILL at random moments of indexing leaves the store of one undisturbed run, and no frame is encoded twice."""
    rng = random.Random(seed)
    archive = crash_trial.make_archive(folder / "archive", 24)
    (folder / "logs").mkdir()
    whole = crash_trial.Trial(archive, folder / "whole", folder / "logs")
    whole.undisturbed()
    with Store.open(folder / "whole") as store:
        expected = crash_trial.contents(store)
    statuses = {dict(row)["status"] for row in expected["files"]}
    tally.require(statuses == {"indexed", "rejected"}, f"the archive must have files of both kinds, has {statuses}")
    lives = 0
    while tally.tried < attempts:
        life = crash_trial.Trial(archive, folder / "store", folder / "logs", finished=lives, at_work=whole.at_work)
        life.life(rng, most_kills=attempts - tally.tried)
        lives += 1
        with Store.open(folder / "store") as store:
            same = crash_trial.contents(store) == expected
        shutil.rmtree(folder / "store")
        if same and not life.encoded_again:
            tally.contained(life.kills)
        else:
            for _ in range(life.kills):
                tally.failed(f"store {lives}: same contents: {same}, frames encoded again: {len(life.encoded_again)}")
            tally.require(life.kills > 0, f"store {lives}, never killed, differs")


@dataclass(frozen=True)
class Uninterrupted:
    """A case that nobody interrupts: what it finds (a folder to copy), what it leaves, and all between."""

    found: Path
    before: Seen
    after: Seen
    between: list[dict[str, str]]  # the tables after each commit, each state once
    files: dict[str, int]  # what lies about at the end, with permissions
    steps: int
    seconds: float

    def state(self, seen: Seen) -> str:
        """What a store's tables are those of; "" if of no state of this run."""
        if seen.tables == self.before.tables:
            return "before"
        if seen.tables == self.after.tables:
            return "after"
        return "between" if seen.tables in self.between else ""


@dataclass
class Outcome:
    """What became of one kill: the state that it left, and what the next run cleaned up; or what is wrong."""

    kill: str
    state: str = ""
    cleaned: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def _trial_of(job: str, about: str) -> Trial:
    def run(attempts: int, seed: int, folder: Path, tally: Tally) -> None:
        count = _LANES if attempts > _FEW else 1
        numbers = [list(range(lane, attempts, count)) for lane in range(count)]
        with (
            patch.dict(os.environ, ONE_THREAD),
            ProcessPoolExecutor(count, get_context("spawn")) as lanes,  # a process that has computed nothing yet
        ):
            futures = [
                lanes.submit(_killed_jobs, job, mine, attempts, seed, folder / f"lane{lane}")
                for lane, mine in enumerate(numbers)
            ]
            outcomes = [outcome for future in futures for outcome in future.result()]
        tell(outcomes, tally)

    run.__name__, run.__doc__ = f"kills_of_{job}", about
    return trial(attempts=200, share=0.02)(run)


TRIALS_OF_JOBS = [
    _trial_of(job, f"SIGKILL during {name} leaves the store before it or after it, and the next run ends well.")
    for job, name in {
        "index": "`index` (whole batches between)",
        "delete": "`delete`",
        "optimize": "`optimize`",
        "import": "`import`",
        "label": "`classify --save`",
        "repair": "`verify --repair`",
        "reembed": "`reembed` (the former model answers between)",
        "migrate": "`migrate` of a store of 0.1.0",
    }.items()
]


def tell(outcomes: Sequence[Outcome], tally: Tally) -> None:
    """Count them."""
    for outcome in outcomes:
        if outcome.faults:
            tally.failed(f"{outcome.kill}: {'; '.join(outcome.faults)}")
        else:
            tally.contained()
        tally.note(f"state {outcome.state or 'of no run'}")
        for cleaned in outcome.cleaned:
            tally.note(f"{cleaned}: cleaned by the next run")


def _killed_jobs(job: str, numbers: Sequence[int], attempts: int, seed: int, folder: Path) -> list[Outcome]:
    """Those of so many attempts at a job that have these numbers, in this process's children."""
    warm_up()
    inputs = folder / "inputs"
    inputs.mkdir(parents=True)
    forked(lambda: make_inputs(inputs)).result()
    cases = list(JOBS[job].items())
    runs: dict[str, Uninterrupted] = {}
    rng = random.Random(f"{seed} {job} {numbers[0]}")
    outcomes = []
    for number in numbers:
        name, case = cases[number % len(cases)]
        if name not in runs:
            runs[name] = _uninterrupted(case, inputs, folder / f"case{number % len(cases)}")
        # The number's place among those of its case, as a share of the whole, moved a little by chance.
        share = min((number // len(cases) + rng.random()) / max(attempts // len(cases), 1), 1.0)
        outcomes.append(_kill(name, case, runs[name], share, number // len(cases) % 2 == 0, inputs, folder / "attempt"))
    return outcomes


def warm_up() -> None:
    """Import what a child would else import each time, and make no lock that it would leave to be cleared up."""
    for name in _IMPORTED_LATE:
        import_module(name)
    import_module("tqdm").tqdm.set_lock(threading.RLock())
    gc.collect()
    gc.freeze()  # a child that looked for garbage among all this would copy every page of it


def _uninterrupted(case: Case, inputs: Path, folder: Path) -> Uninterrupted:
    found, done, timed = folder / "found", folder / "done", folder / "timed"
    found.mkdir(parents=True)
    forked(lambda: case.find(inputs, found)).result()
    before = forked(lambda: look(found)).result()
    for place in (done, timed):
        shutil.copytree(found, place)
    steps, between = forked(lambda: recorded(lambda: case.run(inputs, done), done)).result()
    ended = forked(lambda: case.run(inputs, timed))
    ended.result()
    after = forked(lambda: look(done)).result()
    if before.tables == after.tables and before == after:
        raise RuntimeError("the job changes nothing that can be seen")
    if case.whole and [state for state in between if state not in (before.tables, after.tables)]:
        raise RuntimeError(f"the job is not one transaction: {len(between)} states between")
    return Uninterrupted(found, before, after, between, files_of(done), steps, ended.seconds)


def recorded(work: Callable[[], object], folder: Path) -> tuple[int, list[dict[str, str]]]:
    """How many steps a run takes, and each state that the tables have before one of them, once."""
    states: list[dict[str, str]] = []

    def record() -> None:
        if (folder / "store").exists():
            state = table_digests(folder / "store" / "catalog.sqlite")
            if state not in states:
                states.append(state)

    steps = Steps(before_each=record)
    steps.watch()
    work()
    return steps.taken, states


def _kill(
    name: str, case: Case, run: Uninterrupted, share: float, at_step: bool, inputs: Path, folder: Path
) -> Outcome:
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(run.found, folder)
        if at_step:
            fatal = 1 + int(share * (run.steps - 1))
            kill = f"{name}, killed at step {fatal} of {run.steps}"
            ended = forked(partial(_run_to_step, fatal, case, inputs, folder))
        else:
            after = share * run.seconds
            kill = f"{name}, killed after {1000 * after:.0f} of {1000 * run.seconds:.0f} ms"
            ended = forked(lambda: case.run(inputs, folder), kill_after=after)
        outcome = Outcome(kill)
        if ended.error:
            outcome.faults.append(ended.error)
            return outcome
        if ended.killed:
            break
        share *= 0.9  # it was quicker this time
    left = files_of(folder)
    afterwards = forked(partial(_go_on, case, inputs, folder))
    if afterwards.error:
        outcome.faults.append(f"what it left can't be opened, or the next run failed: {afterwards.error}")
        return outcome
    seen, end = afterwards.value
    outcome.state = run.state(seen)
    outcome.faults += _faults_of(seen, outcome.state, run, case.answering)
    if end != run.after:
        outcome.faults.append(
            f"after the next run: other rows in {run.after.differing(end)}, kinds {end.kinds}, "
            f"wrong {end.unsound}, same answers: {end.answers == run.after.answers}"
        )
    files = files_of(folder)
    if files != run.files:
        outcome.faults.append(f"files after the next run: {sorted(files.items() ^ run.files.items())}")
    if any(file.endswith(".tmp") for file in left.keys() - files.keys()):
        outcome.cleaned.append("unfinished files")
    if "dead workers" in seen.unsound and "dead workers" not in run.before.unsound:
        outcome.cleaned.append("claims of the dead")
    return outcome


def _go_on(case: Case, inputs: Path, folder: Path) -> tuple[Seen, Seen]:
    """What a kill has left, and what the next run makes of it."""
    left = look(folder)
    case.run(inputs, folder)
    return left, look(folder)


def _run_to_step(fatal: int, case: Case, inputs: Path, folder: Path) -> None:
    Steps(fatal).watch()
    case.run(inputs, folder)


def _faults_of(seen: Seen, state: str, run: Uninterrupted, answering: bool) -> list[str]:
    """Of a store as a kill has left it."""
    faults = []
    if not state:
        faults.append(f"neither before ({run.before.differing(seen)}) nor after ({run.after.differing(seen)})")
    like = {"before": run.before, "after": run.after, "between": run.before if answering else None}.get(state)
    if like is not None and seen.answers != like.answers:
        faults.append(f"searches answer otherwise than {state}")
    if wrong := set(seen.unsound) - {*run.before.unsound, "dead workers", "leftovers"}:
        faults.append(f"verify finds wrong: {sorted(wrong)}")
    return faults
