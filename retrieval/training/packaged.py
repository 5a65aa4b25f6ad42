"""Initial weights or sentence encoders in an installed Python package, written `package:NAME`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from retrieval.errors import TrainingError

PREFIX = "package:"


def package_folder(start: str, what: str) -> Path | None:
    """The folder of the package that a start names, None for a start that is a path.

    Raises TrainingError, in which `what` is what the package carries, if it is not installed.
    """
    if not start.startswith(PREFIX):
        return None
    name = start.removeprefix(PREFIX)
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise TrainingError(
            f"the Python package {name!r}, which has {what} to start from, is not installed",
            hint=f"Install it with: pip install {name.replace('_', '-')}",
        )
    return Path(next(iter(spec.submodule_search_locations)))
