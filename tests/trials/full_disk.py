"""Commands on a disk that gets full, under the store and under what they write."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

from trials import jobs
from trials.commands import as_command, lines_said
from trials.jobs import Seen, files_of, look
from trials.killing import forked
from trials.kills import ONE_THREAD, recorded, warm_up
from trials.registry import Tally, trial

_DISK = 16 << 20
_PAGE = 4096
_NEW_MOUNTS, _NEW_USERS = 0x00020000, 0x10000000  # CLONE_NEWNS: what is mounted goes with the process; CLONE_NEWUSER
_SAYS_FULL = ("disk is full", "No space left on device", "the disk has only")


@dataclass(frozen=True)
class Command:
    """`medlens` with these words, of which {store}, {out} and {inputs} are filled in; `finds` makes the store."""

    words: str
    finds: Callable[[Path, Path], None] = jobs.with_base
    batches: bool = False  # it commits more than once

    def arguments(self, places: Mapping[str, Path]) -> list[str]:
        return [word.format(**places) for word in self.words.split()]


STORE_FULL: Mapping[str, Command] = {
    "import": Command("import {inputs}/vectors.npz --store {store}"),
    "index": Command("index {inputs}/archive --store {store}", jobs.with_empty, True),
    "index, a changed archive": Command("index {inputs}/changing --prune --store {store}", jobs.with_changing, True),
    "index, a new store": Command("index {inputs}/archive --store {store}", lambda inputs, folder: None, True),
    "classify --save": Command("classify --labels {inputs}/labels.yaml --save --store {store} --format csv"),
    "optimize": Command("optimize --kind ivf-rabitq --store {store}"),
    "restore": Command("restore {inputs}/store.backup --store {store}", lambda inputs, folder: None),
    "delete": Command("delete --study 1.2.4.0 --yes --store {store}"),
    "verify --repair": Command("verify --repair --store {store}", jobs.damaged(["a flipped bit of an index"])),
    "migrate": Command("migrate --store {store}", jobs.with_old),
}
OUTPUT_FULL: Mapping[str, Command] = {
    "export npz": Command("export {out}/vectors.npz --store {store}"),
    "export parquet": Command("export {out}/vectors.parquet --store {store}"),
    "export faiss": Command("export {out}/vectors.faiss --store {store}"),
    "backup": Command("backup {out}/store.backup --store {store}"),
    "search -o jsonl": Command("search effusion -k 40 --format jsonl -o {out}/hits.jsonl --store {store}"),
    "search -o csv": Command("search effusion -k 40 --format csv -o {out}/hits.csv --store {store}"),
    "search -o html": Command("search effusion --format html -o {out}/hits.html --store {store}"),
    "search --montage": Command("search effusion --ranker dense -k 40 --montage {out}/hits.png --store {store}"),
    "search --cohort": Command("search effusion -k 40 --cohort {out}/cohort.csv --store {store}"),
    "search --copy-to": Command("search effusion -k 40 --copy-to {out}/files --store {store}"),
    "select -o": Command("select --level instance -o {out}/instances.csv --store {store}"),
    "classify -o csv": Command("classify --labels {inputs}/labels.yaml -o {out}/labels.csv --store {store}"),
    "classify -o parquet": Command("classify --labels {inputs}/labels.yaml -o {out}/labels.parquet --store {store}"),
    "classify FILES -o": Command(
        "classify {inputs}/archive/0 --labels {inputs}/labels.yaml -o {out}/labels.csv --store {store}"
    ),
    "index --report": Command("index {inputs}/archive --report {out}/rejected.jsonl --store {store}", batches=True),
}


@dataclass
class Outcome:
    """What became of one command on a disk with so much room."""

    attempt: str
    state: str = ""
    says: str = ""
    faults: list[str] = field(default_factory=list)


def _no_disk() -> str:
    """Why no disk can be mounted; "" if one can."""
    if shutil.which("unshare") is None:
        return "there is no `unshare`"
    done = subprocess.run(["unshare", "--map-root-user", "--mount", "true"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "this user may not mount a disk of its own"


@trial(attempts=250, share=0.013, missing=_no_disk)
def full_disk(attempts: int, seed: int, folder: Path, tally: Tally) -> None:
    """Commands on a full disk say so in one line, leave the store as it was or whole batches, and go on with room."""
    names = [name for pair in zip_longest(STORE_FULL, OUTPUT_FULL) for name in pair if name]
    with patch.dict(os.environ, ONE_THREAD), ProcessPoolExecutor(1, get_context("spawn")) as alone:
        outcomes = alone.submit(_tried, names, attempts, seed, folder).result()
    for outcome in outcomes:
        if outcome.faults:
            tally.failed(f"{outcome.attempt}: {'; '.join(outcome.faults)}")
        elif outcome.says:
            tally.refused(outcome.says)
        else:
            tally.contained()
        tally.note(f"state {outcome.state or 'of no run'}")


def _tried(names: Sequence[str], attempts: int, seed: int, folder: Path) -> list[Outcome]:
    warm_up()
    inputs = folder / "inputs"
    inputs.mkdir()
    forked(lambda: jobs.make_inputs(inputs)).result()
    disk = folder / "disk"
    disk.mkdir()
    _mount(disk)
    rng = random.Random(seed)
    known: dict[str, _Known] = {}
    outcomes = []
    for number in range(attempts):
        name = names[number % len(names)]
        if name not in known:
            known[name] = _Known(name, inputs, folder, disk)
        share = (number // len(names) + rng.random()) / max(attempts // len(names), 1)
        outcomes.append(known[name].attempt(min(share, 1.0)))
    return outcomes


def _mount(disk: Path) -> None:
    """A small disk in memory, which nobody sees but this process and its children."""
    user, group = os.geteuid(), os.getegid()
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_MOUNTS | (_NEW_USERS if user else 0)):
        raise OSError(ctypes.get_errno(), "no namespace of its own")
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(disk)], check=True)


class _Known:
    """A command: how it ends on a disk with room, and how much room it needs."""

    def __init__(self, name: str, inputs: Path, folder: Path, disk: Path) -> None:
        self._name, self._inputs, self._disk = name, inputs, disk
        self._under_store = name in STORE_FULL
        self._command = {**STORE_FULL, **OUTPUT_FULL}[name]
        self._found = Path(tempfile.mkdtemp(dir=folder))
        (self._found / "out").mkdir()
        forked(lambda: self._command.finds(inputs, self._found)).result()
        self._elsewhere = Path(tempfile.mkdtemp(dir=folder))
        self._before: Seen = forked(lambda: look(self._found)).result()
        self._make_room(None)
        code, said = self._run()
        if code:
            raise RuntimeError(f"{name} on a disk with room: {code}, {said}")
        self._after: Seen = self._look()
        self._files = self._list()
        self._between = self._states() if self._command.batches else []
        self._enough = self._least()

    def attempt(self, share: float) -> Outcome:
        pages = int(share * self._enough / _PAGE)
        outcome = Outcome(f"{self._name} with room for {pages} pages of {self._enough // _PAGE}")
        found = self._make_room(pages * _PAGE)
        code, said = self._run()
        seen = self._look()
        outcome.state = (
            "before" if seen.tables == self._before.tables else "after" if seen.tables == self._after.tables else ""
        )
        if not outcome.state and seen.tables in self._between:
            outcome.state = "whole batches"
        if not outcome.state:
            outcome.faults.append(
                f"neither before ({self._before.differing(seen)}) nor after ({self._after.differing(seen)})"
            )
        if wrong := set(seen.unsound) - {*self._before.unsound, "dead workers"}:
            outcome.faults.append(f"verify finds wrong: {sorted(wrong)}")
        if code:
            lines = lines_said(said)
            errors = [line for line in lines if line.startswith("medlens: ")]
            outcome.says = errors[0].removeprefix("medlens: ") if errors else ""
            if (
                code != 1
                or len(errors) != 1
                or "Traceback" in said
                or len(lines) < 2
                or not any(text in said for text in _SAYS_FULL)
            ):
                outcome.faults.append(f"it ended with {code}, saying: {said}")
            there = {name: mode for name, mode in self._list().items() if name not in self._spooled()}
            left = there.keys() - found.keys()
            if self._under_store:  # whole files that are derived from what was committed may be there by now
                left -= self._files.keys()
            if left:
                outcome.faults.append(f"half written: {sorted(left)}")
        (self._disk / "ballast").unlink()
        again, said = self._run()
        end = self._look()
        if again:
            outcome.faults.append(f"with room it ended with {again}, saying: {said}")
        elif end != self._after:
            outcome.faults.append(
                f"with room: other rows in {self._after.differing(end)}, {end.kinds}, wrong {end.unsound}, "
                f"same answers: {end.answers == self._after.answers}"
            )
        if not again and self._list() != self._files:
            outcome.faults.append(f"files with room: {sorted(self._list().items() ^ self._files.items())}")
        return outcome

    def _spooled(self) -> set[str]:
        """What is kept on purpose, so that the same command goes on: rows of some files."""
        spools = self._places()["out"].glob(".*.partial.jsonl")
        return {f"out/{path.name}" for path in spools if path.read_bytes().count(b"\n") > 1}

    def _places(self) -> dict[str, Path]:
        store = (self._disk if self._under_store else self._elsewhere) / "store"
        out = (self._elsewhere if self._under_store else self._disk) / "out"
        return {"store": store, "out": out, "inputs": self._inputs}

    def _make_room(self, room: int | None) -> dict[str, int]:
        """Begin anew, with so many bytes free; what lies there then."""
        for place in (self._disk, self._elsewhere):
            for path in place.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name, place in self._places().items():
            if name != "inputs" and (self._found / name).exists():
                shutil.copytree(self._found / name, place)
        if room is not None:
            with (self._disk / "ballast").open("wb") as file:
                free = os.statvfs(self._disk).f_bavail * os.statvfs(self._disk).f_frsize
                os.posix_fallocate(file.fileno(), 0, max(free - room, 1))
        return self._list()

    def _run(self) -> tuple[int, str]:
        code, said, _ = forked(partial(as_command, self._command.arguments(self._places()), self._elsewhere)).result()
        return code, said

    def _look(self) -> Seen:
        """At a copy that lies where there is room."""
        copy = self._elsewhere / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        if self._places()["store"].exists():
            shutil.copytree(self._places()["store"], copy / "store")
        seen: Seen = forked(lambda: look(copy)).result()
        shutil.rmtree(copy, ignore_errors=True)
        shutil.rmtree(copy.with_name("copy-seen"), ignore_errors=True)
        return seen

    def _list(self, only: str = "") -> dict[str, int]:
        found = {}
        for name in ("store", "out"):
            place = self._places()[name]
            beside = {path.name for path in place.parent.iterdir()} - {"store", "out", "ballast", "said", "answered"}
            found |= {f"{name}: {path}": 0 for path in beside}
            if place.exists():
                found |= {f"{name}/{path}": mode for path, mode in files_of(place).items()}
        return {name: mode for name, mode in found.items() if name.startswith(only)}

    def _states(self) -> list[dict[str, str]]:
        """The states of the tables between the batches of a run that nothing interrupts."""
        self._make_room(None)
        run = partial(as_command, self._command.arguments(self._places()), self._elsewhere)
        _, states = forked(lambda: recorded(run, self._places()["store"].parent)).result()
        return states

    def _least(self) -> int:
        """The least room that suffices, in bytes, to a page."""
        low, high = 0, 1
        while True:
            self._make_room(high * _PAGE)
            if not self._run()[0]:
                break
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            self._make_room(middle * _PAGE)
            low, high = (low, middle) if not self._run()[0] else (middle, high)
        return high * _PAGE
