"""The catalog's writes: how files become rows, replace each other, and are erased. One Writer per transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from indexer.catalog.claims import release
from indexer.catalog.erasure import Erasures, any_erased, keep_out, let_in, which_erased
from indexer.catalog.schema import VECTOR_TABLES, deletions, files, frames, instances, reports, sentences
from indexer.keywords import COLUMNS
from indexer.records import FileStat, IndexedFile, Rejection

DUPLICATE = "duplicate"
CONFLICT = "conflict"
NORM_TOLERANCE = 0.01
_CHUNK = 5000


@dataclass(frozen=True)
class CommitOutcome:
    """What a commit did. `added`, `updated`, `unchanged` and `removed` count instances, `duplicates` files.

    `updated` had its content replaced; `unchanged` was only touched; `removed` lost its file to a rejection; `erased`
    are files that stay out because of what they hold. `stale` were said to be copies of what is no longer there.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    duplicates: int = 0
    removed: int = 0
    frames: int = 0
    reports: int = 0
    sentences: int = 0
    erased: int = 0
    conflicts: tuple[Rejection, ...] = ()
    stale: tuple[FileStat, ...] = ()


class Writer:
    """Writes in one transaction that the caller opened and ends. `archive_id` is only needed where files are named.

    With `erased`, what was erased stays out; with `readmit` as well it is let in, and forgotten to have been erased.
    """

    def __init__(
        self,
        connection: sa.Connection,
        archive_id: int | None,
        erased: Erasures | None = None,
        readmit: bool = False,
    ) -> None:
        self._db = connection
        self._archive = archive_id
        self._erasures = erased
        self._readmit = readmit
        self._tally = {"added": 0, "updated": 0, "unchanged": 0, "duplicates": 0, "removed": 0}
        self._conflicts: list[Rejection] = []
        self._rows = {"frames": 0, "reports": 0, "sentences": 0}

    def commit(
        self,
        indexed: Sequence[IndexedFile],
        rejected: Sequence[tuple[FileStat, Rejection]],
        copies: Sequence[tuple[FileStat, str]],
        dim: int | None,
    ) -> CommitOutcome:
        packed = [(item, _pack(item, dim)) for item in indexed]
        stats = [i.stat for i in indexed] + [stat for stat, _ in rejected] + [stat for stat, _ in copies]
        if self._archive is not None:
            release(self._db, self._archive, [stat.path for stat in stats])
        out = self._kept_out(indexed)
        packed = [(item, vectors) for item, vectors in packed if item.stat not in out]
        indexed = [item for item, _ in packed]
        known = self._known_paths([i.stat.path for i in indexed] + [stat.path for stat, _ in rejected])
        held = self._held_uids([i.record.sop_instance_uid for i in indexed])

        # Most files are new in every way: those go in by few statements. The others, one by one.
        fresh: list[tuple[IndexedFile, _Packed]] = []
        special: list[tuple[IndexedFile, _Packed]] = []
        for item, vectors in packed:
            uid = item.record.sop_instance_uid
            plain = item.stat.path not in known and uid not in held
            (fresh if plain else special).append((item, vectors))
            known.add(item.stat.path)
            held.add(uid)
        self._insert(fresh)
        self._tally["added"] += len(fresh)
        for item, vectors in special:
            self._take(item, vectors)
        for stat, rejection in rejected:
            if stat.path in known:
                self._reject(stat, rejection.reason, rejection.detail)
            else:
                known.add(stat.path)
                self._db.execute(sa.insert(files), [_file_row(self._archive, stat, "rejected", rejection)])
        adopted = self._adopt(copies)  # last: a copy may be of a file in this very commit
        return CommitOutcome(
            **self._tally,
            **self._rows,
            erased=len(out),
            conflicts=tuple(self._conflicts),
            stale=tuple(stat for stat, _ in copies if stat.path not in adopted),
        )

    def _adopt(self, candidates: Sequence[tuple[FileStat, str]]) -> set[str]:
        """Note files whose content is that of an indexed file; the paths of those for which there is one."""
        adopted = set()
        for stat, content_hash in candidates:
            owner = (
                content_hash
                and self._db.execute(
                    sa.select(instances.c.id, instances.c.file_id, instances.c.sop_instance_uid)
                    .select_from(instances.join(files, instances.c.file_id == files.c.id))
                    .where(files.c.content_hash == content_hash)
                ).first()
            )
            if owner:
                self._note_copy(stat, content_hash, owner)
                adopted.add(stat.path)
        return adopted

    def forget(self, paths: Sequence[str]) -> int:
        gone = 0
        for chunk in _chunks(paths):
            ids = [row.id for row in self._db.execute(self._files_at(chunk))]
            gone += self._release(ids)
            self._db.execute(sa.delete(files).where(files.c.id.in_(ids)))
        return gone

    def hand_over(self, paths: Sequence[str], gone: Collection[str]) -> int:
        """Of files at `paths`, which are gone: pass their instances to copies that are not in `gone`; how many.

        The others stay as they are.
        """
        moved = 0
        for chunk in _chunks(paths):
            owned = self._owned([row.id for row in self._db.execute(self._files_at(chunk))])
            heirs = self._heirs(owned, lambda row: row.archive_id != self._archive or row.path not in gone)
            given = [row for row in owned if (row.sop_instance_uid, row.content_hash) in heirs]
            for row in given:
                self._inherit(row.id, heirs[row.sop_instance_uid, row.content_hash])
            self._db.execute(sa.delete(files).where(files.c.id.in_([row.file_id for row in given])))
            moved += len(given)
        return moved

    def erase(self, instance_ids: Sequence[int], scope: str) -> None:
        """Instances, and the rows of every file that holds or claims them: paths can hold names.

        With the store's Erasures, each is kept out by its own digest, or that of its patient, study or series.
        """
        names = {
            "patient": instances.c.patient_pseudonym,
            "study": instances.c.study_instance_uid,
            "series": instances.c.series_instance_uid,
            "instance": instances.c.sop_instance_uid,
        }
        for chunk in _chunks(instance_ids):
            rows = self._db.execute(
                sa.select(instances.c.sop_instance_uid, names[scope].label("name")).where(instances.c.id.in_(chunk))
            ).all()
            theirs = files.c.sop_instance_uid.in_([row.sop_instance_uid for row in rows])
            if self._erasures is not None:
                digests = {self._erasures.digest(scope, row.name): scope for row in rows}
                for row in self._db.execute(sa.select(files).where(theirs)):
                    stat = FileStat(row.path, row.size, row.mtime_ns)
                    digests[self._erasures.of_file(row.archive_id, stat)] = "file"
                keep_out(self._db, digests)
            self._delete_instances(chunk)
            self._db.execute(sa.delete(files).where(theirs))

    # -- one file

    def _take(self, item: IndexedFile, vectors: _Packed) -> None:
        uid, stat = item.record.sop_instance_uid, item.stat
        known = self._file(stat.path)
        owner = self._db.execute(
            sa.select(instances.c.id, instances.c.file_id, instances.c.sop_instance_uid, files.c.content_hash)
            .select_from(instances.join(files, instances.c.file_id == files.c.id))
            .where(instances.c.sop_instance_uid == uid)
        ).one_or_none()
        same = owner is not None and bool(item.content_hash) and owner.content_hash == item.content_hash
        if owner is not None and same:
            self._note_copy(stat, item.content_hash, owner)
            return
        if owner is not None and (known is None or owner.file_id != known.id):
            self._conflict(stat, item)
            return
        if known is not None:
            replaced = self._release([known.id])
            if owner is not None and not replaced:  # handed over: another file still has the old content
                self._conflict(stat, item)
                return
            self._db.execute(sa.delete(files).where(files.c.id == known.id))
            self._tally["updated" if replaced else "added"] += 1
        else:
            self._tally["added"] += 1
        self._insert([(item, vectors)])

    def _note_copy(self, stat: FileStat, content_hash: str, owner: Any) -> None:
        known = self._file(stat.path)
        if known is not None and known.id == owner.file_id:
            self._db.execute(
                sa.update(files).where(files.c.id == known.id).values(size=stat.size, mtime_ns=stat.mtime_ns)
            )
            self._tally["unchanged"] += 1
            return
        note = Rejection(stat.path, DUPLICATE, f"the same bytes as another file of {owner.sop_instance_uid}")
        self._put_file(known, stat, "indexed", note, content_hash, owner.sop_instance_uid)
        self._tally["duplicates"] += 1

    def _conflict(self, stat: FileStat, item: IndexedFile) -> None:
        uid = item.record.sop_instance_uid
        note = Rejection(stat.path, CONFLICT, f"another file with other content has SOP Instance UID {uid}")
        self._put_file(self._file(stat.path), stat, "rejected", note, item.content_hash, uid)
        self._conflicts.append(note)

    def _reject(self, stat: FileStat, reason: str, detail: str) -> None:
        self._put_file(self._file(stat.path), stat, "rejected", Rejection(stat.path, reason, detail), "", None)

    def _put_file(
        self,
        known: Any | None,
        stat: FileStat,
        status: str,
        note: Rejection,
        content_hash: str,
        uid: str | None,
    ) -> None:
        row = _file_row(self._archive, stat, status, note, content_hash, uid)
        if known is None:
            self._db.execute(sa.insert(files), [row])
            return
        self._tally["removed"] += self._release([known.id])
        self._db.execute(sa.update(files).where(files.c.id == known.id).values(**row))

    def _insert(self, items: Sequence[tuple[IndexedFile, _Packed]]) -> None:
        if not items:
            return
        records = [item.record for item, _ in items]
        file_ids = self._new_ids(files, len(items))
        self._db.execute(
            sa.insert(files),
            [
                {"id": file_id}
                | _file_row(self._archive, item.stat, "indexed", None, item.content_hash, item.record.sop_instance_uid)
                for file_id, (item, _) in zip(file_ids, items, strict=True)
            ],
        )
        ids = self._new_ids(instances, len(items))
        self._db.execute(
            sa.insert(instances),
            [
                {
                    "id": instance_id,
                    "file_id": file_id,
                    "kind": record.kind,
                    "patient_pseudonym": record.patient_pseudonym,
                    **{column: _storable(record.attributes.get(column)) for column in COLUMNS},
                }
                for instance_id, file_id, record in zip(ids, file_ids, records, strict=True)
            ],
        )
        frame_rows, report_rows, texts = [], [], []
        for instance_id, (item, (frame_vectors, sentence_vectors)) in zip(ids, items, strict=True):
            frame_rows += [
                {"instance_id": instance_id, "frame_number": number, "vector": vector}
                for number, vector in zip(item.frame_numbers, frame_vectors, strict=True)
            ]
            if item.record.report_text or item.sentences:
                report_rows.append({"instance_id": instance_id, "text": _storable(item.record.report_text)})
                texts.append(list(zip(item.sentences, sentence_vectors, strict=True)))
        if frame_rows:
            self._db.execute(sa.insert(frames), frame_rows)
        sentence_rows = []
        if report_rows:
            report_ids = self._new_ids(reports, len(report_rows))
            rows = [{"id": report_id} | row for report_id, row in zip(report_ids, report_rows, strict=True)]
            self._db.execute(sa.insert(reports), rows)
            sentence_rows = [
                {"report_id": report_id, "position": position, "text": _storable(text), "vector": vector}
                for report_id, own in zip(report_ids, texts, strict=True)
                for position, (text, vector) in enumerate(own)
            ]
        if sentence_rows:
            self._db.execute(sa.insert(sentences), sentence_rows)
        self._rows["frames"] += len(frame_rows)
        self._rows["reports"] += len(report_rows)
        self._rows["sentences"] += len(sentence_rows)

    def _new_ids(self, table: sa.Table, count: int) -> Sequence[int]:
        """Ids for new rows. With them rows go in many at a time; to hand ids back, SQLite inserts them one by one.

        Nobody else can take them: this transaction holds the write lock, or they come from PostgreSQL's sequence.
        """
        if self._db.dialect.name == "postgresql":
            sequence = sa.func.nextval(sa.func.pg_get_serial_sequence(table.name, "id"))
            query = sa.select(sequence).select_from(sa.func.generate_series(1, count))
            return list(self._db.execute(query).scalars())
        last = self._db.execute(sa.select(sa.func.coalesce(sa.func.max(table.c.id), 0))).scalar_one()
        return range(last + 1, last + 1 + count)

    # -- taking away

    def _release(self, file_ids: Sequence[int]) -> int:
        """Part files from their instances; how many instances went. One with another copy passes to that file."""
        owned = self._owned(file_ids)
        left = set(file_ids)
        heirs = self._heirs(owned, lambda row: row.id not in left)
        gone = []
        for row in owned:
            heir = heirs.get((row.sop_instance_uid, row.content_hash))
            if heir is None:
                gone.append(row.id)
            else:
                self._inherit(row.id, heir)
        self._delete_instances(gone)
        return len(gone)

    def _owned(self, file_ids: Sequence[int]) -> Sequence[Any]:
        query = (
            sa.select(instances.c.id, instances.c.file_id, instances.c.sop_instance_uid, files.c.content_hash)
            .select_from(instances.join(files, instances.c.file_id == files.c.id))
            .where(files.c.id.in_(file_ids))
        )
        return self._db.execute(query).all()

    def _heirs(self, owned: Sequence[Any], may_be: Callable[[Any], bool]) -> dict[tuple[str, str], int]:
        """The file that can take over an instance, by its UID and content."""
        copies = self._db.execute(
            sa.select(files).where(
                files.c.sop_instance_uid.in_([row.sop_instance_uid for row in owned]), files.c.reason == DUPLICATE
            )
        )
        return {(row.sop_instance_uid, row.content_hash): row.id for row in copies if may_be(row)}

    def _inherit(self, instance_id: int, file_id: int) -> None:
        self._db.execute(sa.update(instances).where(instances.c.id == instance_id).values(file_id=file_id))
        self._db.execute(sa.update(files).where(files.c.id == file_id).values(reason="", detail=""))

    def _delete_instances(self, ids: Sequence[int]) -> None:
        """Delete with all that hangs on them, and log it. Files in conflict with them are to be looked at again."""
        if not ids:
            return
        for kind, table in VECTOR_TABLES.items():
            rows = sa.select(table.rows.c.id, sa.literal(kind)).select_from(table.joined)
            rows = rows.where(table.instance_id.in_(ids))
            self._db.execute(sa.insert(deletions).from_select([deletions.c.row_id, deletions.c.kind], rows))
        rivals = sa.select(instances.c.sop_instance_uid).where(instances.c.id.in_(ids))
        self._db.execute(sa.delete(files).where(files.c.reason == CONFLICT, files.c.sop_instance_uid.in_(rivals)))
        self._db.execute(sa.delete(instances).where(instances.c.id.in_(ids)))  # frames and reports go with it

    def _kept_out(self, indexed: Sequence[IndexedFile]) -> set[FileStat]:
        """Files that hold what was erased. They are remembered as such, so that the next run need not read them."""
        if self._erasures is None or self._archive is None or not indexed or not any_erased(self._db):
            return set()
        by_file = {item.stat: self._erasures.of_record(item.record) for item in indexed}
        own = {stat: self._erasures.of_file(self._archive, stat) for stat in by_file}
        if self._readmit:
            let_in(self._db, [*own.values(), *(digest for digests in by_file.values() for digest in digests)])
            return set()
        known = which_erased(self._db, [digest for digests in by_file.values() for digest in digests])
        out = {stat for stat, digests in by_file.items() if not known.isdisjoint(digests)}
        keep_out(self._db, {own[stat]: "file" for stat in out})
        self._tally["removed"] += self.forget([stat.path for stat in out])
        return out

    # -- looking up

    def _files_at(self, paths: Sequence[str]) -> sa.Select[Any]:
        return sa.select(files.c.id).where(files.c.archive_id == self._archive, files.c.path.in_(paths))

    def _file(self, path: str) -> Any | None:
        query = sa.select(files.c.id).where(files.c.archive_id == self._archive, files.c.path == path)
        return self._db.execute(query).one_or_none()

    def _known_paths(self, paths: Sequence[str]) -> set[str]:
        found: set[str] = set()
        for chunk in _chunks(paths):
            query = sa.select(files.c.path).where(files.c.archive_id == self._archive, files.c.path.in_(chunk))
            found.update(self._db.execute(query).scalars())
        return found

    def _held_uids(self, uids: Sequence[str]) -> set[str]:
        found: set[str] = set()
        for chunk in _chunks(uids):
            query = sa.select(instances.c.sop_instance_uid).where(instances.c.sop_instance_uid.in_(chunk))
            found.update(self._db.execute(query).scalars())
        return found


