"""Results for other tools: copies of the files of instances, and cohorts, which are lists of their UIDs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexer.outputs import require_folder
from indexer.sources.opening import locate, opened
from indexer.sources.source import Where
from retrieval.errors import DicomError, FileUnreadable, MedlensError, OutputError
from retrieval.on_disk import advice


@dataclass(frozen=True)
class CohortMember:
    """An instance with its series, study and patient. `patient_pseudonym` distinguishes the patients of one store."""

    patient_pseudonym: str | None
    study_instance_uid: str | None
    series_instance_uid: str | None
    sop_instance_uid: str


@dataclass(frozen=True)
class CopiedFiles:
    """The number of copied files, and (SOP Instance UID, reason) of the others."""

    copied: int
    problems: tuple[tuple[str, str], ...] = ()


def cohort(instances: Iterable[Mapping[str, Any]]) -> tuple[CohortMember, ...]:
    """Return the UIDs of instances, each once, in order. `instances` are attributes of hits, or rows of `select`."""
    names = CohortMember.__dataclass_fields__
    by_uid = {str(values["sop_instance_uid"]): values for values in instances}
    return tuple(CohortMember(**{name: values[name] for name in names}) for values in by_uid.values())


def copy_files(instances: Iterable[Mapping[str, Any]], folder: Path) -> CopiedFiles:
    """Copy the file of each instance into a folder as NUMBER_SOPInstanceUID.dcm, numbered in order from 1.

    `instances` are attributes of hits, or rows of `select`. The files are copied unchanged, with all that they state
    about the patient; their names state nothing. Nothing is overwritten. Raises MedlensError if the folder can't be
    created, OutputError if it is in a store, or if there is no room for all files; then no copy is kept.
    """
    require_folder(folder)
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise MedlensError(f"the folder {folder.name!r} can't be created: {exc.strerror}", hint=advice(exc)) from exc
    by_uid: dict[str, Mapping[str, Any]] = {}
    for instance in instances:
        by_uid.setdefault(str(instance["sop_instance_uid"]), instance)
    copied, problems = list[Path](), []
    for number, (uid, instance) in enumerate(by_uid.items(), 1):
        target = folder / f"{number:04d}_{re.sub('[^0-9A-Za-z.-]', '_', uid)[:64]}.dcm"
        try:
            _copy(locate(instance["archive_root"], instance["file_path"]), target)
        except DicomError as error:
            problems.append((uid, str(error)))
        except OutputError:
            for copy in copied:
                copy.unlink(missing_ok=True)
            if is_new:
                folder.rmdir()
            raise
        else:
            copied.append(target)
    return CopiedFiles(len(copied), tuple(problems))


def _copy(where: Where, target: Path) -> None:
    """Copy one file.

    Raises FileUnreadable if it is missing or the copy exists already, NotDicomError if it is not a regular file,
    OutputError if there is no room for it.
    """
    with _as_unreadable("the file can't be read"), opened(where) as data:
        with _as_unreadable(f"{target.name!r} can't be created"):
            copy = target.open("xb")
        try:
            with _as_unreadable("the file can't be copied"), copy:
                shutil.copyfileobj(data, copy, 1 << 20)
        except BaseException:
            target.unlink(missing_ok=True)
            raise


@contextmanager
def _as_unreadable(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if hint := advice(exc):
            raise OutputError(f"{what}: {exc.strerror}", hint=hint) from exc
        raise FileUnreadable(f"{what}: {exc.strerror or type(exc).__name__}") from exc
