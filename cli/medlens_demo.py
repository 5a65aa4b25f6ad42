"""`medlens demo`: the whole way once, on the DICOM files that pydicom's wheel carries for its own tests.

Many of those files are broken on purpose or are no images, which is what an archive is like. Nothing is downloaded.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pydicom.data

from cli.medlens_asking import classify_files, find, html_page
from cli.medlens_indexing import run_index, summary
from indexer.archive import real_path
from indexer.store import Store
from retrieval.errors import MedlensError, StoreIncompatible
from retrieval.labels import load_labels
from retrieval.types import SearchFilter

QUERY = "MR image of the brain"
LABELS = "modality"
HITS = 8
FILES_PER_LABEL = 3

Say = Callable[[str], None]


def run_demo(folder: Path, model: str | None, device: str, say: Say) -> None:
    """Index, search, classify, write a page; `say` gets what is worth telling, line by line.

    What is made lies in `folder`: `store/` and `hits.html`. Raises MedlensError.
    """
    archive = gathered()
    location = folder / "store"
    say(f"1. Indexing the DICOM files of pydicom's own tests, where they lie: {_shown(archive)}")
    try:
        report = run_index(
            [archive], str(location), model, device, frames="max:16", workers=None, prune=True, keep_descriptions=True
        )
    except StoreIncompatible as exc:
        raise StoreIncompatible(str(exc), hint=f"Delete {_shown(location)} and run the demo again.") from exc
    for line in summary(report):
        say(f"   {line}")
    if report.rejected:
        say("   Many of them are broken on purpose; each costs a line in the report, and the run goes on.")
    if report.unchanged and not report.indexed:
        say("   Nothing was new: unchanged files are not opened again.")

    with Store.open(location) as store:
        say("")
        say(f'2. Searching for "{QUERY}" (score: cosine similarity)')
        results = find(store, model, device, QUERY, None, HITS, SearchFilter())
        for hit in results.hits:
            values = hit.attributes
            frame = f" frame {hit.key.frame_number}" if (values.get("number_of_frames") or 1) > 1 else ""
            say(f"   {hit.rank:2d}.  {hit.score:.3f}  {values.get('modality') or '?':4}  {values['file_path']}{frame}")
        page = folder / "hits.html"
        _write(page, html_page(store, results))
        say(f"   The same with pictures: {_shown(page)}")
        files = some_files(store)

    if files:
        say("")
        say(f"3. Labelling {len(files)} files zero-shot by the label set {LABELS!r} (score: share of a softmax)")
        say("   The model sees the pixels only; what the header says is shown to compare.")
        rows, failures = classify_files(list(files), LABELS, model, device, short=False)
        right = 0
        for row in rows:
            truth = files[Path(row["file"])]
            right += row["label"] == truth
            say(f"   {row['label']:10}  {row['score']:.2f}  header: {truth:10}  {Path(row['file']).name}")
        for name, error in failures:
            say(f"   {Path(name).name}: {error}")
        say(f"   {right} of {len(rows)} as the header says.")
    say("")
    for line in _advice(folder, location, archive, results.model):
        say(line)


def gathered() -> Path:
    """The folder of test files in pydicom's wheel. Raises MedlensError where a distribution leaves it out."""
    folder = Path(pydicom.data.__file__).parent / "test_files"
    if not folder.is_dir():
        raise MedlensError(
            "this pydicom came without its test files, which the demo uses",
            hint="Install pydicom by pip; or index files of your own: medlens index FOLDER.",
        )
    return folder


def some_files(store: Store) -> dict[Path, str]:
    """For each label of the set, a few indexed files whose header says so: path and label, in order of the paths."""
    files: dict[Path, str] = {}
    for label in load_labels(LABELS).labels:
        ids = store.catalog.ids_matching(SearchFilter({"modality": label.values}))
        rows = store.catalog.get(ids.tolist()).values()
        # One frame of a colour picture or of a localiser says little of a modality: one file per series is enough.
        by_series = {
            str(values["series_instance_uid"]): real_path(Path(values["archive_root"]), values["file_path"])
            for _, values in rows
        }
        files.update(dict.fromkeys(sorted(by_series.values())[:FILES_PER_LABEL], label.name))
    return files


def _advice(folder: Path, location: Path, archive: Path, model: str) -> list[str]:
    medlens, store = _command(), shlex.quote(_shown(location))
    example = next((p for p in (archive / "MR_small.dcm", archive / "CT_small.dcm") if p.exists()), None)
    commands = [
        f'{medlens} search "chest radiograph" --store {store}',
        f'{medlens} search "{QUERY}" --modality MR --store {store} --format html -o '
        f"{shlex.quote(_shown(folder / 'mr.html'))}",
        *([f"{medlens} search --image {shlex.quote(_shown(example))} --store {store}"] if example else []),
        f"{medlens} info --store {store}",
        f"{medlens} index YOUR_ARCHIVE --store my-store",
    ]
    return [
        "What to try next:",
        *(f"   {command}" for command in commands),
        "",
        f"The model here is {model}. The one that ships with medlens is small and has learned from CT, MR and",
        "radiographs only; of ultrasound, mammograms, colour pictures and rare findings it knows nothing, and these",
        "test files are odd pictures anyway. Name another with --model. It finds images, it diagnoses nothing.",
    ]


def _command() -> str:
    """How this program was started, so that what is printed works when typed."""
    started = Path(sys.argv[0])
    found = shutil.which("medlens")
    if found and started.exists() and Path(found).resolve() == started.resolve():
        return "medlens"
    return shlex.quote(_shown(started)) if started.name == "medlens" else "medlens"


def _shown(path: Path) -> str:
    """The shorter of absolute and relative to here."""
    absolute = os.path.abspath(path)  # noqa: PTH100 - not resolve(): links stay as they were typed
    try:
        return min(os.path.relpath(absolute), absolute, key=len)
    except ValueError:  # another drive
        return absolute


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise MedlensError(f"{path.name!r} can't be written: {exc.strerror}") from exc
