"""Folders as a source: a deterministic walk over the DICOM files in one.

What is walked, and what is not:

- Regular files, and links to regular files (git-annex keeps whole archives as links). A FIFO, socket or device is
  reported and never opened: opening a FIFO blocks for ever.
- Links to folders are reported, not followed, so that a cycle of links ends; name the target as an archive of its own.
- Hidden entries (`.git`, `.DS_Store`, `._x`) and what file servers and operating systems leave behind
  (`Thumbs.db`, `@eaDir`, `lost+found` ...) are passed over without a word, at any depth.
- A file named DICOMDIR is passed over on purpose: it is a table of contents (PS3.10 8.6) of files that the walk meets
  anyway, and one that points to itself has hung readers.
- Folders given as `skip` (the store itself) are passed over, however they are spelled.
- What can't be listed or looked at costs one Rejection.

Files come in ascending order of `FileStat.path` (by code point, which is also SQLite's order), so a caller can compare
the walk with an ordered list from the catalog side by side, without holding either in memory. A folder's names are
read in batches: memory is at most BATCH names for each level of depth, whatever the size of the archive, at the price
of listing a folder of more than BATCH entries once per batch.

Paths are stored relative to the archive root with '/'. A name need not be UTF-8, while a database's text must be:
`stored_path` writes a byte that is not UTF-8 as \\xNN, a control character, line separator or bidirectional override as
\\uNNNN, and a backslash as two. That is one-to-one (`real_path` undoes it) and leaves every ordinary name as it is.
"""

from __future__ import annotations

import heapq
import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from indexer.records import FileStat, Rejection
from indexer.sources.source import OnRejection
from retrieval.errors import FileUnreadable, MedlensError

logger = logging.getLogger(__name__)

BATCH = 65_536  # names kept for one folder; about 10 MB

_LEFT_BY_SYSTEMS = frozenset(
    {"$recycle.bin", "@eadir", "__macosx", "desktop.ini", "lost+found", "system volume information", "thumbs.db"}
)
# C0, DEL and C1 controls, line and paragraph separators, bidirectional overrides, lone surrogates, the backslash
_UNSAFE = re.compile("[\\\\\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(\\|x[0-9a-f]{2}|u[0-9a-f]{4})")


