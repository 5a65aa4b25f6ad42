"""Read, encode, commit at the same time: nothing lost, nothing piled up, nothing hangs, and every failure comes out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from indexer.run.stages import STAGES, Clock, StagePipeline

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


def no_stage_is_left() -> bool:
    return not [
        t for t in threading.enumerate() if t.name in ("medlens-reading", "medlens-encoding", "medlens-committing")
    ]


def test_everything_is_committed_in_order() -> None:
    done: list[int] = []
    StagePipeline(lambda i: i * i, done.append).run(iter(range(200)))
    assert done == [i * i for i in range(200)]
    assert no_stage_is_left()


def test_nothing_to_do_is_done_at_once() -> None:
    StagePipeline(lambda i: i, lambda i: pytest.fail("there was nothing to commit")).run(iter(()))


def test_the_stages_overlap() -> None:
    """Each stage goes on only when all three are at work on different items at the same time."""
    together = threading.Barrier(3, timeout=20)

    def items() -> Iterator[int]:
        for i in range(5):
            if i >= 2:
                together.wait()
            yield i

    def encode(i: int) -> int:
        if 1 <= i < 4:
            together.wait()
        return i

    def commit(i: int) -> None:
        if i < 3:
            together.wait()

    StagePipeline(encode, commit).run(items())


def test_a_slow_stage_holds_up_the_reading() -> None:
    pulled, committed, ahead = 0, 0, []

    def items() -> Iterator[int]:
        nonlocal pulled
        for i in range(60):
            pulled += 1
            ahead.append(pulled - committed)
            yield i

    def commit(i: int) -> None:
        nonlocal committed
        time.sleep(0.002)
        committed += 1

    StagePipeline(lambda i: i, commit).run(items())
    assert committed == 60
    assert max(ahead) <= 8  # two between stages, one in each hand


@pytest.mark.parametrize("where", ["read", "encode", "commit"])
def test_a_failure_in_any_stage_comes_out_and_what_was_encoded_before_is_committed(where: str) -> None:
    done: list[int] = []

    def failing(stage: str, value: int) -> int:
        if stage == where and value == 30:
            raise ZeroDivisionError(stage)
        return value

    stages = StagePipeline(lambda i: failing("encode", i), lambda i: done.append(failing("commit", i)))
    with pytest.raises(ZeroDivisionError, match=where):
        stages.run(failing("read", i) for i in range(10_000))
    assert done == list(range(len(done)))
    assert 20 < len(done) <= 30
    assert stages.stopping.is_set()
    assert no_stage_is_left()


def test_ctrl_c_commits_what_is_being_encoded_and_drops_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    pulled, done = [], []
    encoding, asked = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        for i in range(10_000):
            pulled.append(i)
            yield i

    def encode(i: int) -> int:
        if i == 3:
            encoding.set()
            assert asked.wait(20)
            time.sleep(0.05)
        return i

    def tell() -> None:
        if encoding.is_set() and not asked.is_set():
            asked.set()
            raise KeyboardInterrupt

    stages = StagePipeline(encode, done.append, tell)
    with pytest.raises(KeyboardInterrupt):
        stages.run(items())
    assert done == [0, 1, 2, 3]
    assert len(pulled) < 10
    assert "Ctrl-C again" in caplog.text
    assert no_stage_is_left()


def test_a_second_ctrl_c_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = threading.Event()
    presses = iter([KeyboardInterrupt, KeyboardInterrupt])
    join = threading.Thread.join

    def pressed(thread: threading.Thread, timeout: float | None = None) -> None:
        if thread.name == "medlens-reading":
            raise next(presses)
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", pressed)
    stages: StagePipeline[int, int] = StagePipeline(lambda i: (stuck.wait(20) and i) or i, lambda i: None)
    with pytest.raises(KeyboardInterrupt):
        stages.run(iter(range(10)))
    assert not stuck.is_set()
    stuck.set()


def test_a_failure_while_stopping_is_not_hidden() -> None:
    encoding, asked = threading.Event(), threading.Event()

    def encode(i: int) -> int:
        encoding.set()
        assert asked.wait(20)
        raise ZeroDivisionError

    def tell() -> None:
        if encoding.is_set():
            asked.set()
            raise KeyboardInterrupt

    with pytest.raises(ZeroDivisionError) as caught:
        StagePipeline(encode, lambda i: None, tell).run(iter(range(3)))
    assert isinstance(caught.value.__cause__, KeyboardInterrupt)


def slow(seconds: float) -> Callable[[int], int]:
    def work(i: int) -> int:
        time.sleep(seconds)
        return i

    return work


def test_the_clock_names_the_stage_that_holds_up_the_others() -> None:
    clock = Clock()
    StagePipeline(slow(0.01), slow(0.001), clock=clock).run(iter(range(20)))  # type: ignore[arg-type]
    loads = clock.loads()
    assert tuple(loads) == STAGES
    assert all(0 <= load <= 1 for load in loads.values())
    assert max(loads, key=loads.__getitem__) == "encode"
    assert loads == clock.loads()  # nothing goes on any more


def test_what_is_still_going_on_counts() -> None:
    clock = Clock()
    assert clock.loads() == dict.fromkeys(STAGES, 0.0)
    with clock.busy("pipeline"), clock.busy("read"):
        time.sleep(0.02)
        loads = clock.loads()
    assert loads["read"] > 0.5 and loads["encode"] == 0
