"""A PostgreSQL server of our own on a UNIX socket, that can be killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import sqlalchemy as sa


def missing() -> str:
    """Why there can be none; "" if there can."""
    if find_spec("psycopg") is None:
        return "psycopg is not installed"
    return "" if _binaries() else "PostgreSQL is not installed (Debian: apt-get install postgresql)"


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    on_path = shutil.which("postgres")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


class Server:
    """Started when it is made. Nothing of it is left when it is removed."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="medlens-pg-"))
        self._as_user: list[str] = []
        if os.geteuid() == 0:  # the server refuses to run as root
            shutil.chown(self._folder, "postgres")
            self._as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        self._pg_ctl("initdb", "-o", "-A trust -U medlens -N -E UTF8 --locale=C.UTF-8")
        self.start()

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://medlens@/{database}?host={self._folder}"

    def start(self) -> None:
        """Start it, after a crash with what was committed before."""
        options = f"-c listen_addresses='' -c unix_socket_directories={self._folder} -c fsync=off"
        self._pg_ctl("start", "-l", str(self._folder / "log"), "-o", options)

    def remove(self) -> None:
        if self._pid_file.exists():
            self._pg_ctl("stop", "-m", "immediate")
        shutil.rmtree(self._folder, ignore_errors=True)

    def new_database(self) -> str:
        """The name of an empty database."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self._execute(f"CREATE DATABASE {name}")
        return name

    def drop(self, database: str) -> None:
        self._execute(f"DROP DATABASE {database} WITH (FORCE)")

    def kill(self) -> None:
        """SIGKILL to the server and all its processes at once."""
        postmaster = self._postmaster()
        processes = [postmaster, *self._children(postmaster)]
        for pid in processes:
            _kill(pid)
        while any(_is_alive(pid) for pid in processes):
            time.sleep(0.005)
        for lock in (self._pid_file, *self._folder.glob(".s.PGSQL.*.lock")):
            lock.unlink()  # a dead process that nobody waits for still has its PID

    def kill_backend(self, database: str) -> bool:
        """SIGKILL to a process that serves a client of this database; whether there was one.

        The server then ends all others, recovers and takes connections again, all by itself.
        """
        for pid in self._children(self._postmaster()):
            if f" {database} " in _said_by(pid, "cmdline").replace("\0", " "):
                _kill(pid)
                return True
        return False

    def wait(self) -> None:
        """Until it takes connections."""
        for _ in range(2000):
            try:
                self._execute("SELECT 1")
            except sa.exc.OperationalError:
                time.sleep(0.02)
            else:
                return
        raise RuntimeError("the server does not come back")

    def _execute(self, statement: str) -> None:
        engine = sa.create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)

    def _pg_ctl(self, *arguments: str) -> None:
        program = str((_binaries() or Path()) / "pg_ctl")
        command = [*self._as_user, program, "-D", str(self._folder / "data"), "-w", "-s", *arguments]
        subprocess.run(command, check=True, cwd=self._folder, stdout=subprocess.DEVNULL, timeout=120)

    def _postmaster(self) -> int:
        return int(self._pid_file.read_text().split()[0])

    @property
    def _pid_file(self) -> Path:
        return self._folder / "data" / "postmaster.pid"

    @staticmethod
    def _children(parent: int) -> list[int]:
        pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
        return [pid for pid in pids if _said_by(pid, "stat").rpartition(")")[2].split()[1:2] == [str(parent)]]


def _said_by(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text("utf-8", "replace")
    except OSError:
        return ""


def _is_alive(pid: int) -> bool:
    return _said_by(pid, "stat").rpartition(")")[2].split()[:1] not in ([], ["Z"], ["X"])


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
