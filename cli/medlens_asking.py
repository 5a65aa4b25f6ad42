"""Wiring of the commands that ask: search, describe, classify, render, info."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from cli.medlens_html import Card, page
from cli.medlens_indexing import encoder_of
from indexer.archive import iter_files, real_path
from indexer.pictures import load_picture, load_pictures
from indexer.places import with_places
from indexer.reading import PictureRequest
from indexer.store import Store
from retrieval.classify import LabelScore, ZeroShotClassifier
from retrieval.describe import SentenceHit, nearest_sentences
from retrieval.encoder import ClipEncoder
from retrieval.errors import MedlensError, QueryError
from retrieval.labels import load_labels
from retrieval.model_source import read_config, resolve_model
from retrieval.search import Searcher
from retrieval.spec import profile_from_json
from retrieval.types import Hit, RenderProfile, SearchFilter, SearchResults, Uint8Image

PICTURE_EDGE = 320  # pixels, of a hit on the page
BATCH = 64
_TABLE_COLUMNS = ("modality", "body_part_examined", "study_date", "series_description", "sop_instance_uid")
_HIDDEN = ("archive_root", "file_path", "kind")  # paths can hold names


def find(
    store: Store, model: str | None, device: str, query: str | None, image: Path | None, k: int, where: SearchFilter
) -> SearchResults:
    """Search by a text or by an image file."""
    encoder = encoder_of(store, model, device)
    searcher = Searcher(encoder, store.frames_index(), store.catalog)
    if image is None:
        results = searcher.search_text(query or "", k, where)
    else:
        picture = load_picture(image, encoder.spec.render_profile)
        results = searcher.search_image(picture, k, where, query=f"image {image.name}")
    return with_places(results, store.catalog)


def hit_row(hit: Hit, *, short: bool) -> dict[str, Any]:
    """A hit as one row: rank, score, key, then what the catalog keeps. `short` is for a table."""
    row: dict[str, Any] = {"rank": hit.rank, "score": round(hit.score, 6)}
    if short:
        row |= {name: hit.attributes.get(name) for name in _TABLE_COLUMNS}
        place = f"{values['slice']} of {values['slices']}" if (values := hit.attributes).get("slice") else None
        return row | {"slice": place, "frame": hit.key.frame_number}
    attributes = {k: v for k, v in hit.attributes.items() if k not in _HIDDEN}
    key = {"sop_instance_uid": attributes.pop("sop_instance_uid"), "frame_number": hit.key.frame_number}
    return row | key | attributes


def html_page(store: Store, results: SearchResults) -> str:
    """A page of the hits with their pictures, rendered from the files where they lie."""
    profile = profile_from_json(store.model["render_profile"])
    reports = store.catalog.reports_of(str(h.attributes["study_instance_uid"]) for h in results.hits)
    requests, troubles = [], {}
    for hit in results.hits:
        try:
            path = real_path(Path(hit.attributes["archive_root"]), hit.attributes["file_path"])
        except ValueError as exc:
            troubles[hit.rank] = str(exc)
            continue
        requests.append((hit.rank, PictureRequest(path, profile, hit.key.frame_number, longest=PICTURE_EDGE)))
    pictures: dict[int, Uint8Image] = {}
    for (rank, _), (_, outcome) in zip(requests, load_pictures(request for _, request in requests), strict=True):
        if isinstance(outcome, MedlensError):
            troubles[rank] = f"no picture: {outcome}"
        else:
            pictures[rank] = outcome
    cards = []
    for hit in results.hits:
        found = reports.get(str(hit.attributes["study_instance_uid"]), [])
        text = " ".join(found[0].text.split())[:300] if found else ""
        cards.append(Card(hit, pictures.get(hit.rank), troubles.get(hit.rank, ""), text))
    return page(results, cards)


def sentences_for(store: Store, model: str | None, device: str, image: Path, k: int) -> Sequence[SentenceHit]:
    """The nearest sentences of the store's reports to an image file."""
    index = store.sentences_index()
    if not len(index):
        raise QueryError(
            "the store has no report sentences", hint="Index an archive whose studies carry structured reports (SR)."
        )
    encoder = encoder_of(store, model, device)
    picture = load_picture(image, encoder.spec.render_profile)
    return nearest_sentences(encoder.encode_images([picture])[0], k, index, store.catalog)


def classify_files(
    files: Sequence[Path], labels: str, model: str | None, device: str, *, short: bool
) -> tuple[list[dict[str, Any]], list[tuple[str, MedlensError]]]:
    """One row per file, in order, and what could not be read. Multi-frame files: their first frame."""
    label_set = load_labels(labels)
    named = list(_named_files(files))
    encoder = ClipEncoder.from_source(resolve_model(model), device)
    classifier = ZeroShotClassifier(label_set, encoder, encoder.logit_scale)
    rows: list[dict[str, Any]] = []
    failures: list[tuple[str, MedlensError]] = []
    names: list[str] = []
    pictures: list[Uint8Image] = []

    def flush() -> None:
        answers = classifier.classify(encoder.encode_images(pictures))
        rows.extend(_label_row(name, answer, short=short) for name, answer in zip(names, answers, strict=True))
        names.clear()
        pictures.clear()

    requests = (PictureRequest(path, encoder.spec.render_profile) for _, path in named)
    for (name, _), (_, outcome) in zip(named, load_pictures(requests), strict=True):
        if isinstance(outcome, MedlensError):
            failures.append((name, outcome))
            continue
        names.append(name)
        pictures.append(encoder.spec.preprocess.fit(outcome))
        if len(pictures) == BATCH:
            flush()
    flush()
    return rows, failures


def render_file(file: Path, output: Path, frame: int, window: str | None, model: str | None) -> None:
    """Write a frame as the model's render profile shows it, at full size."""
    if output.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise QueryError(f"the output ends in {output.suffix!r}, expected .png or .jpg")
    picture = load_picture(file, _profile(model), frame_number=frame, window=window)
    try:
        Image.fromarray(picture).save(output)
    except OSError as exc:
        raise MedlensError(f"{output.name!r} can't be written: {exc.strerror or exc}") from exc


def store_facts(store: Store) -> dict[str, Any]:
    """What `medlens info` says."""
    counts = store.catalog.counts()
    spec = store.model
    return {
        "model": spec["name"],
        "model_source": spec["source"],
        "dimensions": spec["embed_dim"],
        "render_profile": spec["render_profile"]["name"],
        "weights_sha256": spec["weights_sha256"],
        **{k: v for k, v in vars(counts).items() if k not in ("modalities", "rejected")},
        "instances_by_modality": {k or "unknown": v for k, v in counts.modalities.items()},
        "rejected_files": dict(counts.rejected),
    }


def _profile(model: str | None) -> RenderProfile:
    """The render profile of a model, read from its configuration alone."""
    source = resolve_model(model)
    values = read_config(source.folder).get("medlens", {}) if source.folder else {}
    return profile_from_json(values["render_profile"]) if "render_profile" in values else RenderProfile()


def _named_files(files: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Each file with the name to print: as given, or relative to the folder that was given."""
    for file in files:
        if file.is_dir():
            for stat, path in iter_files(file):
                yield stat.path, path
        else:
            yield str(file), file


def _label_row(name: str, answer: list[LabelScore], *, short: bool) -> dict[str, Any]:
    best = answer[0]
    row: dict[str, Any] = {"file": name, "label": best.label, "score": round(best.score, 4)}
    if short:
        return row | {"then": [f"{a.label} {a.score:.2f}" for a in answer[1:3]]}
    return row | {"scores": {a.label: round(a.score, 6) for a in answer}}
