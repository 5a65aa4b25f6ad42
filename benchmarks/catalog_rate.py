"""Committed files per second on SQLite and PostgreSQL, and the rerun of an unchanged archive.

    python benchmarks/catalog_rate.py [--files 20000] [--rerun 1000000] [--rounds 5] [--postgres URL]

Commits: batches of 128 files of one frame (512 numbers) through the claim and the commit that indexing makes, into new
catalogs; the peer is the same rows with `executemany` and one commit per batch, straight through the database's own
driver with the same durability, without constraints other than the primary keys: what the database can do. Rounds of
both, and of both databases, take turns.

Rerun: an archive of empty files (on the temporary folder's disk) that the catalog knows, walked and compared as
`medlens index` does; the peer is the least a program can do, `os.walk` with a stat of each file, in the same run.
Prints medians, the least and the most, ratios, and the peak of memory. On a busy machine only the ratios mean anything.
"""

from __future__ import annotations

import argparse
import os
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import sqlalchemy as sa

from indexer.catalog.claims import LEASE_S
from indexer.catalog.processes import Process
from indexer.catalog.schema import files
from indexer.catalog.sql_catalog import SqlCatalog
from indexer.keywords import COLUMNS
from indexer.records import FileStat, IndexedFile, InstanceRecord
from indexer.run.changes import ArchiveChanges
from indexer.run.lease import Lease
from indexer.sources.folders import Folder

DIM, BATCH = 512, 128


def items(count: int) -> list[IndexedFile]:
    rng = np.random.default_rng(0)
    out = []
    for n in range(count):
        vector = rng.normal(size=(1, DIM)).astype(np.float32)
        values = dict.fromkeys(COLUMNS) | {
            "sop_instance_uid": f"1.2.826.0.1.3680043.8.498.{n}",
            "study_instance_uid": f"1.2.826.0.1.3680043.8.499.{n // 100}",
            "series_instance_uid": f"1.2.826.0.1.3680043.8.500.{n // 50}",
            "modality": "CT",
            "rows": 512,
        }
        out.append(
            IndexedFile(
                FileStat(f"{n // 1000:04d}/{n:08d}.dcm", 526_000, n),
                InstanceRecord(values, f"{n // 500:032x}", "image", 1),
                (1,),
                vector / np.linalg.norm(vector),
                content_hash=f"{n:040x}",
            )
        )
    return out


def through_catalog(url: str | Path, batches: list[list[IndexedFile]]) -> float:
    with SqlCatalog.create(url, {"store_id": "x", "model": {"embed_dim": DIM}}) as catalog:
        archive, worker = catalog.files.archive_id("/a"), catalog.claims.take_lease(Process.this(), LEASE_S)
        started = time.perf_counter()
        for batch in batches:
            catalog.claims.claim(archive, worker, [item.stat for item in batch])
            catalog.files.commit(archive, batch)
        return time.perf_counter() - started


def plain_rows(batch: list[IndexedFile]) -> list[tuple[object, ...]]:
    out = []
    for item in batch:
        attributes = item.record.attributes
        assert item.frame_vectors is not None
        vector = item.frame_vectors[0].astype("<f2").tobytes()
        out.append((item.stat.path, item.stat.size, item.stat.stamp, item.content_hash,
                    *(attributes[column] for column in COLUMNS), vector))  # fmt: skip
    return out


def plain(url: str | Path, batches: list[list[IndexedFile]]) -> float:
    columns = ["path", "size", "mtime", "hash", *COLUMNS, "vector"]
    names = ", ".join(f'"{name}"' for name in columns)
    if isinstance(url, Path):
        database = sqlite3.connect(url)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        mark, blob, key = "?", "BLOB", "INTEGER PRIMARY KEY"
    else:
        import psycopg

        database = psycopg.connect(sa.make_url(url).set(drivername="postgresql").render_as_string(False))
        mark, blob, key = "%s", "BYTEA", "BIGSERIAL PRIMARY KEY"
    types = {"size": "BIGINT", "mtime": "BIGINT", "vector": blob}
    kinds = ", ".join(f'"{name}" {types.get(name, "TEXT")}' for name in columns)
    database.execute(f"CREATE TABLE plain (id {key}, {kinds})")
    database.commit()
    insert = f"INSERT INTO plain ({names}) VALUES ({', '.join([mark] * len(columns))})"
    started = time.perf_counter()
    for batch in batches:
        database.cursor().executemany(insert, plain_rows(batch))
        database.commit()
    taken = time.perf_counter() - started
    database.close()
    return taken


