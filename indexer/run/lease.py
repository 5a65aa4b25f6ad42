"""A process at work on a store: it says every few seconds that it is alive, so that others keep off what it claimed."""

from __future__ import annotations

import logging
import threading
from types import TracebackType

from indexer.catalog.claims import LEASE_S
from indexer.catalog.processes import Process
from indexer.catalog.sql_catalog import SqlCatalog
from retrieval.errors import StoreError

log = logging.getLogger(__name__)


class Lease:
    """In a `with`: enters the catalog, renews the lease from a thread of its own, and leaves at the end."""

    def __init__(self, catalog: SqlCatalog, lease_s: float = LEASE_S) -> None:
        self._catalog = catalog
        self._lease_s = lease_s
        self._process = Process.this()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="medlens-lease", daemon=True)
        self.id = 0

    def __enter__(self) -> Lease:
        self.id = self._catalog.claims.take_lease(self._process, self._lease_s)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        try:
            self._catalog.claims.end_lease(self.id)
        except StoreError as exc:  # must not hide what ended the run; the lease runs out by itself
            log.warning("the claims of this process stay until their lease runs out: %s", exc)

    def _renew(self) -> None:
        while not self._ended.wait(self._lease_s / 3):
            try:
                self._catalog.claims.renew(self.id, self._process, self._lease_s)
            except StoreError as exc:  # the run itself will meet it, if it lasts
                log.info("could not renew the lease on claimed files: %s", exc)
