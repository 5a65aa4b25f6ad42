"""Optional packages, which the extras of medlens install, and one error for all missing ones."""

from __future__ import annotations

from importlib.util import find_spec

from retrieval.errors import MedlensError

# By module: the package with the module, and the extra of pyproject.toml that installs it.
EXTRAS = {
    "matplotlib": ("matplotlib", "evaluate"),
    "pandas": ("pandas", "pandas"),
    "psycopg": ("psycopg", "postgresql"),
    "pyarrow": ("pyarrow", "parquet"),
    "pypdf": ("pypdf", "pdf"),
    "scipy": ("scipy", "calibration"),
    "sklearn": ("scikit-learn", "calibration"),
    "tensorboard": ("tensorboard", "tensorboard"),
}


def require_optional(module: str, purpose: str, error: type[MedlensError] = MedlensError) -> None:
    """Raise `error` if the package with `module` is not installed. `purpose` names what needs it, as a noun.

    Nothing is imported: it is asked before minutes of work, and beside each import.
    """
    absent = missing(module, purpose, error)
    if absent is not None:
        raise absent


def missing(module: str, purpose: str, error: type[MedlensError] = MedlensError) -> MedlensError | None:
    """What `require_optional` raises, for where the lack is a warning; None if the package is there."""
    package, extra = EXTRAS[module]
    if find_spec(module) is not None:
        return None
    return error(
        f"{purpose} needs the package {package}, which is not installed",
        hint=f"Install it with: pip install 'medlens[{extra}]'",
    )
