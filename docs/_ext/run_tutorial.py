"""Runs the commands of a page in a terminal of 100 columns and writes what they print under them.

    python docs/_ext/run_tutorial.py docs/tutorial.md
    python docs/_ext/run_tutorial.py README.md FOLDER

Each `sh` block that is followed by a `text` block is run in an empty folder, or in a copy of the one that is named, one
after another, and the `text` block gets the output. Pictures that the commands write and the page shows are copied to
`_static/tutorial/` beside it.
"""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

COLUMNS = 100
# A block whose first line is a comment is not run, and its output, if it has one, is left as it is.
PAIR = re.compile(
    r"^```sh\n(?P<code>(?!#)(?:(?!```).*\n)+)```\n\n```text\n(?P<output>(?:(?!```).*\n)*)```$", re.MULTILINE
)
PICTURE = re.compile(r"\]\(_static/tutorial/([\w.-]+)\)")


def in_terminal(code: str, folder: Path) -> str:
    """What a terminal shows of these commands, without colours and progress."""
    environment = os.environ | {"COLUMNS": str(COLUMNS), "LINES": "50", "TERM": "dumb", "NO_COLOR": "1"}
    controller, terminal = pty.openpty()
    shell = subprocess.Popen(
        ["bash", "-ec", f"stty cols {COLUMNS}; {code}"],
        cwd=folder,
        env=environment,
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.STDOUT,
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            piece = os.read(controller, 65536)
        except OSError:  # Linux says EIO where the other end is closed
            break
        if not piece:
            break
        shown += piece
    if shell.wait() != 0:
        raise SystemExit(f"exit code {shell.returncode} of:\n{code}\n{shown.decode()}")
    lines = (
        re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rpartition("\r")[2].rstrip()
        for line in shown.decode().replace("\r\n", "\n").splitlines()
    )
    return "\n".join(lines).strip("\n") + "\n"


def run_page(page: Path, start: Path | None = None) -> None:
    pictures = page.parent / "_static" / "tutorial"
    text = page.read_text("utf-8")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if start is not None:
            shutil.copytree(start, folder, dirs_exist_ok=True)
        text = PAIR.sub(
            lambda found: f"```sh\n{found['code']}```\n\n```text\n{in_terminal(found['code'], folder)}```", text
        )
        for picture in PICTURE.findall(text):
            pictures.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / picture, pictures / picture)
    page.write_text(text, "utf-8")


if __name__ == "__main__":
    run_page(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
