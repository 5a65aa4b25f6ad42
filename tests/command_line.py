"""The command line in this process."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pydicom.data import get_testdata_file
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


def copied(names: tuple[str, ...], folder: Path) -> Path:
    """The folder, with these of pydicom's test files in it and a text file that is no DICOM."""
    for name in names:
        shutil.copy(str(get_testdata_file(name)), folder / name)
    (folder / "notes.txt").write_text("no DICOM\n" * 100)
    return folder
