"""Lines for people: notes, errors, summaries."""

from __future__ import annotations

import typer

from retrieval.neutral import neutral_message


def say(text: str = "", *, err: bool = False) -> None:
    """Print a line or several, of which none can act on a terminal, whatever names and texts they quote."""
    typer.echo("\n".join(map(neutral_message, text.split("\n"))), err=err)
