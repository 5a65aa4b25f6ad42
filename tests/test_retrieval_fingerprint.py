"""A remembered hash counts only while the file is surely the same."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from retrieval.encoders import fingerprint
from retrieval.encoders.fingerprint import sha256_of


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose hash is remembered, as if it had lain there for long."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fingerprint, "_GRAIN_NS", -1)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(os.urandom(fingerprint._WORTH_BYTES))
    assert sha256_of(path) == plain(path)
    return path


def plain(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_second_time_nothing_is_hashed(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = plain(weights)
    monkeypatch.setattr(fingerprint, "_hashed", lambda path: pytest.fail("hashed again"))
    assert sha256_of(weights) == expected
    link = weights.with_name("link")
    link.symlink_to(weights)
    assert sha256_of(link) == expected


def flip(path: Path) -> None:
    """Other content of the same size in the same file, with its old time of modification."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    time.sleep(0.02)  # the clock of the file system has a grain
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def exchange(path: Path) -> None:
    """Another file under the name, of the same size and time."""
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(os.urandom(before.st_size))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [flip, exchange, lambda path: path.write_bytes(path.read_bytes() + b"x")])
def test_a_changed_file_is_hashed_anew(weights: Path, change: Callable[[Path], None]) -> None:
    before = sha256_of(weights)
    change(weights)
    assert sha256_of(weights) == plain(weights) != before


def test_a_fresh_file_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "weights"
    path.write_bytes(bytes(fingerprint._WORTH_BYTES))
    assert sha256_of(path) == plain(path)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("note", [b"", b"{}", b"[1]", b"\xff\xfe", b'{"state": null, "sha256": "0"}'])
def test_a_damaged_note_is_no_note(weights: Path, note: bytes) -> None:
    (place,) = (path for path in weights.with_name("cache").rglob("*") if path.is_file())
    place.write_bytes(note)
    assert sha256_of(weights) == plain(weights)


def test_without_a_cache_it_only_takes_longer(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert sha256_of(weights) == plain(weights)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "")
    monkeypatch.chdir(tmp_path)
    assert sha256_of(weights) == plain(weights)
