"""A Source whose files are in memory, behind HTTP: no paths, no times, but an ETag for each."""

from __future__ import annotations

import hashlib
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import BinaryIO
from urllib.parse import quote, unquote

from indexer.records import FileStat
from indexer.sources.source import OnRejection


@dataclass(frozen=True)
class Remote:
    """One file behind a URL."""

    url: str

    @property
    def name(self) -> str:
        return unquote(self.url).rpartition("/")[2]

    def open(self) -> AbstractContextManager[BinaryIO]:
        return urllib.request.urlopen(self.url)  # a URLError is an OSError


@dataclass
class Bucket:
    """Files by key. Use it in a `with`, in which it is served; `fetched` counts what was read, by key."""

    files: dict[str, bytes]
    fetched: Counter[str] = field(default_factory=Counter)
    root: str = "bucket://radiology"
    label: str = "'radiology'"

    def __enter__(self) -> Bucket:
        bucket = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                key = unquote(self.path.removeprefix("/"))
                data = bucket.files.get(key)
                bucket.fetched[key] += 1
                self.send_response(404 if data is None else 200)
                self.end_headers()
                self.wfile.write(data or b"")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def walk(self, on_rejection: OnRejection) -> Iterator[FileStat]:
        return (self._stat(key) for key in sorted(self.files))

    def count(self) -> int:
        return len(self.files)

    def stat(self, path: str) -> FileStat | None:
        return self._stat(path) if path in self.files else None

    def locate(self, path: str) -> Remote:
        return Remote(f"http://127.0.0.1:{self._server.server_port}/{quote(path, safe='')}")

    def _stat(self, key: str) -> FileStat:
        return FileStat.tagged(key, len(self.files[key]), hashlib.md5(self.files[key]).hexdigest())
