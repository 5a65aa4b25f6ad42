"""The lease of a process that indexes: while it is renewed, other processes leave the claimed files alone."""

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
    """Used in a `with`: takes a lease in the catalog, renews it from a thread of its own, and ends it on leaving."""

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
        except StoreError as exc:  # it must not hide the error that ended the run; the lease expires by itself
            level = logging.WARNING if error is None else logging.INFO  # that error says what is wrong
            log.log(level, "this process could not release its claims; they expire with its lease: %s", exc)

    def _renew(self) -> None:
        while not self._ended.wait(self._lease_s / 3):
            try:
                self._catalog.claims.renew(self.id, self._process, self._lease_s)
            except StoreError as exc:  # if the problem lasts, the run itself fails with it
                log.info("the lease on the claimed files could not be renewed: %s", exc)
