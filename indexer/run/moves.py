"""Archives and files that have moved are recognised by the content of the files.

An archive that is mounted elsewhere keeps its row and everything that belongs to it: rejected and erased files stay so.
It is recognised by a sample of its files, which are compared by their digests. Other files that have moved are compared
one by one when the walk finds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from indexer.catalog.moves import Where
from indexer.catalog.sql_catalog import SqlCatalog
from indexer.sources.opening import digest, is_gone, source_at
from indexer.sources.source import Source
from retrieval.errors import DicomError, FileUnreadable

VANISHED = "vanished_files"  # a setting: the number of instances without a file, by archive, in its last full run
SAMPLE = 32  # files of an archive that are compared


@dataclass(frozen=True)
class Sample:
    """How many files of an archive were looked for at another root, and what was found there."""

    looked_at: int = 0
    same: int = 0
    differing: int = 0
    missing: int = 0


def compared(catalog: SqlCatalog, archive_id: int, source: Source) -> Sample:
    """Look for some files of an archive at the same paths of a source, and compare their content."""
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
    """Give the root of `source` to the archive that is there now and whose own root is gone.

    At least half of the compared files must be there with the same content. Returns the number of files of the archive;
    0 if there is no such archive, or if the catalog knows the root already.
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
    """Save how many instances of an archive have no file any more, for `medlens info`."""
    known = catalog.manifest.get(VANISHED, {})
    if known.get(str(archive_id), 0) != count:
        catalog.manifest[VANISHED] = {**known, str(archive_id): count}


class LostFiles:
    """Finds indexed files that are gone from their places, by asking the sources that they came from."""

    def __init__(self, catalog: SqlCatalog, sources: Iterable[Source]) -> None:
        """`sources` are asked for their own files; other archives are opened by their root."""
        self._catalog = catalog
        self._sources = {source.root: source for source in sources}

    def places(self, now: Mapping[Where, str]) -> set[Where]:
        """Return the places at which the catalog has these content hashes, but which do not have that content now.

        `now` has the hashes by the places where they were just read. At other places, a file in another version is
        compared by its digest. A file of a source that can't be asked counts as unchanged.
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
    """Return the content hash of a file; None if it can't be read."""
    try:
        return digest(source.locate(path))
    except DicomError:
        return None
