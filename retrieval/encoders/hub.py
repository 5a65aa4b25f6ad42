"""Models on the Hugging Face hub: the local cache, and downloads of missing files.

Only files with known names are downloaded, and only data. Without a network, the cache is used.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

PREFIX = "hf-hub:"


def some_files(repository: str, names: Sequence[str], *, download: bool) -> Path | None:
    """A folder with those of the named files that a repository has; None if the repository is not in the cache.

    With `download`, missing files are downloaded. Raises OSError or ValueError if the hub can't be reached.
    """
    if not download:
        return cached_folder(repository)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repository, allow_patterns=list(names)))


def first_file(repository: str, names: Sequence[str], *, download: bool) -> Path | None:
    """The first of the named files that a repository has; None if it has none of them. Raises as `some_files`."""
    if not download:
        folder = cached_folder(repository)
        return next((folder / name for name in names if (folder / name).is_file()), None) if folder else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    out_of_reach: LocalEntryNotFoundError | None = None
    for name in names:
        try:
            return Path(hf_hub_download(repository, name))
        except LocalEntryNotFoundError as exc:  # no network, and this file is not in the cache
            out_of_reach = exc
        except EntryNotFoundError:
            continue
    if out_of_reach is not None:
        raise out_of_reach
    return None


def cached_folder(repository: str) -> Path | None:
    """What the hub's cache has of a repository's main branch. Found by the documented layout, without its library."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    snapshots = cache / f"models--{repository.replace('/', '--')}" / "snapshots"
    try:
        revision = (snapshots.parent / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    folder = snapshots / revision
    return folder if folder.is_dir() else None
