"""The command-line program: its global options, its list of commands and its exit codes.

Each command is imported only when it runs, because heavy imports would slow down every other command.
"""

from __future__ import annotations

import atexit
import errno
import gc
import io
import logging
import os
import select
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from retrieval.errors import MedlensError
from retrieval.neutral import neutral_message

# In the order of the help. Each is a module of medlens_commands with a function or a Typer of the same name.
COMMANDS = (
    "index",
    "search",
    "describe",
    "show",
    "render",
    "select",
    "classify",
    "calibrate",
    "labels",
    "info",
    "verify",
    "delete",
    "migrate",
    "relocate",
    "backup",
    "restore",
    "models",
    "train",
    "evaluate",
    "optimize",
    "reembed",
    "export",
    "import",
    "demo",
)


class OnDemand(TyperGroup):
    """A command group that imports a command only when it is requested: importing all of them takes longer than a
    search.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        # For an unknown name, all commands are loaded, so that click can suggest the nearest one.
        for name in (cmd_name,) if cmd_name in COMMANDS else COMMANDS:
            if name not in self.commands:
                self.commands[name] = command_of(name)
        return self.commands.get(cmd_name)

    def invoke(self, ctx: Any) -> Any:
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()  # here an error can still be reported
        except OSError as error:
            raise typer.Exit(_output_lost(error)) from error


def _output_lost(error: OSError) -> int:
    """Return the exit code for a stdout that accepts no more output. Raises any other error again."""
    if isinstance(error, BrokenPipeError) and _nobody_reads():  # `medlens search ... | head`
        code = 0
    elif error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        typer.echo(f"medlens: the output could not be written: {error.strerror}", err=True)
        code = 1
    else:
        raise error
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what remains in the buffer
    return code


def _nobody_reads() -> bool:
    """Whether stdout is a pipe whose reader has ended."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def command_of(name: str) -> Any:
    """Return the click command of that name, made from its module."""
    attribute = "import_" if name == "import" else name  # `import` is a keyword, so the module has another name
    made = getattr(import_module(f"cli.medlens_commands.{attribute}"), attribute)
    family = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    family.callback()(lambda: None)  # so that a single command is in a group, too
    if isinstance(made, typer.Typer):
        family.add_typer(made, name=name)
    else:
        family.command(name)(made)
    return typer.main.get_command(family).commands[name]  # type: ignore[attr-defined]


app = typer.Typer(
    name="medlens",
    cls=OnDemand,
    help="Find medical images by what they show: index DICOM archives, search them by text or by "
    "image, and label them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help takes half the time
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _NeutralFormatter(logging.Formatter):
    """Formats log records so that no name or text in them can control the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(neutral_message, super().format(record).split("\n")))


@app.callback()
def _configure(
    verbose: Annotated[
        int,
        typer.Option(
            "-v", "--verbose", count=True, help="Show progress messages (-v) or all messages for debugging (-vv)."
        ),
    ] = 0,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show only errors.")] = False,
) -> None:
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_NeutralFormatter("%(message)s"))
    logging.getLogger().setLevel(logging.ERROR if verbose < 2 else logging.INFO)  # messages of other libraries
    for name in ("cli", "indexer", "retrieval"):
        logging.getLogger(name).setLevel(level)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _skip_last_collection() -> None:
    """Skip Python's garbage collection at exit, which takes longer than a search.

    Not with torch: its compiler reports errors about objects that remain.
    """
    if "torch" not in sys.modules:
        gc.freeze()


def main() -> None:
    """Run the program. Exit codes: 0 success, 1 MedlensError, 2 invalid usage, 3 done with problems, 130 Ctrl-C."""
    if sys.platform == "win32":  # indexing needs the locks, signals and process limits of POSIX
        sys.exit("medlens does not run on Windows itself: run it in WSL2 or in a Linux container.")
    # Python looks for cycles every 700 new objects, and imports make hundreds of thousands: a tenth of a cold search.
    gc.set_threshold(50_000, *gc.get_threshold()[1:])
    atexit.register(_skip_last_collection)
    # Whoever started this process may have closed them: then what is written is discarded.
    nowhere = Path(os.devnull).open("w")  # noqa: SIM115
    sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):  # names and terminals need not be UTF-8
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except MedlensError as error:
        from cli.medlens_commands._errors import report_error

        report_error(error, None)
        sys.exit(1)
    except OSError as error:
        sys.exit(_output_lost(error))
