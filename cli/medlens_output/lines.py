"""Lines for people: notes, errors, summaries."""

from __future__ import annotations

import typer

from retrieval.neutral import neutral_message


def say(text: str = "", *, err: bool = False) -> None:
    """Print one or several lines. Characters that could control the terminal are removed."""
    typer.echo("\n".join(map(neutral_message, text.split("\n"))), err=err)
