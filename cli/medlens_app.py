"""The commands: parse, one library call, render. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.medlens_output import Format, chosen_format, write_rows, write_text
from retrieval.errors import EmptyQuery, MedlensError, QueryError

DEFAULT_STORE = "medlens-store"

app = typer.Typer(
    name="medlens",
    help="Find medical images by what they show: index DICOM archives, search them by text or image, label them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: half the time
    context_settings={"help_option_names": ["-h", "--help"]},
)
labels_app = typer.Typer(help="Label sets for zero-shot classification.", no_args_is_help=True)
app.add_typer(labels_app, name="labels")

StoreOption = Annotated[
    str, typer.Option("--store", envvar="MEDLENS_STORE", help="The store: a folder, or a database URL.")
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        envvar="MEDLENS_MODEL",
        help="A shipped model, a folder, hf-hub:ORG/REPO, or ARCHITECTURE@CHECKPOINT. Default: the store's own, "
        "else the one that ships with medlens.",
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", envvar="MEDLENS_DEVICE", help="auto, cpu, cuda or cuda:N.")]
FormatOption = Annotated[
    Format | None, typer.Option("--format", help="Default: a table on a terminal, jsonl when piped.")
]
KOption = Annotated[int, typer.Option("-k", "--top", min=1, help="How many answers.")]


@app.callback()
def _configure(
    verbose: Annotated[int, typer.Option("-v", "--verbose", count=True, help="Say more; twice: everything.")] = 0,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say only what went wrong.")] = False,
) -> None:
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    logging.getLogger().setLevel(logging.ERROR if verbose < 2 else logging.INFO)  # what other libraries say
    for name in ("cli", "indexer", "retrieval"):
        logging.getLogger(name).setLevel(level)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@app.command()
def index(
    archive: Annotated[list[Path], typer.Argument(help="Folders of DICOM files, or single files.")],
    store: StoreOption = DEFAULT_STORE,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    frames: Annotated[
        str, typer.Option(help="Which frames of a multi-frame file: all, middle, every:N or max:N.")
    ] = "max:16",
    workers: Annotated[int | None, typer.Option(min=1, help="Decoding processes. Default: one per core.")] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Drop what is gone from the archive.")] = False,
    descriptions: Annotated[
        bool, typer.Option(help="Keep study and series descriptions, scrubbed of what identifies.")
    ] = True,
    report: Annotated[Path | None, typer.Option(help="Write rejected files here, one JSON line each.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 if any file was rejected.")] = False,
    style: FormatOption = None,
) -> None:
    """Embed an archive of DICOM files into a store. Run again, it reads only what is new or changed."""
    from cli.medlens_indexing import outcome_row, run_index, summary

    with _answering(style) as chosen:
        outcome = run_index(
            archive,
            store,
            model,
            device,
            frames=frames,
            workers=workers,
            prune=prune,
            keep_descriptions=descriptions,
        )
        if report is not None:
            write_text(report, "".join(json.dumps(vars(r), ensure_ascii=False) + "\n" for r in outcome.rejected))
        if chosen is Format.TABLE:
            typer.echo("\n".join(summary(outcome)))
        else:
            write_rows([outcome_row(outcome)], chosen)
    if strict and outcome.rejected:
        raise typer.Exit(3)


@app.command()
def search(
    query: Annotated[str | None, typer.Argument(help="What to look for, in words.")] = None,
    image: Annotated[Path | None, typer.Option("--image", help="Look for what resembles this image instead.")] = None,
    k: KOption = 10,
    modality: Annotated[list[str] | None, typer.Option(help="Only this Modality (CT, MR, CR ...); repeatable.")] = None,
    body_part: Annotated[list[str] | None, typer.Option(help="Only this BodyPartExamined; repeatable.")] = None,
    store: StoreOption = DEFAULT_STORE,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    style: FormatOption = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write here instead of to stdout.")] = None,
) -> None:
    """Find frames by a text or by an image."""
    from cli.medlens_asking import find, hit_row, html_page
    from retrieval.types import SearchFilter

    with _answering(style) as chosen, _destination(output) as out:
        if (query is None) == (image is None):
            raise EmptyQuery("give a text or --image FILE, one of the two")
        equals = {"modality": modality, "body_part_examined": body_part}
        where = SearchFilter({column: tuple(values) for column, values in equals.items() if values})
        with _open(store) as opened:
            results = find(opened, model, device, query, image, k, where)
            if chosen is Format.HTML:
                out.write(html_page(opened, results))
                return
        head = {"query": results.query, "model": results.model, "searched": results.searched}
        write_rows([hit_row(hit, short=chosen is Format.TABLE) for hit in results.hits], chosen, head=head, out=out)


@app.command()
def describe(
    image: Annotated[Path, typer.Argument(help="A DICOM file, PNG or JPEG.")],
    k: KOption = 5,
    store: StoreOption = DEFAULT_STORE,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    style: FormatOption = None,
) -> None:
    """Image to text: the nearest sentences of the store's reports. They are other patients' words, not a diagnosis."""
    from cli.medlens_asking import sentences_for

    with _answering(style) as chosen, _open(store) as opened:
        hits = sentences_for(opened, model, device, image, k)
        rows = [{"rank": h.rank, "score": h.score, "text": h.text, "studies": list(h.studies)} for h in hits]
        if chosen is Format.TABLE:
            rows = [row | {"studies": len(hit.studies)} for row, hit in zip(rows, hits, strict=True)]
        write_rows(rows, _rows_only(chosen), head={"image": image.name, "model": opened.model["name"]})


@app.command()
def classify(
    files: Annotated[list[Path], typer.Argument(help="DICOM files, pictures, or folders of DICOM files.")],
    labels: Annotated[
        str, typer.Option("--labels", help='A label set by name, a YAML file, or "label, label".')
    ] = "modality",
    model: ModelOption = None,
    device: DeviceOption = "auto",
    style: FormatOption = None,
) -> None:
    """Zero-shot: the label whose description lies nearest to each image. `score` is a softmax share, no probability."""
    from cli.medlens_asking import classify_files

    with _answering(style) as chosen:
        rows, failures = classify_files(files, labels, model, device, short=chosen is Format.TABLE)
        write_rows(rows, _rows_only(chosen), head={"labels": labels} if chosen is Format.JSON else None)
        for name, error in failures:
            typer.echo(f"medlens: {name}: {error}", err=True)
        if failures and not rows:
            raise QueryError(f"none of {len(failures)} files is an image that can be classified")


@app.command()
def render(
    file: Annotated[Path, typer.Argument(help="A DICOM file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The picture to write: .png or .jpg.")],
    frame: Annotated[int, typer.Option(min=1, help="Frame number, from 1.")] = 1,
    window: Annotated[
        str | None, typer.Option(help="lung, soft tissue, bone, brain, stroke, or one of the file's own.")
    ] = None,
    model: ModelOption = None,
) -> None:
    """Write what the encoder sees of a file: the first thing to look at when a result seems odd."""
    from cli.medlens_asking import render_file

    render_file(file, output, frame, window, model)


@app.command()
def info(store: StoreOption = DEFAULT_STORE, style: FormatOption = None) -> None:
    """What is in a store, and by which model."""
    from cli.medlens_asking import store_facts

    with _answering(style) as chosen, _open(store) as opened:
        facts = store_facts(opened)
        if chosen is Format.TABLE:
            write_rows([{"": name.replace("_", " "), " ": _said(value)} for name, value in facts.items()], chosen)
        else:
            write_rows([facts], _rows_only(chosen))


@app.command()
def models(style: FormatOption = None) -> None:
    """The models that ship with medlens, and how to name others."""
    from retrieval.model_source import DEFAULT_MODEL, read_config, shipped_models

    with _answering(style) as chosen:
        rows = []
        for name, folder in shipped_models().items():
            config = read_config(folder)["model_cfg"]
            rows.append({"name": name, "dimensions": config["embed_dim"], "default": name == DEFAULT_MODEL})
        write_rows(rows, _rows_only(chosen))
        if chosen is Format.TABLE:
            typer.echo("Others: --model FOLDER, hf-hub:ORG/REPO, or ARCHITECTURE@CHECKPOINT. Their own cards say more.")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A YAML file; see the README's section on training.")],
    data: Annotated[Path | None, typer.Option(help="Where the pairs files lie. Default: beside the file.")] = None,
    device: DeviceOption = "auto",
    restart: Annotated[bool, typer.Option("--restart", help="Start anew instead of going on.")] = False,
) -> None:
    """Train a pair of encoders on image-text pairs. Stopped, the same command goes on where it was."""
    from cli.medlens_training import run_training

    run_training(config, data, device, restart=restart)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where the store and the page of hits go.")] = Path(".demo"),
    model: ModelOption = None,
    device: DeviceOption = "auto",
) -> None:
    """All of it once, on the DICOM files that pydicom's package carries: index, search, classify, a page of hits."""
    from cli.medlens_demo import run_demo

    with _answering(None):
        run_demo(folder, model, device, typer.echo)


