"""How a command reports an error, and which exit code it ends with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from cli.medlens_output.formats import Format, chosen_format
from cli.medlens_output.lines import say
from retrieval.errors import MedlensError, QueryError
from retrieval.neutral import neutral_values


@contextmanager
def reporting_errors(asked: Format | None, *, pages: bool = False) -> Iterator[Format]:
    """Yield the output format; on a MedlensError, write the error to stderr in that format and end with exit code 1.

    Only commands with `pages=True` can write HTML; for the others the format html is invalid usage.
    """
    chosen = chosen_format(asked)
    try:
        with usage(asked):
            if chosen is Format.HTML and not pages:
                raise QueryError("only `medlens search` can write html", hint="Use --format table, json, jsonl or csv.")
        yield chosen
    except MedlensError as error:
        report_error(error, asked)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as stop:
        say(
            "medlens: stopped. Everything that was committed is kept; run the same command again to continue.", err=True
        )
        raise typer.Exit(130) from stop


@contextmanager
def usage(style: Format | None) -> Iterator[None]:
    """Wrap the parsing of options: a QueryError or a ValueError ends the command with exit code 2."""
    try:
        yield
    except (QueryError, ValueError) as error:
        report_error(error if isinstance(error, QueryError) else QueryError(str(error)), style)
        raise typer.Exit(2) from error


def report_error(error: MedlensError, style: Format | None) -> None:
    if style in (Format.JSON, Format.JSONL):
        values = neutral_values({"error": str(error), "type": type(error).__name__, "hint": error.hint})
        say(json.dumps(values, ensure_ascii=False), err=True)
        return
    say(f"medlens: {error}", err=True)
    if error.hint:
        say(f"  {error.hint}", err=True)
