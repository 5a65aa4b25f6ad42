"""PostgreSQL killed (SIGKILL) under `index` and `search`: the server with all its processes, or one that serves us."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import crash_trial
import postgres
from trials import jobs
from trials.commands import as_command, lines_said
from trials.jobs import Seen
from trials.killing import Ended, forked
from trials.kills import ONE_THREAD, Outcome, tell, warm_up
from trials.registry import Tally, trial

from indexer.store.store import Store
from indexer.tasks.verifying import verify_store

_Rows = dict[str, Any]
_SAYS = "ended the connection", "can't be reached"


@trial(attempts=20, share=0.05, missing=postgres.missing)
def database_killed_in_index(attempts: int, seed: int, folder: Path, tally: Tally) -> None:
    """PostgreSQL killed during `index`: one line says so, and the same command goes on to the uninterrupted state."""
    _run(_indexed, attempts, seed, folder, tally)


@trial(attempts=20, share=0.05, missing=postgres.missing)
def database_killed_in_search(attempts: int, seed: int, folder: Path, tally: Tally) -> None:
    """PostgreSQL killed during `search`: the right answers or one line, and the right answers once it is back."""
    _run(_searched, attempts, seed, folder, tally)


def _run(attempt: Any, attempts: int, seed: int, folder: Path, tally: Tally) -> None:
    with patch.dict(os.environ, ONE_THREAD), ProcessPoolExecutor(1, get_context("spawn")) as alone:
        tell(alone.submit(_attempts, attempt, attempts, seed, folder).result(), tally)


def _attempts(attempt: Any, attempts: int, seed: int, folder: Path) -> list[Outcome]:
    warm_up()
    inputs = folder / "inputs"
    inputs.mkdir()
    forked(partial(jobs.make_inputs, inputs)).result()
    server = postgres.Server()
    try:
        return attempt(server, inputs, folder, attempts, random.Random(seed))
    finally:
        server.remove()


def _indexed(server: postgres.Server, inputs: Path, folder: Path, attempts: int, rng: random.Random) -> list[Outcome]:
    arguments = ["index", str(inputs / "archive"), "--store"]
    whole, (expected, rows) = _whole(server, arguments, folder)
    outcomes = []
    for number in range(attempts):
        share, backend = (number + rng.random()) / attempts, number % 2 == 1
        while True:
            database, home = server.new_database(), _new_home(folder)
            url = server.url(database)
            killed, (code, said, _) = _with_a_kill(
                server, [*arguments, url], home, database, share * whole.seconds, backend
            )
            if killed:
                break
            share *= 0.9
        outcome = Outcome(f"index, {killed} killed after {share:.0%} of its time")
        outcome.faults += _faults_of(code, said)
        left = forked(partial(_look, url, home))
        if left.error and "StoreNotFound" not in left.error:
            outcome.faults.append(f"what is left can't be read: {left.error}")
        outcome.state = "before"
        if left.value is not None:
            seen, some = left.value
            outcome.state = "after" if seen.tables == expected.tables else "between"
            if wrong := set(seen.unsound) - {"dead workers", "leftovers"}:
                outcome.faults.append(f"verify finds wrong: {sorted(wrong)}")
            if not _are_whole_batches(some, rows):
                outcome.faults.append("what is left has other rows, or a part of a file")
            if "dead workers" in seen.unsound:
                outcome.cleaned.append("claims of the dead")
        again, said, _ = forked(partial(_command, [*arguments, url], home)).result()
        end, _ = forked(partial(_look, url, home)).result()
        if again:
            outcome.faults.append(f"the same command ended with {again}, saying {said}")
        if end != expected:
            outcome.faults.append(f"then other rows in {expected.differing(end)}, wrong {end.unsound}")
        outcomes.append(outcome)
        server.drop(database)
    return outcomes


def _searched(server: postgres.Server, inputs: Path, folder: Path, attempts: int, rng: random.Random) -> list[Outcome]:
    home, database = _new_home(folder), server.new_database()
    url = server.url(database)
    forked(partial(_command, ["index", str(inputs / "archive"), "--store", url], home)).result()
    arguments = ["search", "pleural effusion", "-k", "20", "--format", "json", "--store", url]
    whole = forked(partial(_command, arguments, home))
    code, said, expected = whole.result()
    if code or not expected:
        raise RuntimeError(f"a search that nobody interrupts ended with {code}, saying {said}")
    outcomes = []
    for number in range(attempts):
        share, backend = (number + rng.random()) / attempts, number % 2 == 1
        while True:
            killed, (code, said, answers) = _with_a_kill(
                server, arguments, home, database, share * whole.seconds, backend
            )
            if killed:
                break
            share *= 0.9
        outcome = Outcome(f"search, {killed} killed after {share:.0%} of its time", "before")
        outcome.faults += _faults_of(code, said)
        if not code and answers != expected:
            outcome.faults.append("it answered otherwise")
        again, said, answers = forked(partial(_command, arguments, home)).result()
        if again or answers != expected:
            outcome.faults.append(f"the same search ended with {again}, saying {said}")
        outcomes.append(outcome)
    return outcomes


def _whole(server: postgres.Server, arguments: Sequence[str], folder: Path) -> tuple[Ended, tuple[Seen, _Rows]]:
    database, home = server.new_database(), _new_home(folder)
    ended = forked(partial(_command, [*arguments, server.url(database)], home))
    code, said, _ = ended.result()
    if code:
        raise RuntimeError(f"an index that nobody interrupts ended with {code}, saying {said}")
    return ended, forked(partial(_look, server.url(database), home)).result()


def _with_a_kill(
    server: postgres.Server, arguments: Sequence[str], home: Path, database: str, after: float, backend: bool
) -> tuple[str, tuple[int, str, str]]:
    """What was killed ("" if the command was quicker), and how the command ended. The server is back then."""
    killed: list[str] = []
    ended = threading.Event()

    def kill() -> None:
        if ended.wait(after):
            return
        if backend and server.kill_backend(database):
            killed.append("a process of the server")
        else:
            server.kill()
            killed.append("the server")

    killer = threading.Thread(target=kill)
    outcome = forked(partial(_command, arguments, home), meanwhile=killer.start)
    ended.set()
    killer.join()
    if killed == ["the server"]:
        server.start()
    server.wait()
    return "".join(killed), outcome.result()


def _command(arguments: Sequence[str], home: Path) -> tuple[int, str, str]:
    os.environ["XDG_DATA_HOME"] = str(home)
    return as_command(arguments, home, pace_s=0.003)


def _faults_of(code: int, said: str) -> list[str]:
    """Of how it ended: well, or with 1 and one line of what happened and one of what to do."""
    lines = [line for line in lines_said(said) if not line.startswith("searched for: ")]
    if code == 0 and not lines:
        return []
    errors = [line for line in lines if line.startswith("medlens: ")]
    if code == 1 and len(errors) == 1 and len(lines) == 2 and any(text in errors[0] for text in _SAYS):
        return []
    return [f"it ended with {code}, saying: {said}"]


def _are_whole_batches(some: _Rows, rows: _Rows) -> bool:
    """Whether all of some rows are among the rows of a whole run, and no file is there in part."""
    if not all(set(some[name]) <= set(rows[name]) for name in rows):
        return False
    uids = {dict(row)["sop_instance_uid"] for row in some["instances"]}
    return all(
        set(some[name]) == {row for row in rows[name] if dict(row)["instance_id"] in uids}
        for name in ("frames", "reports")
    )


def _look(url: str, home: Path) -> tuple[Seen, _Rows]:
    os.environ["XDG_DATA_HOME"] = str(home)
    with Store.open(url) as store:
        rows = crash_trial.contents(store)
        tables = {name: hashlib.sha256(repr(some).encode()).hexdigest() for name, some in rows.items()}
        wrong = tuple(check.name for check in verify_store(store) if not check.sound)
        return Seen(tables, (), jobs.answers(store), wrong), rows


def _new_home(folder: Path) -> Path:
    home = folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    return home
