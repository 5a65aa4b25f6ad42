"""What frames belong to, which frames a study has, what its reports say: what grouping and ranking ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from indexer.catalog.database import Database
from indexer.catalog.schema import deletions, frames, instances, reports, sentences
from retrieval.types import Lineage

_CHUNK = 10_000  # values per statement; SQLite takes 32,766 parameters, PostgreSQL 65,535


class LineageReads:
    """Reads of the catalog, each one transaction."""

    _database: Database

    def lineage(self, ids: Iterable[int]) -> dict[int, Lineage]:
        """What frames belong to, by id, in the order asked. Ids that are gone are missing from the answer."""
        wanted = list(dict.fromkeys(int(i) for i in ids))
        columns = [instances.c[f"{name}_instance_uid"] for name in ("sop", "series", "study")]
        query = sa.select(frames.c.id, *columns, instances.c.patient_pseudonym).select_from(frames.join(instances))
        found = {row[0]: Lineage(*row[1:]) for row in self._where_in(query, frames.c.id, wanted)}
        return {i: found[i] for i in wanted if i in found}

    def frames_of(self, column: str, uids: Iterable[str]) -> dict[str, list[int]]:
        """Ascending frame ids by `study_instance_uid` or another column, in the order asked, of those that have any."""
        wanted = list(dict.fromkeys(uids))
        key = instances.c[column]
        query = sa.select(key, frames.c.id).select_from(frames.join(instances)).order_by(frames.c.id)
        found: dict[str, list[int]] = {}
        for row in self._where_in(query, key, wanted):
            found.setdefault(row[0], []).append(row[1])
        return {uid: found[uid] for uid in wanted if uid in found}

    def sentences_of(self, study_instance_uids: Iterable[str]) -> dict[str, list[int]]:
        """Ascending ids of the sentences of each study's reports, of those studies that have any."""
        key = instances.c.study_instance_uid
        joined = sentences.join(reports).join(instances)
        query = sa.select(key, sentences.c.id).select_from(joined).order_by(sentences.c.id)
        found: dict[str, list[int]] = {}
        for row in self._where_in(query, key, list(dict.fromkeys(study_instance_uids))):
            found.setdefault(row[0], []).append(row[1])
        return found

    def patients_of(self, sop_instance_uids: Iterable[str]) -> dict[str, str | None]:
        """The patient's pseudonym by SOP Instance UID, of those that are there."""
        query = sa.select(instances.c.sop_instance_uid, instances.c.patient_pseudonym)
        return {row[0]: row[1] for row in self._where_in(query, instances.c.sop_instance_uid, list(sop_instance_uids))}

    def report_texts(self) -> dict[str, str]:
        """The text of all reports with a sentence in them, by study."""
        query = sa.select(instances.c.study_instance_uid, reports.c.text).select_from(reports.join(instances))
        query = query.where(sa.exists().where(sentences.c.report_id == reports.c.id))
        found: dict[str, list[str]] = {}
        with self._database.reading() as connection:
            for study, text in connection.execute(query.order_by(reports.c.id)):
                found.setdefault(study, []).append(text)
        return {study: "\n".join(texts) for study, texts in found.items()}

    def report_mark(self) -> list[int]:
        """Changes whenever a report with a sentence comes or goes.

        The last sentence's id and the last deletion's number; neither is ever used twice.
        """
        gone = sa.select(deletions.c.seq).where(deletions.c.kind == "sentence")
        with self._database.reading() as connection:
            last = connection.execute(sa.select(sa.func.max(sentences.c.id))).scalar()
            erased = connection.execute(gone.order_by(deletions.c.seq.desc()).limit(1)).scalar()
        return [last or 0, erased or 0]

    def _where_in(self, query: sa.Select[Any], column: sa.ColumnElement[Any], values: Sequence[Any]) -> Iterator[Any]:
        with self._database.reading() as connection:
            for start in range(0, len(values), _CHUNK):
                yield from connection.execute(query.where(column.in_(values[start : start + _CHUNK])))
