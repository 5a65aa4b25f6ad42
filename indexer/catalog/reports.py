"""The reports: their sentences, and their words by study."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from indexer.catalog.batching import rows_where_in
from indexer.catalog.database import Database
from indexer.catalog.schema import deletions, instances, reports, sentences


@dataclass(frozen=True)
class ReportSentence:
    """One sentence of a report. `position` counts from 0."""

    id: int
    text: str
    position: int
    sop_instance_uid: str
    study_instance_uid: str | None
    patient_pseudonym: str | None


class Reports:
    """The reports of one catalog. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def sentence_rows(self, ids: Iterable[int]) -> dict[int, ReportSentence]:
        """Return sentences by id, in the given order. Ids that no longer exist are left out."""
        query = sa.select(
            sentences.c.id,
            sentences.c.text,
            sentences.c.position,
            instances.c.sop_instance_uid,
            instances.c.study_instance_uid,
            instances.c.patient_pseudonym,
        ).select_from(sentences.join(reports).join(instances))
        wanted = [int(i) for i in ids]
        with self._database.reading() as connection:
            found = {row.id: ReportSentence(*row) for row in rows_where_in(connection, query, sentences.c.id, wanted)}
        return {i: found[i] for i in wanted if i in found}

    def sentences_of(self, study_instance_uids: Iterable[str]) -> dict[str, list[int]]:
        """Return the ascending ids of the sentences of each study's reports, for studies that have any."""
        key = instances.c.study_instance_uid
        joined = sentences.join(reports).join(instances)
        query = sa.select(key, sentences.c.id).select_from(joined).order_by(sentences.c.id)
        found: dict[str, list[int]] = {}
        with self._database.reading() as connection:
            for row in rows_where_in(connection, query, key, list(dict.fromkeys(study_instance_uids))):
                found.setdefault(row[0], []).append(row[1])
        return found

    def texts(self) -> dict[str, str]:
        """The text of all reports with a sentence in them, by study."""
        query = sa.select(instances.c.study_instance_uid, reports.c.text).select_from(reports.join(instances))
        query = query.where(sa.exists().where(sentences.c.report_id == reports.c.id))
        found: dict[str, list[str]] = {}
        with self._database.reading() as connection:
            for study, text in connection.execute(query.order_by(reports.c.id)):
                found.setdefault(study, []).append(text)
        return {study: "\n".join(texts) for study, texts in found.items()}

    def text_of(self, study_instance_uid: str) -> str:
        """The text of a study's reports, empty if it has none."""
        query = sa.select(reports.c.text).select_from(reports.join(instances)).order_by(reports.c.id)
        with self._database.reading() as connection:
            texts = connection.execute(query.where(instances.c.study_instance_uid == study_instance_uid)).scalars()
            return "\n".join(texts)

    def mark(self) -> list[int]:
        """Return a value that changes whenever a report with a sentence is added or removed.

        It is the id of the last sentence and the number of the last deletion; neither is ever used twice.
        """
        gone = sa.select(deletions.c.seq).where(deletions.c.kind == "sentence")
        with self._database.reading() as connection:
            last = connection.execute(sa.select(sa.func.max(sentences.c.id))).scalar()
            erased = connection.execute(gone.order_by(deletions.c.seq.desc()).limit(1)).scalar()
        return [last or 0, erased or 0]
