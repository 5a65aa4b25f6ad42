"""The pool holds whatever a decoder does: it may die, hang, eat memory, panic or lie, and only its own item is lost."""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import guarded_functions
import numpy as np
import pytest

from indexer.guard.pool import GuardedPool
from retrieval.errors import (
    DecodeGuardError,
    DicomError,
    MedlensError,
    NotDicomError,
    PixelDecodeError,
    UnsupportedImageError,
)

ROOT = Path(__file__).resolve().parents[1]


def outcomes(items: list[str], **options: Any) -> tuple[list[Any], int]:
    options = {"workers": 2, "memory_limit": 256 << 20, "deadline_s": 20.0, **options}
    with GuardedPool(guarded_functions.misbehave, **options) as pool:
        results = list(pool.map(items))
        assert [item for item, _ in results] == items
        return [outcome for _, outcome in results], pool.restarts


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie, which its parent has not buried yet, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def all_gone_within(seconds: float, pids: list[int]) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(map(alive, pids)):
            return True
        time.sleep(0.05)
    return False


def test_results_come_in_the_order_of_the_items() -> None:
    with GuardedPool(guarded_functions.square, workers=2) as pool:
        assert list(pool.map(range(500))) == [(x, x * x) for x in range(500)]
        assert list(pool.map([])) == []
        assert list(pool.map([3])) == [(3, 9)], "a pool maps more than once"
        assert pool.restarts == 0


def test_arrays_cross_unchanged_and_can_be_written_to() -> None:
    with GuardedPool(guarded_functions.picture, workers=2, in_flight=3) as pool:
        for n, picture in pool.map([1, 2, 700, 16, 1500]):
            np.testing.assert_array_equal(picture, guarded_functions.picture(n))
            assert picture.dtype == np.uint16
            picture[0, 0] = 1
    with GuardedPool(guarded_functions.many_pictures, workers=1) as pool:
        [(_, got)] = pool.map([5])
        want = guarded_functions.many_pictures(5)
        for a, b in zip(got["frames"], want["frames"], strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(got["strided"], want["strided"])
        assert got["empty"].shape == (0, 3)


def test_an_endless_source_is_pulled_lazily_and_boundedly() -> None:
    pulled = 0

    def endless() -> Iterator[int]:
        nonlocal pulled
        while True:
            pulled += 1
            yield pulled

    with GuardedPool(guarded_functions.square, workers=2, in_flight=5) as pool:
        results = pool.map(endless())
        assert pulled == 0
        for n, (item, outcome) in enumerate(itertools.islice(results, 300), start=1):
            assert (item, outcome) == (n, n * n)
            assert pulled <= n + 4
        results.close()
        assert list(pool.map([7])) == [(7, 49)], "and it serves again after a map that was ended early"


def test_a_map_ended_early_leaves_nothing_behind() -> None:
    with GuardedPool(guarded_functions.misbehave, workers=2, deadline_s=60) as pool:
        results = pool.map(["a", "hang", "hang", "hang", "b"])
        assert next(results) == ("a", "a")
        results.close()
        assert list(pool.map(["c", "d", "e"])) == [("c", "c"), ("d", "d"), ("e", "e")]


def test_an_error_of_the_source_reaches_the_caller() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise LookupError("the archive went away")

    with GuardedPool(guarded_functions.square, workers=1) as pool:
        with pytest.raises(LookupError, match="went away"):
            list(pool.map(failing()))
        assert list(pool.map([2])) == [(2, 4)]


@pytest.mark.parametrize(
    ("how", "why"), [("segfault", "SIGSEGV"), ("kill", "SIGKILL"), ("exit", "exit status 3"), ("memory", "256 MiB")]
)
def test_what_brings_a_worker_down_is_tried_twice_and_then_left_out(how: str, why: str) -> None:
    got, restarts = outcomes(["a", how, "b", "c"])
    assert got[0] == "a"
    assert got[2:] == ["b", "c"]
    assert isinstance(got[1], DecodeGuardError)
    assert why in str(got[1])
    assert got[1].hint
    assert restarts == 2


@pytest.mark.parametrize("how", ["hang", "hang with the GIL", "stop"])
def test_what_hangs_is_ended_at_the_deadline(how: str) -> None:
    got, restarts = outcomes(["a", how, "b"], deadline_s=0.5)
    assert (got[0], got[2]) == ("a", "b")
    assert isinstance(got[1], DecodeGuardError)
    assert "0.5 s" in str(got[1])
    assert restarts >= 2


def test_a_hang_is_ended_while_the_caller_is_busy() -> None:
    with GuardedPool(guarded_functions.misbehave, workers=1, deadline_s=0.3) as pool:
        results = pool.map(["a", "hang", "b", "c", "d"])
        assert next(results) == ("a", "a")
        deadline = time.monotonic() + 30
        while len(pool._done) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)  # an encoder at work: nobody asks the pool for anything
        assert len(pool._done) == 4
        assert [type(outcome) for _, outcome in results] == [DecodeGuardError, str, str, str]