@labels_app.command("list")
def labels_list(style: FormatOption = None) -> None:
    """The label sets that ship with medlens."""
    from retrieval.labels import load_labels, shipped_label_sets

    with _answering(style) as chosen:
        sets = [load_labels(name) for name in shipped_label_sets()]
        rows = [{"name": s.name, "title": s.title, "labels": [label.name for label in s.labels]} for s in sets]
        write_rows(rows, _rows_only(chosen))


@labels_app.command("show")
def labels_show(
    labels: Annotated[str, typer.Argument(help='A label set by name, a YAML file, or "label, label".')],
    style: FormatOption = None,
) -> None:
    """One label set: its labels and how each is said."""
    from retrieval.labels import load_labels

    with _answering(style) as chosen:
        found = load_labels(labels)
        rows = [{"label": label.name, "prompts": list(label.prompts)} for label in found.labels]
        write_rows(rows, _rows_only(chosen), head={"name": found.name, "title": found.title})


def main() -> None:
    """The console script. Exit codes: 0 done, 1 a MedlensError, 2 usage, 3 rejections under --strict, 130 Ctrl-C."""
    try:
        app()
    except MedlensError as error:
        _tell(error, None)
        sys.exit(1)
    except BrokenPipeError:  # `medlens search ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


@contextmanager
def _answering(asked: Format | None) -> Iterator[Format]:
    """The format to answer in; a MedlensError ends the command in the same one, on stderr."""
    chosen = chosen_format(asked)
    try:
        yield chosen
    except MedlensError as error:
        _tell(error, asked)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as stop:
        typer.echo(
            "medlens: stopped; nothing that was committed is lost, and the same command goes on from it", err=True
        )
        raise typer.Exit(130) from stop


def _tell(error: MedlensError, style: Format | None) -> None:
    if style in (Format.JSON, Format.JSONL):
        values = {"error": str(error), "type": type(error).__name__, "hint": error.hint}
        typer.echo(json.dumps(values, ensure_ascii=False), err=True)
        return
    typer.echo(f"medlens: {error}", err=True)
    if error.hint:
        typer.echo(f"  {error.hint}", err=True)


def _rows_only(style: Format) -> Format:
    if style is Format.HTML:
        raise QueryError("html is a format of `medlens search` only", hint="Use table, json, jsonl or csv.")
    return style


@contextmanager
def _open(location: str) -> Iterator[Any]:
    from indexer.store import Store, is_url

    with Store.open(location if is_url(location) else Path(location)) as opened:
        yield opened


@contextmanager
def _destination(path: Path | None) -> Iterator[Any]:
    """stdout, or a file that appears only when all is written."""
    if path is None:
        yield sys.stdout
        return
    import io

    buffer = io.StringIO()
    yield buffer
    write_text(path, buffer.getvalue())


def _said(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
