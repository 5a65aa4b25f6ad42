"""Digests of erased files, by which the next indexing run recognises them and leaves them out.

A right to erasure does not end with the next `medlens index` of an archive that still has the files. So an erasure
stores HMAC-SHA256 digests, keyed with the store's own key, of what was named (a patient, study, series or instance) and
of each file (archive, path and version). Without the key they reveal nothing, not even to someone who can guess the
UIDs; with it they only answer "was this one erased?".

A file that is recognised by its own digest costs no more than a stat. A new file is read, and recognised by its
instance, series, study or patient.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

import sqlalchemy as sa

from indexer.catalog.batching import CHUNK, delete_where_in, rows_where_in
from indexer.catalog.schema import erasures, instances
from indexer.records import FileStat, InstanceRecord

SCOPES = ("patient", "study", "series", "instance", "file")


class Erasures:
    """The digests of one store, made with its key (32 bytes)."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def digest(self, scope: str, *parts: object) -> str:
        """64 hexadecimal digits. ValueError for a scope that is not in SCOPES."""
        if scope not in SCOPES:
            raise ValueError(f"the scope is {scope!r}; expected one of {SCOPES}")
        text = "\0".join(("medlens erasure", scope, *map(str, parts)))
        return hmac.digest(self._key, text.encode("utf-8", "surrogatepass"), "sha256").hex()

    def of_file(self, archive_id: int, stat: FileStat) -> str:
        return self.digest("file", archive_id, stat.path, *stat.version)

    def of_record(self, record: InstanceRecord) -> list[str]:
        """Return every digest under which an instance may have been erased."""
        values = {
            "patient": record.patient_pseudonym,
            "study": record.attributes.get("study_instance_uid"),
            "series": record.attributes.get("series_instance_uid"),
            "instance": record.sop_instance_uid,
        }
        return [self.digest(scope, value) for scope, value in values.items() if value]


def any_erased(connection: sa.Connection) -> bool:
    return connection.execute(sa.select(erasures.c.digest).limit(1)).first() is not None


def which_erased(connection: sa.Connection, digests: Sequence[str]) -> set[str]:
    query = sa.select(erasures.c.digest)
    return {row[0] for row in rows_where_in(connection, query, erasures.c.digest, digests)}


def all_erased(connection: sa.Connection) -> dict[str, str]:
    """Return all digests with their scopes."""
    return {row.digest: row.scope for row in connection.execute(sa.select(erasures))}


def instances_erased(connection: sa.Connection, digests: Collection[str], erased: Erasures) -> list[int]:
    """Return the ids of the instances that match these digests by themselves, their series, study or patient."""
    columns = {
        "patient": instances.c.patient_pseudonym,
        "study": instances.c.study_instance_uid,
        "series": instances.c.series_instance_uid,
        "instance": instances.c.sop_instance_uid,
    }
    query = sa.select(instances.c.id, *columns.values()).order_by(instances.c.id).limit(CHUNK)
    digest = lru_cache(CHUNK)(erased.digest)
    found: list[int] = []
    last = 0
    while rows := connection.execute(query.where(instances.c.id > last)).all():
        last = rows[-1][0]
        for number, *values in rows:
            named = zip(columns, values, strict=True)
            if any(value and digest(scope, value) in digests for scope, value in named):
                found.append(number)
    return found


def keep_out(connection: sa.Connection, digests: Mapping[str, str]) -> None:
    """Store digests with their scope.

    The connection holds the write lock, so no other process can add one meanwhile.
    """
    there = which_erased(connection, list(digests))
    rows = [{"digest": digest, "scope": scope} for digest, scope in digests.items() if digest not in there]
    if rows:
        connection.execute(sa.insert(erasures), rows)


def let_in(connection: sa.Connection, digests: Iterable[str]) -> None:
    """Remove digests, so that the files can be indexed again."""
    delete_where_in(connection, erasures, erasures.c.digest, list(digests))
