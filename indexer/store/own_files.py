"""What lies in a store's folder is the store's own: see `require_own_files`."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from retrieval.errors import StoreCorrupt


def require_own_files(path: Path, label: str, catalog: str, vectors: str) -> None:
    """Raise StoreCorrupt for a link, a pipe or a device in the place of a file that medlens writes, or would wait for.

    Somebody else may have made the store, and what is written through a link in it lies elsewhere. `catalog` is the
    name that the catalog's files begin with, `vectors` that of the folder with the derived files. The key is only read,
    within a bound, and may be a link.
    """
    catalogs = [place for place in path.iterdir() if place.name.startswith(catalog)]
    for place in [*catalogs, path / vectors, *sorted((path / vectors).glob("**/*"))]:
        mode = place.lstat().st_mode if os.path.lexists(place) else None
        if mode is None or stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and place not in catalogs):
            continue
        kind = "a link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise StoreCorrupt(
            f"{place.name!r} in the store {label} is {kind}; expected a file of the store's own",
            hint=f"Remove what is in {vectors!r}: medlens rebuilds it. Copy a catalog instead of linking it.",
        )
