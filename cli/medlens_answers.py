"""What can be made of the hits: a page, a contact sheet, copies of the files, a list of UIDs for the next tool."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cli.medlens_html import Card, page
from cli.medlens_output import COHORT_FORMATS, write_bytes, write_rows, write_text
from indexer.reading.files import PictureRequest
from indexer.reading.pictures import load_pictures
from indexer.sources.opening import locate, opened
from indexer.sources.source import Where
from indexer.store.store import Store
from retrieval.encoders.spec import profile_from_json
from retrieval.errors import DicomError, FileUnreadable, MedlensError, QueryError
from retrieval.types import Embeddings, Hit, SearchFilter, SearchResults, Uint8Image

PICTURE_EDGE = 512  # pixels, of a hit on the page
COHORT_COLUMNS = ("patient_pseudonym", "study_instance_uid", "series_instance_uid", "sop_instance_uid")


Pictures = tuple[dict[int, Uint8Image], dict[int, str]]


def html_page(store: Store, results: SearchResults, words: Embeddings | None = None) -> str:
    """A page of the hits with their pictures, rendered from the files where they lie. `words`: see `best_sentences`."""
    pictures, troubles = pictures_of(store, results.hits, PICTURE_EDGE)
    said = best_sentences(store, results.hits, words)
    cards = [Card(h, pictures.get(h.rank), troubles.get(h.rank, ""), said.get(h.rank, "")) for h in results.hits]
    return page(results, cards)


def pictures_of(store: Store, hits: Sequence[Hit], longest: int) -> Pictures:
    """By rank: the hit's frame, at most `longest` pixels along an edge; or why there is no picture."""
    profile = profile_from_json(store.model["render_profile"])
    requests: list[tuple[int, PictureRequest]] = []
    pictures: dict[int, Uint8Image] = {}
    troubles: dict[int, str] = {}
    for hit in hits:
        try:
            request = PictureRequest(_where(hit.attributes), profile, hit.key.frame_number, longest=longest)
        except FileUnreadable as error:
            troubles[hit.rank] = f"no picture: {error}"
        else:
            requests.append((hit.rank, request))
    for (rank, _), (_, outcome) in zip(requests, load_pictures(request for _, request in requests), strict=True):
        if isinstance(outcome, MedlensError):
            troubles[rank] = f"no picture: {outcome}"
        else:
            pictures[rank] = outcome
    return pictures, troubles


def best_sentences(store: Store, hits: Sequence[Hit], words: Embeddings | None = None) -> dict[int, str]:
    """By rank: of the reports of the hit's study, the sentence nearest to the query's words.

    `words` are embeddings [N, D] of unit norm whose mean is taken; without, a sentence is compared with the hit's own
    frame. Hits whose study has no report are left out.
    """
    studies = tuple(dict.fromkeys(str(hit.attributes["study_instance_uid"]) for hit in hits))
    catalog = store.catalog
    ids = (
        catalog.vectors.ids_matching(SearchFilter({"study_instance_uid": studies}), kind="sentence") if studies else ()
    )
    if not len(ids):
        return {}
    found, vectors = catalog.vectors.vectors_of(ids, "sentence")
    rows = catalog.reports.sentence_rows(found.tolist())
    by_study: dict[str, list[int]] = {}
    for at, i in enumerate(found.tolist()):
        if i in rows:
            by_study.setdefault(str(rows[i].study_instance_uid), []).append(at)
    asked = words.mean(axis=0) if words is not None and len(words) else None
    best = {}
    for hit in hits:
        places = by_study.get(str(hit.attributes["study_instance_uid"]))
        wanted = asked if asked is not None else _own_vector(store, hit)
        if places and wanted is not None:
            scores = vectors[places].astype(np.float32) @ wanted
            best[hit.rank] = rows[int(found[places[int(np.argmax(scores))]])].text
    return best


def write_montage(store: Store, results: SearchResults, target: Path) -> None:
    """A contact sheet of the hits as one PNG. QueryError without hits."""
    from cli.medlens_montage import CELL, montage

    if not results.hits:
        raise QueryError("there is nothing to show: no hits", hint="Ask for something else, or widen the filter.")
    pictures, troubles = pictures_of(store, results.hits, CELL)
    write_bytes(target, montage(results, pictures, troubles))


def copy_files(values: Iterable[Mapping[str, Any]], folder: Path) -> tuple[int, list[tuple[str, str]]]:
    """Copy the file of each of these instances into a folder as NUMBER_SOPInstanceUID.dcm, numbered in order from 1.

    The files are copied as they are, with all that they say about the patient; their names say nothing. Nothing is
    overwritten. Returns how many were copied, and (SOP Instance UID, why not) of the others.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise MedlensError(f"the folder {folder.name!r} can't be made: {exc.strerror}") from exc
    by_uid: dict[str, Mapping[str, Any]] = {}
    for instance in values:
        by_uid.setdefault(str(instance["sop_instance_uid"]), instance)
    copied, troubles = 0, []
    for number, (uid, instance) in enumerate(by_uid.items(), 1):
        target = folder / f"{number:04d}_{re.sub('[^0-9A-Za-z.-]', '_', uid)[:64]}.dcm"
        try:
            _copy(_where(instance), target)
        except DicomError as error:
            troubles.append((uid, str(error)))
        else:
            copied += 1
    return copied, troubles


def write_cohort(values: Iterable[Mapping[str, Any]], target: Path, head: Mapping[str, Any]) -> int:
    """Write the UIDs of these instances, each once, as .csv or .json; `head` says in JSON what was asked. How many."""
    style = COHORT_FORMATS[target.suffix.lower()]
    rows = {str(v["sop_instance_uid"]): {name: v[name] for name in COHORT_COLUMNS} for v in values}
    text = io.StringIO()
    write_rows(list(rows.values()), style, head=head, out=text, columns=COHORT_COLUMNS)
    write_text(target, text.getvalue())
    return len(rows)


def _where(values: Mapping[str, Any]) -> Where:
    return locate(values["archive_root"], values["file_path"])


def _copy(where: Where, target: Path) -> None:
    """Raises FileUnreadable: no such file, or something in the place of the copy; NotDicomError: no regular file."""
    with _as_unreadable("the file can't be read"), opened(where) as data:
        with _as_unreadable(f"{target.name!r} can't be made"):
            copy = target.open("xb")
        try:
            with copy, _as_unreadable("the file can't be copied"):
                shutil.copyfileobj(data, copy, 1 << 20)
        except BaseException:
            target.unlink(missing_ok=True)
            raise


@contextmanager
def _as_unreadable(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise FileUnreadable(f"{what}: {exc.strerror or type(exc).__name__}") from exc


def _own_vector(store: Store, hit: Hit) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    ids = store.catalog.frames.ids_matching(SearchFilter({"sop_instance_uid": (hit.key.sop_instance_uid,)})).tolist()
    same = [i for i, (key, _) in store.catalog.frames.get(ids).items() if key == hit.key]
    _, vectors = store.catalog.frames.vectors_of(same)
    return vectors[0].astype(np.float32) if len(vectors) else None
