"""What the commands share: options, how an error is told, where the answer goes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.medlens_output import Format, chosen_format, require_place, write_text
from retrieval.errors import MedlensError, QueryError

if TYPE_CHECKING:
    from retrieval.types import SearchFilter

DEFAULT_STORE = "medlens-store"

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
WhereOption = Annotated[
    str | None,
    typer.Option("--where", help="A filter, such as 'Modality in (CT, MR) and PatientAge > 60'; README: Filters."),
]
ModalityOption = Annotated[
    list[str] | None, typer.Option("--modality", help="Only this Modality (CT ...); repeatable.")
]
BodyPartOption = Annotated[
    list[str] | None, typer.Option("--body-part", help="Only this BodyPartExamined; repeatable.")
]
CohortOption = Annotated[
    Path | None, typer.Option("--cohort", help="Also write the UIDs of what is found here: .csv or .json.")
]
CopyOption = Annotated[
    Path | None, typer.Option("--copy-to", help="Also copy the files of what is found to this folder, as they are.")
]


def path_given(text: str) -> Path:
    """A path that was not forgotten: `medlens index "$ARCHIVE"` with nothing in it is not the current folder."""
    if not text:
        raise typer.BadParameter("the path is empty; the current folder is .")
    return Path(text)


KOption = Annotated[int, typer.Option("-k", "--top", min=1, help="How many answers.")]


@contextmanager
def answering(asked: Format | None, *, pages: bool = False) -> Iterator[Format]:
    """The format to answer in; a MedlensError ends the command in the same one, on stderr.

    Only a command that makes `pages` answers in html: another is refused before it does anything.
    """
    chosen = chosen_format(asked)
    try:
        with usage(asked):
            if chosen is Format.HTML and not pages:
                raise QueryError("html is a format of `medlens search` only", hint="Use table, json, jsonl or csv.")
        yield chosen
    except MedlensError as error:
        tell(error, asked)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as stop:
        typer.echo(
            "medlens: stopped; nothing that was committed is lost, and the same command goes on from it", err=True
        )
        raise typer.Exit(130) from stop


@contextmanager
def usage(style: Format | None) -> Iterator[None]:
    """Options are read here: a QueryError, or what says a ValueError of a parser, ends the command with exit code 2."""
    try:
        yield
    except (QueryError, ValueError) as error:
        tell(error if isinstance(error, QueryError) else QueryError(str(error)), style)
        raise typer.Exit(2) from error


def tell(error: MedlensError, style: Format | None) -> None:
    if style in (Format.JSON, Format.JSONL):
        values = {"error": str(error), "type": type(error).__name__, "hint": error.hint}
        typer.echo(json.dumps(values, ensure_ascii=False), err=True)
        return
    typer.echo(f"medlens: {error}", err=True)
    if error.hint:
        typer.echo(f"  {error.hint}", err=True)


@contextmanager
def open_store(location: str) -> Iterator[Any]:
    from indexer.store.store import Store, is_url

    with Store.open(location if is_url(location) else Path(location)) as opened:
        yield opened


@contextmanager
def destination(path: Path | None) -> Iterator[Any]:
    """stdout, or a file that appears only when all is written."""
    if path is None:
        yield sys.stdout
        return
    import io

    require_place(path)
    buffer = io.StringIO()
    yield buffer
    write_text(path, buffer.getvalue())


def selection(where: str | None, modality: list[str] | None = None, body_part: list[str] | None = None) -> SearchFilter:
    """The filter that these options ask for. QueryError if it makes no sense, before anything heavy is opened."""
    from indexer.catalog.conditions import require_valid
    from retrieval.types import SearchFilter

    if where is not None and not where.strip():
        raise QueryError("the filter is empty", hint="For example: --where 'Modality = CT and PatientAge > 60'.")
    equals = {"modality": modality, "body_part_examined": body_part}
    chosen = SearchFilter({column: tuple(values) for column, values in equals.items() if values}, where or "")
    require_valid(chosen)
    return chosen


def pass_on(
    found: Sequence[Mapping[str, Any]], cohort: Path | None, copy_to: Path | None, head: Mapping[str, Any]
) -> None:
    """Write the cohort and copy the files of instances, if asked to; what was done goes to stderr.

    MedlensError if there were files to copy and none could be.
    """
    if cohort is not None:
        from cli.medlens_answers import write_cohort

        typer.echo(f"{write_cohort(found, cohort, head)} instances in {cohort.name}", err=True)
    if copy_to is not None:
        from cli.medlens_answers import copy_files

        copied, troubles = copy_files(found, copy_to)
        for uid, trouble in troubles:
            typer.echo(f"not copied: {uid}: {trouble}", err=True)
        if troubles and not copied:
            raise MedlensError(
                f"none of {len(troubles)} files could be copied to {copy_to.name!r}",
                hint="Is the archive where it was when it was indexed, and readable?",
            )
        typer.echo(f"{copied} files copied to {copy_to.name}", err=True)


def said(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
