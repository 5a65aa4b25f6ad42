"""The location of the files that are part of medlens: label sets and the default model."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path


@cache
def data_folder() -> Path:
    """The folder data/: of the checkout when run from one, else the installed package `medlens_data`."""
    checkout = Path(__file__).resolve().parents[1] / "data"
    if (checkout / "labels").is_dir():
        return checkout
    spec = find_spec("medlens_data")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the data folder of medlens (package medlens_data) is missing; install medlens again")
    return Path(next(iter(spec.submodule_search_locations)))