def test_a_worker_that_sends_garbage_is_replaced() -> None:
    got, _ = outcomes(["a", "garbage", "b"])
    assert (got[0], got[2]) == ("a", "b")
    assert isinstance(got[1], DecodeGuardError)


@pytest.mark.parametrize(
    ("how", "name"),
    [
        ("system exit", "SystemExit"),
        ("keyboard interrupt", "KeyboardInterrupt"),
        ("panic", "PanicException"),
        ("value error", "ValueError"),
        ("recursion", "RecursionError"),
        ("unpicklable", "Error"),
    ],
)
def test_any_exception_becomes_an_error_that_names_its_type_but_not_its_text(how: str, name: str) -> None:
    got, restarts = outcomes(["a", how, "b"], workers=1)
    assert (got[0], got[2]) == ("a", "b")
    assert type(got[1]) is PixelDecodeError
    assert name in str(got[1])
    assert guarded_functions.SECRET not in repr(got[1]) + str(got[1].__dict__)
    assert restarts == 0, "an exception is no reason to replace a worker"


def test_errors_of_the_file_come_back_as_they_were_raised() -> None:
    [error], _ = outcomes(["refused"])
    assert type(error) is UnsupportedImageError
    assert (str(error), error.hint, error.code) == ("no picture in it", "Leave it out.", "unsupported-image")
    again = pickle.loads(pickle.dumps(NotDicomError("seen", hint="do")))
    assert (type(again), str(again), again.hint) == (NotDicomError, "seen", "do")


def test_a_file_that_only_fails_once_is_indexed(tmp_path: Path) -> None:
    markers = [str(tmp_path / str(i)) for i in range(3)]
    with GuardedPool(guarded_functions.once_then_well, workers=2) as pool:
        assert list(pool.map(markers)) == [(marker, "well") for marker in markers]
        assert pool.restarts == 3


def test_a_worker_killed_while_idle_costs_nothing() -> None:
    with GuardedPool(guarded_functions.square, workers=2) as pool:
        assert list(pool.map([1, 2])) == [(1, 1), (2, 4)]
        for pid in pool.worker_pids:
            os.kill(pid, signal.SIGKILL)
        assert list(pool.map(range(20))) == [(x, x * x) for x in range(20)]
        assert pool.restarts == 2


def test_other_results_are_the_same_as_without_the_bad_ones() -> None:
    good = [f"item {i}" for i in range(30)]
    mixed = [*good]
    for at, bad in [(3, "segfault"), (9, "panic"), (17, "exit"), (25, "value error")]:
        mixed.insert(at, bad)
    got, _ = outcomes(mixed)
    assert [outcome for item, outcome in zip(mixed, got, strict=True) if item in good] == good
    assert sum(isinstance(outcome, DicomError) for outcome in got) == 4


def test_limits_are_set_inside_the_worker() -> None:
    with GuardedPool(guarded_functions.limits, workers=1, memory_limit=300 << 20) as pool:
        [(_, limits)] = pool.map([0])
    assert limits["core"] == 0, "a core dump would hold patients' pixels"
    assert limits["interrupt ignored"]
    if sys.platform == "linux":
        assert 300 << 20 < limits["address space"] < 4 << 30


