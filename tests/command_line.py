"""The command line in this process."""

from __future__ import annotations

from typing import Any

from typer.testing import CliRunner

from cli.medlens_app import app

runner = CliRunner()


def medlens(*arguments: object, code: int = 0) -> Any:
    """What a command wrote. What it raised, if that was no exit; an AssertionError if the exit code is another."""
    result = runner.invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.stderr
    return result
