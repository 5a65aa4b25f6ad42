"""One commit: how read files become rows, replace older rows, or stay out. Everything is one transaction."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from indexer.catalog.batching import rows_where_in
from indexer.catalog.claims import release
from indexer.catalog.erasure import Erasures, any_erased, keep_out, let_in, which_erased
from indexer.catalog.moves import Where, adopt
from indexer.catalog.new_rows import PackedFile, file_row, insert_files, pack
from indexer.catalog.removal import CONFLICT, detach, forget
from indexer.catalog.schema import files, instances
from indexer.records import FileStat, IndexedFile, Rejection, Tally


@dataclass(frozen=True)
class CommitOutcome:
    """The result of a commit.

    `stale` are files that were taken for copies of a file that is no longer there; they must be read.
    """

    tally: Tally
    stale: tuple[FileStat, ...] = ()


class Commit:
    """Adds files of one archive within a transaction that the caller opened for writing and ends.

    With `erased`, erased files stay out; with `readmit` as well, they are added and no longer kept out.
    `lost` are places where the file that the catalog knows there is gone.
    """

    def __init__(
        self,
        connection: sa.Connection,
        archive_id: int,
        erased: Erasures | None = None,
        readmit: bool = False,
        lost: Collection[Where] = (),
    ) -> None:
        self._db = connection
        self._archive = archive_id
        self._erasures = erased
        self._readmit = readmit
        self._lost = lost
        self._tally = Tally()

    def take(
        self,
        indexed: Sequence[IndexedFile],
        rejected: Sequence[tuple[FileStat, Rejection]],
        copies: Sequence[tuple[FileStat, str]],
        dim: int | None,
    ) -> CommitOutcome:
        """See `Files.commit`."""
        packed = [pack(file, dim) for file in indexed]
        stats = [file.stat for file in indexed] + [stat for stat, _ in rejected] + [stat for stat, _ in copies]
        release(self._db, self._archive, [stat.path for stat in stats])
        out = self._kept_out(indexed)
        packed = [item for item in packed if item.file.stat not in out]
        known = self._known_paths([item.file.stat.path for item in packed] + [stat.path for stat, _ in rejected])
        held = self._held_uids([item.file.record.sop_instance_uid for item in packed])

        # Most files are entirely new: they are inserted with few statements. The others are added one by one.
        fresh: list[PackedFile] = []
        special: list[PackedFile] = []
        for item in packed:
            path, uid = item.file.stat.path, item.file.record.sop_instance_uid
            (fresh if path not in known and uid not in held else special).append(item)
            known.add(path)
            held.add(uid)
        insert_files(self._db, self._archive, fresh, self._tally)
        self._tally.indexed += len(fresh)
        for item in special:
            self._take(item)
        for stat, rejection in rejected:
            self._reject(stat, rejection, stat.path in known)
            known.add(stat.path)
        adopted = self._adopt(copies)  # last, because a copy may be of a file in this commit
        return CommitOutcome(self._tally, tuple(stat for stat, _ in copies if stat.path not in adopted))

    def _adopt(self, copies: Sequence[tuple[FileStat, str]]) -> set[str]:
        """Record files with the content of an indexed file.

        Returns the paths of those for which there is such a file.
        """
        return adopt(self._db, self._archive, copies, self._lost, self._tally)

    # -- one file

    def _take(self, item: PackedFile) -> None:
        """Add a file whose path or instance is known."""
        file = item.file
        uid, stat = file.record.sop_instance_uid, file.stat
        known = self._file(stat.path)
        owner = self._owner(instances.c.sop_instance_uid == uid)
        same = owner is not None and bool(file.content_hash) and owner.content_hash == file.content_hash
        if owner is not None and same:
            self._adopt([(stat, file.content_hash)])
            return
        if owner is not None and (known is None or owner.file_id != known):
            self._conflict(file)
            return
        if known is not None:
            replaced = detach(self._db, [known])
            if owner is not None and not replaced:  # handed over: another file still has the old content
                self._conflict(file)
                return
            self._db.execute(sa.delete(files).where(files.c.id == known))
            if replaced:
                self._tally.updated += 1
            else:
                self._tally.indexed += 1
        else:
            self._tally.indexed += 1
        insert_files(self._db, self._archive, [item], self._tally)

    def _conflict(self, file: IndexedFile) -> None:
        uid = file.record.sop_instance_uid
        note = Rejection(
            file.stat.path, CONFLICT, f"another file with different content has the same SOP Instance UID {uid}"
        )
        row = file_row(self._archive, file.stat, "rejected", note, file.content_hash, uid)
        self._put_file(self._file(file.stat.path), row)
        self._tally.reject(note)

    def _reject(self, stat: FileStat, rejection: Rejection, is_known: bool) -> None:
        row = file_row(self._archive, stat, "rejected", rejection)
        self._put_file(self._file(stat.path) if is_known else None, row)
        self._tally.reject(rejection)

    def _put_file(self, known: int | None, row: dict[str, Any]) -> None:
        """Write the row of a file that owns no instance, replacing the row that is known."""
        if known is None:
            self._db.execute(sa.insert(files), [row])
            return
        self._tally.removed += detach(self._db, [known])
        self._db.execute(sa.update(files).where(files.c.id == known).values(**row))

    def _kept_out(self, indexed: Sequence[IndexedFile]) -> set[FileStat]:
        """Record files that contain erased data, so that the next run does not read them again."""
        if self._erasures is None or not indexed or not any_erased(self._db):
            return set()
        by_file = {file.stat: self._erasures.of_record(file.record) for file in indexed}
        own = {stat: self._erasures.of_file(self._archive, stat) for stat in by_file}
        if self._readmit:
            let_in(self._db, [*own.values(), *(digest for digests in by_file.values() for digest in digests)])
            return set()
        known = which_erased(self._db, [digest for digests in by_file.values() for digest in digests])
        out = {stat for stat, digests in by_file.items() if not known.isdisjoint(digests)}
        keep_out(self._db, {own[stat]: "file" for stat in out})
        self._tally.removed += forget(self._db, self._archive, [stat.path for stat in out])
        self._tally.erased += len(out)
        return out

    # -- look-ups

    def _owner(self, condition: sa.ColumnElement[bool]) -> Any | None:
        """Return the instance, with its file, for which the condition holds."""
        query = (
            sa.select(instances.c.id, instances.c.file_id, instances.c.sop_instance_uid, files.c.content_hash)
            .select_from(instances.join(files, instances.c.file_id == files.c.id))
            .where(condition)
        )
        return self._db.execute(query).first()

    def _file(self, path: str) -> int | None:
        query = sa.select(files.c.id).where(files.c.archive_id == self._archive, files.c.path == path)
        return self._db.execute(query).scalar_one_or_none()

    def _known_paths(self, paths: Sequence[str]) -> set[str]:
        query = sa.select(files.c.path).where(files.c.archive_id == self._archive)
        return {row[0] for row in rows_where_in(self._db, query, files.c.path, paths)}

    def _held_uids(self, uids: Sequence[str]) -> set[str]:
        query = sa.select(instances.c.sop_instance_uid)
        return {row[0] for row in rows_where_in(self._db, query, instances.c.sop_instance_uid, uids)}
