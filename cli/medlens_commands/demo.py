"""`medlens demo`: the whole way once, on the DICOM files that pydicom's wheel carries for its own tests.

Many of those files are broken on purpose or are no images, which is what an archive is like. The package pydicom-data,
where it is installed, adds larger ones and the only radiographs. Nothing is downloaded.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.medlens_commands._errors import reporting_errors
from cli.medlens_commands._options import DeviceOption, ForceOption, ModelOption
from cli.medlens_output.lines import say
from retrieval.errors import MedlensError, StoreIncompatible

if TYPE_CHECKING:
    from indexer.outputs import Output
    from indexer.store.store import Store

QUERY = "axial slice of the abdomen"
MODALITIES = ("CT", "MR", "CR", "DX")  # what the model knows; most other files are test patterns
LABELS = "modality"
HITS = 8
FILES_PER_LABEL = 3
LEAST_EDGE = 64  # pixels; some of the files are thumbnails of 16 by 16, in which nobody sees anything

Say = Callable[[str], None]


def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where the store and the page of hits go.")] = Path(".demo"),
    model: ModelOption = None,
    device: DeviceOption = "auto",
    force: ForceOption = False,
) -> None:
    """All of it once, on the DICOM files that pydicom's package carries: index, search, classify, a page of hits."""
    with reporting_errors(None):
        run_demo(folder, model, device, say, force=force)


def run_demo(folder: Path, model: str | None, device: str, say: Say, *, force: bool = False) -> None:
    """Index, search, classify, write a page; `say` gets what is worth telling, line by line.

    What is made lies in `folder`: `store/` and `hits.html`. Raises MedlensError.
    """
    from indexer.output_formats import html_page
    from indexer.outputs import Output, require_folder, require_outputs
    from indexer.store.store import Store

    archives = _gathered()
    location = folder / "store"
    page = Output(folder / "hits.html", html_page("a page of hits", "hits"), force)
    require_folder(folder)
    if folder.is_dir():
        require_outputs(page)
    _index(archives, location, model, device, say)
    with Store.open(location) as store:
        say("")
        name = _search(store, page, model, device, say)
        files = _some_files(store)
    if files:
        say("")
        _classify(files, model, device, say)
    say("")
    for line in _advice(folder, location, archives[0], name):
        say(line)


def _index(archives: list[Path], location: Path, model: str | None, device: str, say: Say) -> None:
    from cli.medlens_output.index_report import summary
    from cli.medlens_output.run_log import run_log
    from indexer.tasks.indexing import index

    say("1. Indexing the DICOM files of pydicom's own tests, where they lie:")
    for archive in archives:
        say(f"   {_shown(archive)}")
    if len(archives) == 1:
        say("   (The package pydicom-data has more, radiographs among them: pip install pydicom-data)")
    try:
        with run_log(len(archives)) as log:
            report = index(
                archives,
                location,
                model=model,
                device=device,
                prune=True,
                on_model=log.started,
                on_progress=log.update,
            )
            log.done(report)
    except StoreIncompatible as exc:
        raise StoreIncompatible(str(exc), hint=f"Delete {_shown(location)} and run the demo again.") from exc
    for line in summary(report):
        say(f"   {line}")
    if report.rejected:
        say("   Some are broken on purpose; each costs a line in the report, and the run goes on. A conflict is a file")
        say("   with the SOP Instance UID of another and other bytes: these sets hold one image in several codings.")
    if report.unchanged and not report.indexed:
        say("   Nothing was new: unchanged files are not opened again.")


def _search(store: Store, page: Output, model: str | None, device: str, say: Say) -> str:
    """The name of the model that answered."""
    from cli.medlens_output.page import html_page
    from indexer.store.own_model import StoreEncoder
    from retrieval.search.query import Query, Ranker
    from retrieval.types import SearchFilter

    say(f'2. Searching for "{QUERY}" among CT, MR and radiographs (score: cosine similarity)')
    results = store.search(
        Query(QUERY, ranker=Ranker.DENSE, where=SearchFilter({"modality": MODALITIES}), k=HITS),
        encoder=StoreEncoder(store, model, device),
    )
    for hit in results.hits:
        values = hit.attributes
        frame = f" frame {hit.key.frame_number}" if (values.get("number_of_frames") or 1) > 1 else ""
        say(f"   {hit.rank:2d}.  {hit.score:.3f}  {values.get('modality') or '?':4}  {values['file_path']}{frame}")
    page.write_text(html_page(store, results))
    say(f"   The same with pictures: {_shown(page.path)}")
    return results.model


def _classify(files: dict[Path, str], model: str | None, device: str, say: Say) -> None:
    """`files` are with what their headers say."""
    from indexer.tasks.classifying import classify_files
    from retrieval.zeroshot.labels import load_labels

    say(f"3. Labelling {len(files)} files zero-shot by the label set {LABELS!r} (score: share of a softmax)")
    say("   The model sees the pixels only; what the header says is shown to compare.")
    failures: list[tuple[str, MedlensError]] = []

    def failed(name: str, error: MedlensError) -> None:
        failures.append((name, error))

    right = classified = 0
    for found in classify_files(list(files), load_labels(LABELS), model=model, device=device, on_unreadable=failed):
        path, label = Path(found.file), str(found.labels.label)
        right += label == files[path]
        classified += 1
        say(f"   {label:10}  {found.labels.values[label]:.2f}  header: {files[path]:10}  {path.name}")
    for name, error in failures:
        say(f"   {Path(name).name}: {error}")
    say(f"   {right} of {classified} as the header says.")


def _gathered() -> list[Path]:
    """The folders of test files: pydicom's, then pydicom-data's if that is installed.

    Raises MedlensError where a distribution's pydicom comes without.
    """
    import pydicom.data

    folder = Path(pydicom.data.__file__).parent / "test_files"
    if not folder.is_dir():
        raise MedlensError(
            "this pydicom came without its test files, which the demo uses",
            hint="Install pydicom by pip; or index files of your own: medlens index FOLDER.",
        )
    more = find_spec("data_store")
    places = more.submodule_search_locations if more is not None else None
    return [folder, *(path for path in (Path(place) / "data" for place in places or ()) if path.is_dir())]


def _some_files(store: Store) -> dict[Path, str]:
    """For each label of the set, a few indexed files whose header says so, of different series: path and label."""
    from indexer.sources.folders import Folder
    from retrieval.types import SearchFilter
    from retrieval.zeroshot.labels import load_labels

    files: dict[Path, str] = {}
    for label in load_labels(LABELS).labels:
        ids = store.catalog.frames.ids_matching(SearchFilter({"modality": label.values}))
        rows = store.catalog.frames.get(ids.tolist()).values()
        by_series = {
            str(values["series_instance_uid"]): Folder(Path(values["archive_root"])).locate(values["file_path"])
            for _, values in rows
            if min(values.get("rows") or 0, values.get("columns") or 0) >= LEAST_EDGE
        }
        files.update(dict.fromkeys(sorted(by_series.values())[:FILES_PER_LABEL], label.name))
    return files


def _advice(folder: Path, location: Path, archive: Path, model: str) -> list[str]:
    medlens, store = _command(), shlex.quote(_shown(location))
    example = next((p for p in (archive / "MR_small.dcm", archive / "CT_small.dcm") if p.exists()), None)
    commands = [
        f'{medlens} search "axial slice of the brain" --store {store}',
        f'{medlens} search "abdomen" --modality MR --store {store} --format html -o '
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
