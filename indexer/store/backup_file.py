"""The file of a backup: a tar with a list of files, the catalog, and the key.

Any tar program can read it. Restoring is stricter, because a stranger may have made the file. The list comes first, and
its size is bounded. Exactly the files that it names follow: only the catalog and the key, as regular files with the
listed size and checksum. Headers are read block by block, so that extensions of the format (long names, links, sparse
files, compression) are refused and cost no memory.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from indexer.store.place import CATALOG_FILE, KEY_BYTES, KEY_FILE
from retrieval.bounded import open_file, parse_json
from retrieval.errors import StoreCorrupt, StoreError
from retrieval.on_disk import make_private, sync

LIST = "medlens-backup.json"
FORM = 1
_MOST_LIST = 1 << 16
_CHUNK = 1 << 20
_HINT = "Restore another backup; nothing was changed."


@dataclass(frozen=True)
class Member:
    """A file in a backup."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class BackupFacts:
    """What a backup contains.

    - `made`: the time of the backup, in UTC
    - `key_check`: detects a wrong key, and reveals nothing about the right one
    - `files`: by their names in the folder of a store
    """

    store_id: str
    schema: str
    made: str
    key_check: str
    files: Mapping[str, Member]

    @property
    def has_key(self) -> bool:
        return KEY_FILE in self.files


def write_backup(path: Path, folder: Path, facts: BackupFacts) -> None:
    """Write the files of `facts` from `folder` to a tar, which may be a pipe. Raises OSError."""
    text = json.dumps({"medlens_backup": FORM, **asdict(facts)}, indent=1).encode()
    with path.open("wb") as out, tarfile.open(mode="w|", fileobj=out, format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(_header(LIST, len(text)), io.BytesIO(text))
        for name, member in facts.files.items():
            with (folder / name).open("rb") as file:
                tar.addfile(_header(name, member.bytes), file)


def member_of(path: Path) -> Member:
    """Return the size and checksum of a file. Raises OSError."""
    with path.open("rb") as file:
        return Member(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


class OpenBackup:
    """A backup that is read. Made by `opened_backup`."""

    def __init__(self, file: BinaryIO, size: int, label: str) -> None:
        self.label = label
        self._file = file
        try:
            name, length = self._next()
        except StoreCorrupt:
            name, length = "", 0
        if name != LIST:
            raise StoreError(f"{label} is not a backup of a medlens store", hint="Give a file of `medlens backup`.")
        self.facts = self._facts(self._read(length, _MOST_LIST))
        if sum(member.bytes for member in self.facts.files.values()) > size:
            raise self._damaged("it is shorter than its list of files requires")

    def extract(self, folder: Path) -> None:
        """Write the files to a folder, readable by their owner only. Raises StoreCorrupt unless they match the list."""
        for expected, member in self.facts.files.items():
            name, length = self._next()
            if (name, length) != (expected, member.bytes):
                raise self._damaged(f"the next file is not {expected} of {member.bytes:,} bytes")
            make_private(folder / expected)
            digest, left = hashlib.sha256(), length
            with (folder / expected).open("wb") as out:
                while left:
                    chunk = self._file.read(min(left, _CHUNK))
                    if not chunk:
                        raise self._damaged("it ends too early")
                    digest.update(chunk)
                    out.write(chunk)
                    left -= len(chunk)
            if digest.hexdigest() != member.sha256:
                raise self._damaged(f"the checksum of {expected} is wrong")
            self._file.read(-length % tarfile.BLOCKSIZE)
            sync(folder / expected)
        if self._file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise self._damaged("it has files that its list does not name")

    def _next(self) -> tuple[str, int]:
        """Return the name and size of the next file. Raises StoreCorrupt unless it is a regular file."""
        block = self._file.read(tarfile.BLOCKSIZE)
        if not block.strip(b"\0"):
            raise self._damaged("it ends too early")
        try:
            found = tarfile.TarInfo.frombuf(block, "ascii", "replace")
        except tarfile.HeaderError as exc:
            raise self._damaged("a header is not valid") from exc
        if found.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or found.size < 0:
            raise self._damaged("it has an entry that is not a regular file")
        return found.name, found.size

    def _read(self, length: int, most: int) -> bytes:
        if length > most:
            raise self._damaged(f"its list of files has {length:,} bytes, expected at most {most:,}")
        content = self._file.read(length + -length % tarfile.BLOCKSIZE)
        if len(content) < length:
            raise self._damaged("it ends too early")
        return content[:length]

    def _facts(self, text: bytes) -> BackupFacts:
        try:
            said = parse_json(text)
            if said["medlens_backup"] != FORM:
                raise StoreError(
                    f"{self.label} is a backup of another version of medlens", hint="Use the medlens that made it."
                )
            files = {str(name): Member(**values) for name, values in said["files"].items()}
            facts = BackupFacts(
                files=files, **{name: said[name] for name in ("store_id", "schema", "made", "key_check")}
            )
            sound = all(map(_is_member, files.values())) and all(
                isinstance(value, str) and len(value) <= 128 for name, value in vars(facts).items() if name != "files"
            )
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise self._damaged("its list of files can't be read") from exc
        if not sound:
            raise self._damaged("its list of files can't be read")
        if list(files) not in ([CATALOG_FILE], [CATALOG_FILE, KEY_FILE]):
            raise self._damaged(f"its list names other files than {CATALOG_FILE} and {KEY_FILE}")
        if facts.has_key and files[KEY_FILE].bytes != KEY_BYTES:
            raise self._damaged(f"{KEY_FILE} has {files[KEY_FILE].bytes:,} bytes, expected {KEY_BYTES}")
        return facts

    def _damaged(self, why: str) -> StoreCorrupt:
        return StoreCorrupt(f"the backup {self.label} can't be used: {why}", hint=_HINT)


@contextmanager
def opened_backup(path: Path) -> Iterator[OpenBackup]:
    """Open a backup and read its list. Raises StoreError if it can't be read, StoreCorrupt if it is damaged."""
    label = repr(path.name or str(path))
    try:
        with open_file(path, 1 << 62) as file:
            yield OpenBackup(file, os.fstat(file.fileno()).st_size, label)
    except OSError as exc:
        raise StoreError(f"the backup {label} can't be read or unpacked: {exc.strerror or exc}") from exc


def _header(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info


def _is_member(member: Any) -> bool:
    return type(member.bytes) is int and member.bytes >= 0 and isinstance(member.sha256, str)
