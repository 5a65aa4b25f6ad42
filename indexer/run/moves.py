"""Archives and files that are at another place than the catalog knows: what is where, by the files' content.

An archive that is mounted elsewhere keeps its row, and everything with it: what was rejected or erased stays so. It is
known again by a sample of its files, compared byte by byte. Files that went to another place one by one are compared
when they are met.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from indexer.catalog.moves import Where
from indexer.catalog.sql_catalog import SqlCatalog
from indexer.sources.opening import digest, is_gone, source_at
from indexer.sources.source import Source
from retrieval.errors import DicomError, FileUnreadable

VANISHED = "vanished_files"  # a setting: instances without a file, by archive, as of the last run over all of it
SAMPLE = 32  # files of an archive that are compared


@dataclass(frozen=True)
class Sample:
    """How many of an archive's files were looked for at another root, and what was found there."""

    looked_at: int = 0
    same: int = 0
    differing: int = 0
    missing: int = 0


def compared(catalog: SqlCatalog, archive_id: int, source: Source) -> Sample:
    """Look for some of an archive's files in a source, at the same paths, and compare their bytes."""
    known = catalog.files.sample(archive_id, SAMPLE)
    same = differing = 0
    for file in known:
        found = source.stat(file.path)
        if found is None:
            continue
        if found.size == file.size and _digest(source, file.path) == file.content_hash:
            same += 1
        else:
            differing += 1
    return Sample(len(known), same, differing, len(known) - same - differing)


def relocated(catalog: SqlCatalog, source: Source) -> int:
    """Know an archive by the root of `source` if it was at a root where nothing is any more; how many files it has.

    At least half of the files that are compared have to be there, with the same bytes. 0 if there is no such archive,
    or the catalog knows that root.
    """
    roots = catalog.files.archive_roots()
    if source.root in roots.values():
        return 0
    gone = [archive_id for archive_id, root in roots.items() if is_gone(root)]
    found = {archive_id: compared(catalog, archive_id, source) for archive_id in gone}
    shares = {archive_id: sample.same / max(sample.looked_at, 1) for archive_id, sample in found.items()}
    best = max(shares, key=lambda archive_id: shares[archive_id], default=None)
    if best is None or shares[best] < 0.5 or not catalog.files.relocate(best, source.root):
        return 0
    return catalog.files.count(best)


def note_vanished(catalog: SqlCatalog, archive_id: int, count: int) -> None:
    """Keep how many instances of an archive have no file there any more, for whoever asks what is in the store."""
    known = catalog.manifest.get(VANISHED, {})
    if known.get(str(archive_id), 0) != count:
        catalog.manifest[VANISHED] = {**known, str(archive_id): count}


class LostFiles:
    """Tells which indexed files are no longer where the catalog has them, by asking where they come from."""

    def __init__(self, catalog: SqlCatalog, sources: Iterable[Source]) -> None:
        """`sources` are asked for their own files; the folders of other archives are opened."""
        self._catalog = catalog
        self._sources = {source.root: source for source in sources}

    def places(self, now: Mapping[Where, str]) -> set[Where]:
        """The places in the catalog of these content hashes where there are no such bytes now.

        `now` has the hashes by the places where they were just found. Elsewhere a file that has another version is
        compared byte by byte; one that can't be asked for counts as there.
        """
        owners = self._catalog.files.owners(now.values())
        roots = self._catalog.files.archive_roots()
        gone = {archive_id: is_gone(roots[archive_id]) for archive_id in {owner.archive_id for owner in owners}}
        lost = set()
        for owner in owners:
            place = (owner.archive_id, owner.path)
            source = self._source(roots[owner.archive_id])
            if place in now:
                there = now[place] == owner.content_hash
            elif source is None:
                there = True
            else:
                found = None if gone[owner.archive_id] else source.stat(owner.path)
                there = found is not None and (
                    found.version == owner.version or _digest(source, owner.path) == owner.content_hash
                )
            if not there:
                lost.add(place)
        return lost

    def _source(self, root: str) -> Source | None:
        try:
            return self._sources.get(root) or source_at(root)
        except FileUnreadable:  # of a kind that this medlens can't read from
            return None


def _digest(source: Source, path: str) -> str | None:
    """The content hash of a file; None if it can't be read."""
    try:
        return digest(source.locate(path))
    except DicomError:
        return None
