"""The command `demo`: every step once, on the DICOM files that pydicom carries for its own tests.

Many of these files are damaged on purpose or are not images, as in a real archive. The package pydicom-data adds larger
files and the only radiographs, if it is installed. Nothing is downloaded.
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
MODALITIES = ("CT", "MR", "CR", "DX")  # the labels that the model knows; most other files are test patterns
LABELS = "modality"
HITS = 8
FILES_PER_LABEL = 3
LEAST_EDGE = 64  # pixels; some of the files are thumbnails of 16 by 16 that show nothing recognisable

Say = Callable[[str], None]


def demo(
    folder: Annotated[
        Path, typer.Option("--folder", help="The folder for the store and for the page of results.")
    ] = Path(".demo"),
    model: ModelOption = None,
    device: DeviceOption = "auto",
    force: ForceOption = False,
) -> None:
    """Try medlens on the DICOM test files that come with pydicom: index, search, label, and write a page of results."""
    with reporting_errors(None):
        run_demo(folder, model, device, say, force=force)


def run_demo(folder: Path, model: str | None, device: str, say: Say, *, force: bool = False) -> None:
    """Index, search, label and write a page. `say` is called with each line of output.

    The results are in `folder`: `store/` and `hits.html`. Raises MedlensError.
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

    say("1. Indexing the DICOM test files that come with pydicom:")
    for archive in archives:
        say(f"   {_shown(archive)}")
    if len(archives) == 1:
        say("   (The package pydicom-data has more files, radiographs among them: pip install pydicom-data)")
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
        say(
            "   Some files are broken on purpose. Each is one line in the report, and the run "
            "continues. A conflict is a file with"
        )
        say(
            "   the SOP Instance UID of another file and other content: the test sets store one "
            "image in several encodings."
        )
    if report.unchanged and not report.indexed:
        say("   Nothing was new: files that have not changed are not opened again.")


def _search(store: Store, page: Output, model: str | None, device: str, say: Say) -> str:
    """Search and write the page. Returns the name of the model."""
    from cli.medlens_output.page import html_page
    from indexer.store.own_model import StoreEncoder
    from retrieval.search.query import Query, Ranker
    from retrieval.types import SearchFilter

    say(f'2. Searching for "{QUERY}" among CT, MR and radiographs')
    results = store.search(
        Query(QUERY, ranker=Ranker.DENSE, where=SearchFilter({"modality": MODALITIES}), k=HITS),
        encoder=StoreEncoder(store, model, device),
    )
    say(f"   {results.understood}")
    say(f"   score: {results.score}")
    for hit in results.hits:
        values = hit.attributes
        frame = f" frame {hit.key.frame_number}" if (values.get("number_of_frames") or 1) > 1 else ""
        say(f"   {hit.rank:2d}.  {hit.score:.3f}  {values.get('modality') or '?':4}  {values['file_path']}{frame}")
    page.write_text(html_page(store, results))
    say(f"   The same results with pictures: {_shown(page.path)}")
    return results.model


def _classify(files: dict[Path, str], model: str | None, device: str, say: Say) -> None:
    """Label the files. `files` maps each path to the label in its header."""
    from indexer.tasks.classifying import classify_files
    from retrieval.zeroshot.labels import load_labels

    say(f"3. Labelling {len(files)} files zero-shot by the label set {LABELS!r} (score: share of a softmax)")
    say("   The model sees only the pixels. The modality in the header is shown for comparison.")
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
    say(f"   {right} of {classified} agree with the header.")


def _gathered() -> list[Path]:
    """Return the folders of test files: pydicom's, then those of pydicom-data if it is installed.

    Raises MedlensError if pydicom was installed without its test files.
    """
    import pydicom.data

    folder = Path(pydicom.data.__file__).parent / "test_files"
    if not folder.is_dir():
        raise MedlensError(
            "the test files of pydicom, which the demo uses, are not installed",
            hint="Reinstall pydicom with pip, or index your own files: medlens index FOLDER.",
        )
    more = find_spec("data_store")
    places = more.submodule_search_locations if more is not None else None
    return [folder, *(path for path in (Path(place) / "data" for place in places or ()) if path.is_dir())]


def _some_files(store: Store) -> dict[Path, str]:
    """Return a few indexed files per label whose header states that label, from different series: path and label."""
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
        f"This demo used the model {model}. The model that ships with medlens is small: it was trained on CT, MR and",
        "radiographs only, and knows nothing about ultrasound, mammograms, colour pictures and rare findings. The test",
        "files are unusual pictures, too. Use --model for another model. medlens finds images; it does not diagnose.",
    ]


def _command() -> str:
    """Return the command that started this program, so that the printed commands work when they are typed."""
    started = Path(sys.argv[0])
    found = shutil.which("medlens")
    if found and started.exists() and Path(found).resolve() == started.resolve():
        return "medlens"
    return shlex.quote(_shown(started)) if started.name == "medlens" else "medlens"


def _shown(path: Path) -> str:
    """Return the shorter of the absolute path and the path relative to the current folder."""
    absolute = os.path.abspath(path)  # noqa: PTH100 - not resolve(): links stay as they were typed
    try:
        return min(os.path.relpath(absolute), absolute, key=len)
    except ValueError:  # it is on another drive
        return absolute