def test_the_initializer_runs_once_per_worker() -> None:
    with GuardedPool(
        guarded_functions.prepared, workers=1, initializer=guarded_functions.prepare, initargs=("x",)
    ) as pool:
        assert [outcome for _, outcome in pool.map(range(3))] == [["x"]] * 3


@pytest.mark.parametrize(
    ("initializer", "message"),
    [(guarded_functions.broken_start, "the initializer failed"), (guarded_functions.dying_start, "exit status 7")],
)
def test_workers_that_never_start_end_the_map_with_their_reason(initializer: Any, message: str) -> None:
    with (
        GuardedPool(guarded_functions.square, workers=2, initializer=initializer) as pool,
        pytest.raises(MedlensError, match=message),
    ):
        list(pool.map(range(3)))


def test_wrong_calls_are_refused() -> None:
    for options in [{"workers": 0}, {"workers": 1, "deadline_s": 0}, {"workers": 1, "in_flight": 0}]:
        with pytest.raises(ValueError, match="expected positive numbers"):
            GuardedPool(guarded_functions.square, **options)
    pool: GuardedPool[Any, Any] = GuardedPool(guarded_functions.square, workers=1)
    with pytest.raises(ValueError, match="with"):
        next(pool.map([1]))
    with pool:
        first = pool.map(range(9))
        next(first)
        with pytest.raises(ValueError, match="one map"):
            next(pool.map([1]))
        first.close()
        with pytest.raises(ValueError, match="expected a path or request"):
            list(pool.map([b"x" * 100_000]))


def test_a_pool_closed_by_another_thread_ends_the_map() -> None:
    with GuardedPool(guarded_functions.misbehave, workers=1, deadline_s=60) as pool:
        results = pool.map(["a", "hang"])
        assert next(results) == ("a", "a")
        threading.Timer(0.2, pool.close).start()
        with pytest.raises(ValueError, match="closed"):
            next(results)


def test_workers_say_nothing_and_load_no_torch(capfd: pytest.CaptureFixture[str]) -> None:
    with GuardedPool(guarded_functions.loud, workers=1) as pool:
        assert list(pool.map(["x"])) == [("x", "x")]
    assert capfd.readouterr() == ("", "")
    with GuardedPool(guarded_functions.loaded_modules, workers=1) as pool:
        [(_, modules)] = pool.map([0])
    assert not {"torch", "open_clip", "faiss", "sqlalchemy", "pytest", "multiprocessing"} & set(modules)


def test_closing_ends_workers_that_hang() -> None:
    with GuardedPool(guarded_functions.misbehave, workers=2, deadline_s=60) as pool:
        results = pool.map(["a", "hang", "hang"])
        assert next(results) == ("a", "a")
        pids = list(pool.worker_pids)
    assert all_gone_within(5, pids)


PARENT = """
    import sys
    sys.path[:0] = [{root!r}, {tests!r}]
    import guarded_functions
    from indexer.guard.pool import GuardedPool
    try:
        with GuardedPool(guarded_functions.misbehave, workers=2, deadline_s=300) as pool:
            results = pool.map(["a", {how!r}, {how!r}, "b"])
            next(results)
            print(*pool.worker_pids, flush=True)
            next(results)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", ["hang", "hang with the GIL"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_no_orphans_when_the_parent_ends(how: str, signum: signal.Signals) -> None:
    script = textwrap.dedent(PARENT).format(root=str(ROOT), tests=str(ROOT / "tests"), how=how)
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        time.sleep(0.3)  # both are at the hanging items by now
        assert all(map(alive, pids))
        if signum == signal.SIGINT:
            os.killpg(parent.pid, signum)  # as a terminal does: parent and workers get it
        else:
            parent.send_signal(signum)
        code = parent.wait(timeout=20)
        assert code == (130 if signum == signal.SIGINT else -signum)
        assert all_gone_within(5, pids), "workers outlived their parent"
    finally:
        parent.kill()
        parent.communicate()
