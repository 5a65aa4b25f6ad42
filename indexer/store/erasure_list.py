"""The list of what a store has erased, as a file. Its digests reveal nothing without the key of the store.

A backup does not know what was erased after it was made. With this list, which is kept apart from the store, it is
erased again when the backup is restored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from indexer.catalog.erasure import SCOPES
from retrieval.bounded import read_json
from retrieval.errors import StoreError

KEYS = ("medlens_erasures", "key_check", "written", "digests")
_MOST = 1 << 28  # bytes: some four million digests
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class ErasureList:
    """Digests with their scopes. `key_check` identifies the key that they were made with."""

    key_check: str
    digests: Mapping[str, str]

    def to_json(self, written: str) -> str:
        """Return the text of the file. `written` is the present time in UTC."""
        by_scope = {scope: sorted(d for d, s in self.digests.items() if s == scope) for scope in SCOPES}
        return json.dumps(dict(zip(KEYS, (1, self.key_check, written, by_scope), strict=True)), indent=0) + "\n"


def read_erasures(path: Path) -> ErasureList:
    """Read a list. Raises StoreError if it can't be read or is not a list of erasures."""
    try:
        said = read_json(path, _MOST)
        digests = {digest: scope for scope in SCOPES for digest in said["digests"].get(scope, ())}
        if said["medlens_erasures"] != 1 or not isinstance(said["key_check"], str) or set(said["digests"]) - {*SCOPES}:
            raise ValueError("another version, or scopes that do not exist")
        if not all(isinstance(digest, str) and _DIGEST.fullmatch(digest) for digest in digests):
            raise ValueError("something that is not a digest")
    except OSError as exc:
        raise StoreError(f"the list of erasures {path.name!r} can't be read: {exc.strerror or exc}") from exc
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise StoreError(
            f"{path.name!r} is not a list of erasures", hint="Give a file of `medlens backup --erasures`."
        ) from exc
    return ErasureList(said["key_check"], digests)
