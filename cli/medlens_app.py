"""The program: its options, its commands, its exit codes. Heavy modules are imported by the command that needs them."""

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

# In the order of the help. Each is a module of medlens_commands that holds a function or a Typer of the same name.
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
    """Makes a command when it is asked for: to read the options of all takes longer than a search."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        # A name that is not a command's is looked for among all: the one that was meant is suggested.
        for name in (cmd_name,) if cmd_name in COMMANDS else COMMANDS:
            if name not in self.commands:
                self.commands[name] = command_of(name)
        return self.commands.get(cmd_name)

    def invoke(self, ctx: Any) -> Any:
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()  # while there is somebody to tell that it fails
        except OSError as error:
            raise typer.Exit(_output_lost(error)) from error


def _output_lost(error: OSError) -> int:
    """The exit code where stdout takes no more; the error, if that is not why it was raised."""
    if isinstance(error, BrokenPipeError) and _nobody_reads():  # `medlens search ... | head`
        code = 0
    elif error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        typer.echo(f"medlens: the output can't be written: {error.strerror}", err=True)
        code = 1
    else:
        raise error
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left of it
    return code


def _nobody_reads() -> bool:
    """Whether stdout is a pipe whose reader has gone."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def command_of(name: str) -> Any:
    """The command of that name, made from its module."""
    attribute = "import_" if name == "import" else name  # a keyword is not a name of a module
    made = getattr(import_module(f"cli.medlens_commands.{attribute}"), attribute)
    family = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    family.callback()(lambda: None)  # so that a single one comes in a group, too
    if isinstance(made, typer.Typer):
        family.add_typer(made, name=name)
    else:
        family.command(name)(made)
    return typer.main.get_command(family).commands[name]  # type: ignore[attr-defined]


app = typer.Typer(
    name="medlens",
    cls=OnDemand,
    help="Find medical images by what they show: index DICOM archives, search them by text or image, label them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: half the time
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _NeutralFormatter(logging.Formatter):
    """Records of whose names and texts none can act on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(neutral_message, super().format(record).split("\n")))


@app.callback()
def _configure(
    verbose: Annotated[int, typer.Option("-v", "--verbose", count=True, help="Say more; twice: everything.")] = 0,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say only what went wrong.")] = False,
) -> None:
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_NeutralFormatter("%(message)s"))
    logging.getLogger().setLevel(logging.ERROR if verbose < 2 else logging.INFO)  # what other libraries say
    for name in ("cli", "indexer", "retrieval"):
        logging.getLogger(name).setLevel(level)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _skip_last_collection() -> None:
    """At its end Python looks through all objects once more, which takes longer than a search: nothing waits for that.
    Not with torch, whose compiler complains of what is left over then."""
    if "torch" not in sys.modules:
        gc.freeze()


def main() -> None:
    """The console script. Exit codes: 0 done, 1 a MedlensError, 2 usage, 3 done but not well, 130 Ctrl-C."""
    if sys.platform == "win32":  # indexing needs POSIX's locks, signals and limits of processes
        sys.exit("medlens does not run on Windows itself: run it in WSL2 or in a Linux container.")
    # Python looks for cycles every 700 new objects, and imports make hundreds of thousands: a tenth of a cold search.
    gc.set_threshold(50_000, *gc.get_threshold()[1:])
    atexit.register(_skip_last_collection)
    # Closed by whoever started this: what is written goes nowhere.
    nowhere = Path(os.devnull).open("w")  # noqa: SIM115
    sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):  # a name that is no UTF-8, a terminal that is none: no reason to fail
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
