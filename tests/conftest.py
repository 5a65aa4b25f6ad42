"""Fixtures that more than one test file uses."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# pytest's workers share the cores. More threads than cores spin while they wait for each other: twice the CPU time.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _WORKERS > 1:
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read when NumPy, torch and FAISS are first imported
        os.environ.setdefault(_name, str(max((os.cpu_count() or 1) // _WORKERS, 1)))

# No test judges by the clock: examples take what they take.
settings.register_profile("medlens", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("medlens")

# A shell ignores SIGINT for what it puts in the background, and that is inherited: tests of Ctrl-C need it back.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What a test makes known, or puts beside a database, is no business of whoever runs it.
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="medlens-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_DATA_HOME"], ignore_errors=True)

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


def _require(path: Path) -> Path:
    """Skip without the shared data, but fail where MEDLENS_REQUIRE_SHARED=1 promises it is there."""
    if not path.exists():
        if os.environ.get("MEDLENS_REQUIRE_SHARED") == "1":
            pytest.fail(f"MEDLENS_REQUIRE_SHARED=1, but {path.name} is not beside the project")
        pytest.skip("the shared data is not beside the project")
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    return _require(SHARED / "data")


@pytest.fixture(scope="session")
def shared_tools() -> Path:
    return _require(SHARED / "tools")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A PostgreSQL server of our own on a UNIX socket, as a URL to fill in: `.format(database=...)`."""
    import postgres

    if lacks := postgres.missing():
        pytest.skip(lacks)
    server = postgres.Server()
    try:
        yield server.url("{database}")
    finally:
        server.remove()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database, dropped afterwards."""
    import sqlalchemy as sa

    name = f"t{uuid.uuid4().hex[:12]}"
    admin = sa.create_engine(postgres_server.format(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield postgres_server.format(database=name)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    admin.dispose()
