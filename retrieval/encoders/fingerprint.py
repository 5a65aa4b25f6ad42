"""The SHA-256 of a model's files, cached between runs: hashing 800 MB on every search would cost half a second.

The cache is in the user's cache folder, by path. An entry is valid only while size, inode and both times of the file
are unchanged: the system sets the time of change (ctime) at every write, and no copying tool can set it. A file that
changed less than two seconds before it was read is not cached, because a later write could have the same time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from retrieval.bounded import open_file
from retrieval.on_disk import written_whole

logger = logging.getLogger(__name__)

MOST_BYTES = 100 << 30  # of a weights file: that of EVA-CLIP-18B has 36 GB

_GRAIN_NS = 2_000_000_000
_WORTH_BYTES = 1 << 20  # a smaller file is hashed sooner than the note on it is read


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal. Raises OSError for the file, but not for an unusable cache."""
    path = path.resolve()
    state = _state(path)
    if state["size"] < _WORTH_BYTES:
        return _hashed(path)
    note = _note_for(path)
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(note.read_text(encoding="utf-8"))
        if isinstance(known, dict) and known.get("state") == state and len(str(known.get("sha256"))) == 64:
            return str(known["sha256"])
    began = time.time_ns()
    digest = _hashed(path)
    if _state(path) == state and began - max(state["mtime_ns"], state["ctime_ns"]) > _GRAIN_NS:
        try:
            _write(note, {"state": state, "sha256": digest})
        except OSError as exc:
            logger.debug("the hash of the weights can't be cached: %s", exc.strerror)
    return digest


def _state(path: Path) -> dict[str, Any]:
    found = path.stat()
    return {
        "path": str(path),
        "size": found.st_size,
        "device": found.st_dev,
        "inode": found.st_ino,
        "mtime_ns": found.st_mtime_ns,
        "ctime_ns": found.st_ctime_ns,
    }


def _hashed(path: Path) -> str:
    with open_file(path, MOST_BYTES) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _note_for(path: Path) -> Path:
    # Not Path.home(): it fails for a user without a home, and so must nothing here.
    base = os.environ.get("XDG_CACHE_HOME") or Path(os.path.expanduser("~")) / ".cache"  # noqa: PTH111
    folder = Path(base) / "medlens" / "weights"
    return folder / f"{hashlib.sha256(str(path).encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.json"


def _write(note: Path, values: dict[str, Any]) -> None:
    """Whole or not at all."""
    note.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with written_whole(note) as made:
        made.write_text(json.dumps(values), encoding="utf-8")