@dataclass(frozen=True)
class Folder:
    """A folder of files, or one file, as a Source. `skip` lists folders to leave out, whether or not they exist."""

    path: Path
    skip: tuple[Path, ...] = ()

    @property
    def root(self) -> str:
        return str(self.path.resolve())

    @property
    def label(self) -> str:
        return repr(self.path.name or str(self.path))

    def walk(self, on_rejection: OnRejection) -> Iterator[FileStat]:
        """Walk without the paths to open, which take a third of the time; `locate` returns one."""
        return (found for found, _ in _checked_walk(self.path, self.skip, on_rejection))

    def count(self) -> int:
        return count_files(self.path, skip=self.skip)

    def stat(self, path: str) -> FileStat | None:
        try:
            status = real_path(self.path, path).stat()
        except (OSError, ValueError):
            return None
        return FileStat(path, status.st_size, status.st_mtime_ns)

    def locate(self, path: str) -> Path:
        try:
            return real_path(self.path, path)
        except (OSError, ValueError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else exc
            raise FileUnreadable(f"the file can't be found: {why}") from exc


def stored_path(path: str) -> str:
    """Return a path in a form that any database, terminal and JSON file accepts. Ordinary names are unchanged."""

    def escape(match: re.Match[str]) -> str:
        code = ord(match[0])
        if match[0] == "\\":
            return "\\\\"
        if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: a byte that is not UTF-8
            return f"\\x{code - 0xDC00:02x}"
        return f"\\u{code:04x}"

    return _UNSAFE.sub(escape, path)


def real_path(root: Path, stored: str) -> Path:
    """Return the file on disk that `stored` (a FileStat.path) names. `root` is the argument of `iter_files`.

    Raises ValueError for a path that the walk can't have produced: absolute, with '..', or with an invalid escape.
    """

    def unescape(match: re.Match[str]) -> str:
        body = match[1]
        if body == "\\":
            return "\\"
        return chr(int(body[1:], 16) + (0xDC00 if body[0] == "x" else 0))

    path = _ESCAPE.sub(unescape, stored)
    if stored_path(path) != stored or path.startswith("/") or {"", ".", ".."} & set(path.split("/")):
        raise ValueError("the path was not stored by medlens: it is absolute, contains '..', or has an invalid escape")
    return (root.parent if root.is_file() else root) / path


def iter_files(
    root: Path, *, skip: Iterable[Path] = (), on_rejection: OnRejection | None = None
) -> Iterator[tuple[FileStat, Path]]:
    """Every file under `root` that may be DICOM, in ascending order of its stored path, with the path to open.

    `root` may be one file; its stored path is then its name. `skip` are folders to leave out, whether or not they
    exist. What can't be read goes to `on_rejection` (reasons: unreadable, dangling-link, linked-folder, not-regular,
    folder-cycle); without it each is logged as a warning, without its path.

    Raises MedlensError, at the call, when `root` is missing, can't be opened, or is neither a file nor a folder.
    """
    walk = _checked_walk(root, skip, on_rejection or _log_rejection)
    return ((found, Path(path)) for found, path in walk)


def _checked_walk(root: Path, skip: Iterable[Path], report: OnRejection) -> Iterator[tuple[FileStat, str]]:
    try:
        status = root.stat()
    except OSError as exc:
        raise MedlensError(
            f"the archive {root.name!r} can't be opened: {exc.strerror or type(exc).__name__}",
            hint="Check that the path is correct, that the disk is mounted, and that you may read it.",
        ) from exc
    if stat.S_ISREG(status.st_mode):
        return iter([(FileStat(stored_path(root.name), status.st_size, status.st_mtime_ns), os.fspath(root))])
    if not stat.S_ISDIR(status.st_mode):
        raise MedlensError(
            f"the archive {root.name!r} is neither a folder nor a file",
            hint="Name a folder of DICOM files, or a single file.",
        )
    try:
        os.scandir(root).close()
    except OSError as exc:
        raise MedlensError(
            f"the archive {root.name!r} can't be listed: {exc.strerror or type(exc).__name__}",
            hint="Run the command as a user who may read and enter the folder.",
        ) from exc
    return _walk(root, {identity for folder in skip if (identity := _identity(folder))}, report)


def count_files(root: Path, *, skip: Iterable[Path] = ()) -> int:
    """Return about how many files `iter_files` will find, for a progress bar: folders are listed, no file is examined.

    A folder that can't be listed counts as empty; a link or device counts as a file.
    """
    if not root.is_dir():
        return 1
    left_out = {identity for folder in skip if (identity := _identity(folder))}
    count, pending = 0, [os.fspath(root)]
    while pending:
        try:
            with os.scandir(pending.pop()) as listing:
                for entry in listing:
                    if _passed_over(entry.name):
                        continue
                    if not entry.is_dir(follow_symlinks=False):
                        count += 1
                    elif not left_out or _identity(Path(entry.path)) not in left_out:
                        pending.append(entry.path)
        except OSError:  # told by the walk itself
            continue
    return count


def _walk(root: Path, skip: set[tuple[int, int]], report: OnRejection) -> Iterator[tuple[FileStat, str]]:
    """Walk depth first with an own stack, so that the depth is limited by the system's path length, not by Python's
    recursion.
    """
    identity = _identity(root)
    if identity is None or identity in skip:
        return
    stack = [("", identity, _entries(os.fspath(root), "", report))]
    open_folders = {identity}
    while stack:
        prefix, identity, entries = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            open_folders.discard(identity)
            continue
        name, path = entry
        stored = prefix + name
        try:
            status = os.stat(path)  # noqa: PTH116 - follows links; does not open, so a FIFO can't block
            if name.endswith("/"):
                identity = (status.st_dev, status.st_ino)
                if identity in open_folders:  # a junction or a bind mount of a folder above it
                    report(
                        Rejection(
                            stored, "folder-cycle", "a folder contains itself through a link; it is not read twice"
                        )
                    )
                elif identity not in skip:
                    open_folders.add(identity)
                    stack.append((stored, identity, _entries(path, stored, report)))
                continue
        except FileNotFoundError:
            if os.path.islink(path):  # noqa: PTH114 - plain strings keep the walk quick
                report(Rejection(stored, "dangling-link", "the target of the link does not exist"))
            continue  # removed since the folder was listed: as if it had never existed
        except OSError as exc:
            report(
                Rejection(stored, "unreadable", f"the file could not be examined: {exc.strerror or type(exc).__name__}")
            )
            continue
        if stat.S_ISREG(status.st_mode):
            yield FileStat(stored, status.st_size, status.st_mtime_ns), path
        elif stat.S_ISDIR(status.st_mode):
            detail = "links to folders are not followed; name the target as another archive"
            report(Rejection(stored, "linked-folder", detail))
        else:
            report(
                Rejection(stored, "not-regular", f"the file is {_file_type(status.st_mode)}; expected a regular file")
            )


def _entries(folder: str, prefix: str, report: OnRejection) -> Iterator[tuple[str, str]]:
    """Return stored name and real path of each entry, ascending.

    Folders end in '/', so that they sort as their files' paths.
    """
    last = ""
    while True:
        try:
            with os.scandir(folder) as listing:
                candidates = (
                    (stored_path(entry.name) + ("/" if entry.is_dir(follow_symlinks=False) else ""), entry.path)
                    for entry in listing
                    if not _passed_over(entry.name)
                )
                batch = heapq.nsmallest(BATCH, (c for c in candidates if c[0] > last))
        except OSError as exc:
            stored = prefix or "."
            report(Rejection(stored, "unreadable", f"the folder can't be listed: {exc.strerror or type(exc).__name__}"))
            return
        yield from batch
        if len(batch) < BATCH:
            return
        last = batch[-1][0]


def _passed_over(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS or name.upper() == "DICOMDIR"


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _file_type(mode: int) -> str:
    kinds = {
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "a special file")


def _log_rejection(rejection: Rejection) -> None:
    logger.warning("not indexed (%s): %s", rejection.reason, rejection.detail)
    logger.debug("not indexed (%s): %s", rejection.reason, rejection.path)