_Packed = tuple[list[bytes], list[bytes]]  # frame vectors, sentence vectors


def _pack(item: IndexedFile, dim: int | None) -> _Packed:
    uid = item.record.sop_instance_uid
    if len(set(item.frame_numbers)) != len(item.frame_numbers) or any(n < 1 for n in item.frame_numbers):
        raise ValueError(f"{uid}: frame numbers {item.frame_numbers}, expected different ones from 1")
    return (
        _packed_vectors(item.frame_vectors, len(item.frame_numbers), dim, f"{uid}: frame vectors"),
        _packed_vectors(item.sentence_vectors, len(item.sentences), dim, f"{uid}: sentence vectors"),
    )


def _packed_vectors(vectors: Any, count: int, dim: int | None, what: str) -> list[bytes]:
    if vectors is None:
        if count:
            raise ValueError(f"{what}: none, expected {count}")
        return []
    array = np.asarray(vectors, dtype=np.float32)
    if array.ndim != 2 or array.shape[0] != count or (count and dim is not None and array.shape[1] != dim):
        raise ValueError(f"{what} have shape {array.shape}, expected ({count}, {dim if dim is not None else 'D'})")
    norms = np.linalg.norm(array, axis=1)
    if not np.all(np.abs(norms - 1) <= NORM_TOLERANCE):  # also false for NaN
        raise ValueError(f"{what} have norms {norms[:5]}, expected 1")
    return [row.tobytes() for row in array.astype("<f2")]


def _file_row(
    archive_id: int | None,
    stat: FileStat,
    status: str,
    note: Rejection | None,
    content_hash: str = "",
    uid: str | None = None,
) -> dict[str, Any]:
    return {
        "archive_id": archive_id,
        "path": stat.path,
        "size": stat.size,
        "mtime_ns": stat.mtime_ns,
        "status": status,
        "reason": note.reason if note else "",
        "detail": _storable(note.detail) if note else "",
        "content_hash": content_hash or None,
        "sop_instance_uid": uid,
    }


def _storable(value: Any) -> Any:
    """A text without what no database takes: NUL, and lone surrogates."""
    if isinstance(value, str):
        return value.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")
    return value


def _chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]