def said(name: str, rates: list[float], unit: str) -> None:
    print(f"{name:42s} {statistics.median(rates):10,.0f} {unit} ({min(rates):,.0f} to {max(rates):,.0f})", flush=True)


def commits(count: int, rounds: int, postgres: str | None, folder: Path) -> None:
    made = items(count)
    batches = [made[start : start + BATCH] for start in range(0, count, BATCH)]
    rates: dict[str, list[float]] = {}
    for turn in range(rounds):
        for what, run in (("catalog", through_catalog), ("plain inserts", plain)):
            took = run(folder / f"{what}{turn}.sqlite", batches)
            rates.setdefault(f"SQLite, {what}", []).append(count / took)
            if postgres:
                url = new_database(postgres)
                rates.setdefault(f"PostgreSQL, {what}", []).append(count / run(url, batches))
    for name, found in rates.items():
        said(name, found, "files/s")
    for kind in ("SQLite", "PostgreSQL"):
        if f"{kind}, catalog" in rates:
            pairs = zip(rates[f"{kind}, catalog"], rates[f"{kind}, plain inserts"], strict=True)
            ratios = [mine / peer for mine, peer in pairs]
            spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"{kind}: the catalog is at {statistics.median(ratios):.2f} of plain inserts {spread}", flush=True)


def new_database(url: str) -> str:
    name = f"rate{time.time_ns()}"
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    admin.dispose()
    return sa.make_url(url).set(database=name).render_as_string(False)


def rerun(count: int, rounds: int, folder: Path) -> None:
    root = folder / "archive"
    for n in range(count):
        if n % 1000 == 0:
            (root / f"{n // 1_000_000:03d}" / f"{n // 1000:06d}").mkdir(parents=True)
        os.close(
            os.open(root / f"{n // 1_000_000:03d}" / f"{n // 1000:06d}" / f"{n:08d}.dcm", os.O_CREAT | os.O_WRONLY)
        )
    with SqlCatalog.create(folder / "rerun.sqlite", {"store_id": "x", "model": {"embed_dim": DIM}}) as catalog:
        archive = catalog.files.archive_id(root.resolve())
        known(catalog, archive, root)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        def medlens() -> None:
            with Lease(catalog) as worker:
                changes = ArchiveChanges(catalog, Folder(root), worker)
                read = [file for files_ in changes.rounds() for file in files_]
                changes.finish(prune=True)
            if read or changes.tally.removed or changes.tally.unchanged != count:
                raise RuntimeError(f"{len(read)} read, {changes.tally.removed} removed of an unchanged archive")

        took = timed({"rerun": medlens, "os.walk and stat": lambda: walked(root)}, rounds)
        for name, seconds in took.items():
            said(f"{count:,} files, {name}", [count / s for s in seconds], "files/s")
        ratios = [mine / peer for mine, peer in zip(took["rerun"], took["os.walk and stat"], strict=True)]
        spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"a rerun takes {statistics.median(ratios):.2f} times as long as os.walk and stat {spread}")
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(f"peak memory grew by {grown:.0f} MB")


def known(catalog: SqlCatalog, archive: int, root: Path) -> None:
    rows: list[dict[str, object]] = []
    with catalog._database.writing() as connection:
        for folder, _, names in os.walk(root):
            for name in names:
                path = Path(folder, name)
                status = path.stat()
                rows.append(
                    {"archive_id": archive, "path": str(path.relative_to(root)), "size": status.st_size,
                     "mtime_ns": status.st_mtime_ns, "status": "indexed", "reason": "", "detail": ""}
                )  # fmt: skip
            if len(rows) > 50_000:
                connection.execute(sa.insert(files), rows)
                rows.clear()
        if rows:
            connection.execute(sa.insert(files), rows)


def walked(root: Path) -> None:
    for folder, _, names in os.walk(root):
        for name in names:
            os.stat(f"{folder}/{name}")  # noqa: PTH116 - the least a program can do


def timed(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    took: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            took[name].append(time.perf_counter() - started)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000, help="for the commits; 0 leaves them out")
    parser.add_argument("--rerun", type=int, default=1_000_000, help="files of the unchanged archive; 0 leaves it out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--postgres", help="the URL of a database whose user may make databases; they are left there")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if asked.files:
            commits(asked.files, asked.rounds, asked.postgres, Path(folder))
        if asked.rerun:
            rerun(asked.rerun, asked.rounds, Path(folder))


if __name__ == "__main__":
    main()
