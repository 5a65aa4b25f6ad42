"""Files that medlens writes for its user: whole or not at all, and never over what can't be made again.

Refused are places inside a store (its catalog, its key, whatever lies there), links, devices, databases, DICOM files
and the files of an archive. A file that exists is replaced if it is an earlier output of the very same kind, which its
content must show, or on the user's word (`--force`). All of that is looked at before the work starts, so that an hour
of it does not end in a refusal, and again before the file gets its name; what came there meanwhile stays, and the
output is kept beside it. `renaming` says how little is left between that look and the name.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from indexer.output_formats import OutputFormat
from indexer.renaming import NameTaken, give_name, open_folder, require_same_folder, seen
from indexer.store.place import enclosing_store
from indexer.store.store import Store
from retrieval.errors import OutputError
from retrieval.on_disk import advice, unfinished_beside

_DEVICES = ("null", "full", "tty", "stdout", "stderr")  # in /dev, where people write on purpose
_OWN_STREAMS = ("/dev/fd/", "/proc/self/fd/", "/dev/std")
_SQLITE = b"SQLite format 3\0"
_SQLITE_COMPANIONS = ("-wal", "-shm", "-journal")


@dataclass(frozen=True)
class Output:
    """A file to be written, its kind, and whether it may replace a file that medlens did not write.

    A `private` file can be read by its owner only, whoever could read the one it replaces. `whole` then yields an empty
    file that exists.
    """

    path: Path
    form: OutputFormat
    force: bool = False
    private: bool = False

    def require(self) -> None:
        """Raise OutputError, naming the file without its folders, unless it can be written."""
        name = repr(self.path.name or str(self.path))
        try:
            if not _is_stream(self.path):
                self._require_place(name)
        except OSError as exc:  # a folder that may not be read
            raise OutputError(f"{name} can't be written: {exc.strerror or exc}", hint="Name another file.") from exc

    def _require_place(self, name: str) -> None:
        path = self.path
        if path.is_symlink():
            raise OutputError(
                f"{name} can't be written: it is a link", hint="Name the file that the link leads to, or another file."
            )
        if path.is_dir():
            raise OutputError(f"{name} can't be written: it is a folder", hint="Name a file in that folder.")
        if not path.parent.is_dir():
            raise OutputError(
                f"{name} can't be written: the folder {path.parent.name!r} does not exist",
                hint="Create the folder first.",
            )
        _require_outside_stores(path.parent, name)
        _require_no_database(path, name)
        if path.exists():
            self._require_replaceable(name)
        elif not os.access(path.parent, os.W_OK | os.X_OK):
            raise OutputError(
                f"{name} can't be written: you may not create files in its folder", hint="Name another folder."
            )

    def require_not_of_archive(self, store: Store) -> None:
        """Raise OutputError if this is a file that the store was made from, whatever its content is.

        All names that the store has of the file's archive are read, but only for a file that exists within one.
        """
        if _is_stream(self.path) or not self.path.is_file():
            return
        place = self.path.resolve()
        for archive, root in store.catalog.files.archive_roots().items():
            if "://" in root or "\0" in root or not place.is_relative_to(Path(root).resolve()):
                continue
            relative = place.relative_to(Path(root).resolve()).as_posix()
            for path, known in store.catalog.files.known(archive):
                if path == relative and known.status == "indexed":
                    raise _of_archive(repr(self.path.name))

    @contextmanager
    def whole(self) -> Iterator[Path]:
        """Yield a name to write to.

        The file gets the output's name if the block ends without an error, and is removed otherwise.

        A pipe or a device is written directly. Raises OutputError as `require` does, or if the system refuses.
        """
        self.require()
        try:
            if _is_stream(self.path):
                with _streamed(self.path) as place:
                    yield place
            else:
                with self._renamed() as place:
                    yield place
        except OSError as exc:
            raise not_written(self.path, exc) from exc

    def write_text(self, text: str) -> None:
        """Write text in UTF-8."""
        self.write_bytes(text.encode("utf-8", "backslashreplace"))  # names of files may not be UTF-8

    def write_bytes(self, content: bytes) -> None:
        with self.whole() as temporary:
            temporary.write_bytes(content)

    @contextmanager
    def _renamed(self) -> Iterator[Path]:
        place = self.path.parent.resolve() / self.path.name
        with open_folder(place.parent) as folder, unfinished_beside(place, private=self.private) as temporary:
            yield temporary
            try:
                looked_at = seen(folder, place.name)
                self.require()
                require_same_folder(self.path.parent, folder)
                if looked_at is not None and not self.private:
                    shutil.copymode(place, temporary)  # a file that was made private stays so
                give_name(folder, temporary.name, place.name, looked_at)
            except (OutputError, NameTaken) as exc:
                saved_as = place.with_name(f"{place.stem}.{temporary.suffixes[-2].removeprefix('.')}{place.suffix}")
                temporary.replace(saved_as)
                why = str(exc) or f"{place.name!r} is another file now"
                raise OutputError(
                    f"{why}; another program created it meanwhile, so the output was saved as {saved_as.name!r}"
                ) from exc

    def _require_replaceable(self, name: str) -> None:
        status = self.path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise OutputError(f"{name} can't be written: it is {_kind(status.st_mode)}", hint="Name a file.")
        if not status.st_size:
            return  # an empty file can be replaced
        with self.path.open("rb") as file:
            head = file.read(132)
        if head[128:] == b"DICM":  # PS3.10 7.1
            raise _of_archive(name)
        if not self.force and not self.form.recognises(self.path):
            raise OutputError(
                f"{name} exists already, and it is not {self.form.name} that medlens wrote",
                hint="Name another file, or add --force to replace this one.",
            )


def not_written(path: Path, exc: OSError) -> OutputError:
    """The OutputError for what the system says while a file is written, and what to do where the disk is full."""
    why = os.strerror(exc.errno) if exc.errno else exc  # other libraries tell more than that around it
    return OutputError(f"{path.name!r} can't be written: {why}", hint=advice(exc))


def require_not_of_archive(store: Store, *outputs: Output | None) -> None:
    """Raise OutputError if one of the outputs is a file that the store was made from, whatever its content is."""
    for output in outputs:
        if output is not None:
            output.require_not_of_archive(store)


def require_outputs(*outputs: Output | None) -> None:
    """Raise OutputError unless all of them can be written, before any work is done. No two may be the same file."""
    places: dict[Path, Output] = {}
    for output in outputs:
        if output is None:
            continue
        output.require()
        if not _is_stream(output.path):
            place = output.path.resolve()
            if place in places:
                raise OutputError(
                    f"two outputs have the name {output.path.name!r}", hint="Name a different file for each output."
                )
            places[place] = output


def require_folder(folder: Path) -> None:
    """Raise OutputError unless `folder` can be filled: it can be created, or exists and is not part of a store."""
    name = repr(folder.name or str(folder))
    if folder.is_symlink() and not folder.is_dir():
        raise OutputError(
            f"the folder {name} can't be created: it is a link to a folder that does not exist",
            hint="Name another folder.",
        )
    _require_outside_stores(folder, name)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"the folder {name} can't be created: a file has that name", hint="Name a folder.")


def _require_outside_stores(folder: Path, name: str) -> None:
    store = enclosing_store(folder)
    if store is not None:
        raise OutputError(
            f"{name} can't be written: it is inside the store {store.name!r}",
            hint="Name a file outside the store; medlens manages everything in it.",
        )


def _require_no_database(path: Path, name: str) -> None:
    """Refuse an SQLite file, which may be a store whatever its name is, and its log, whether or not it exists."""
    companion = next((end for end in _SQLITE_COMPANIONS if path.name.endswith(end)), "")
    for database in {path, path.with_name(path.name.removesuffix(companion) or path.name)}:
        if _begins_with(database, _SQLITE):
            raise OutputError(
                f"{name} is a database or belongs to one; medlens never replaces it",
                hint="Name another file, or remove that file first.",
            )


def _of_archive(name: str) -> OutputError:
    return OutputError(f"{name} is a DICOM file; medlens never replaces it", hint="Name another file.")


def _is_stream(path: Path) -> bool:
    """Whether this is a pipe, or a device that people write to on purpose. Links in /dev are followed."""
    place = os.path.abspath(path)  # noqa: PTH100 - not resolve(): /dev/stdout is a link
    if place.startswith(_OWN_STREAMS):
        return path.exists() and not path.is_dir() and not stat.S_ISBLK(path.stat().st_mode)
    try:
        status = path.lstat()
    except OSError:
        return False
    if stat.S_ISFIFO(status.st_mode):
        return True
    known = place in {f"/dev/{name}" for name in _DEVICES} or place.startswith("/dev/pts/")
    return stat.S_ISCHR(status.st_mode) and known


@contextmanager
def _streamed(path: Path) -> Iterator[Path]:
    """Open the stream. A regular file behind /dev/stdout is appended to, because the shell has opened it."""
    if not stat.S_ISREG(path.stat().st_mode):
        yield path
        return
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        spooled = Path(folder) / path.name
        yield spooled
        with spooled.open("rb") as made, path.open("ab") as out:
            shutil.copyfileobj(made, out, 1 << 20)


def _begins_with(path: Path, magic: bytes) -> bool:
    if not path.is_file():  # opening a pipe would wait
        return False
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _kind(mode: int) -> str:
    for test, name in ((stat.S_ISBLK, "a block device"), (stat.S_ISCHR, "a device"), (stat.S_ISSOCK, "a socket")):
        if test(mode):
            return name
    return "not a regular file"
