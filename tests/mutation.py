"""Broken files by the thousand: seeded mutants of good files, each kind broken where its structure is."""

from __future__ import annotations

import hashlib
import io
import random
import re
import sqlite3
import struct
import zipfile
import zlib
from contextlib import closing, suppress
from pathlib import Path

import pydicom.data
from pydicom.misc import is_dicom

from indexer.dicom.safe_read import open_dicom
from indexer.render.frame import render_frame
from indexer.render.precheck import check_before_decoding

_WORST = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF]


def render_all(path: str) -> str:
    """SHA-256 over all frames, at most 4, rendered as the indexer does."""
    ds = open_dicom(path)
    check_before_decoding(ds)
    digest = hashlib.sha256()
    for number in range(1, min(int(ds.get("NumberOfFrames") or 1), 4) + 1):
        digest.update(render_frame(ds, number).tobytes())
    return digest.hexdigest()


def mutate(data: bytes, seed: int) -> bytes:
    """One to eight changes: bytes flipped, numbers made extreme, pieces cut out, doubled, zeroed, the end cut off.

    Half of them hit the first 2 kB or the pixel data's beginning, where the structure is.
    """
    rng = random.Random(seed)
    out = bytearray(data)
    pixels = max(data.rfind(b"\xe0\x7f\x10\x00"), 0)
    for _ in range(rng.choice([1, 1, 2, 4, 8])):
        if len(out) < 16:
            break
        place = rng.choice(
            [
                rng.randrange(min(len(out), 2048)),
                min(pixels + rng.randrange(256), len(out) - 1),
                rng.randrange(len(out)),
                rng.randrange(len(out)),
            ]
        )
        size = min(rng.choice([1, 2, 4, 8, 64, 512]), len(out) - place)
        kind = rng.randrange(8)
        if kind <= 2:
            out[place] ^= 1 << rng.randrange(8)
        elif kind == 3:
            width = rng.choice([1, 2, 4])
            worst = rng.choice(_WORST) & (1 << 8 * width) - 1
            out[place : place + width] = worst.to_bytes(width, rng.choice(["little", "big"]))
        elif kind == 4:
            del out[place : place + size]
        elif kind == 5:
            out[place:place] = out[place : place + size]
        elif kind == 6:
            out[place : place + size] = bytes(size) if rng.random() < 0.5 else rng.randbytes(size)
        else:
            del out[rng.randrange(len(out)) :]
    return bytes(out)


def mutate_deflated(data: bytes, seed: int) -> bytes:
    """A DICOM file with a deflated data set: changed as it is, or inflated, changed and deflated again."""
    start = 132 + 12 + struct.unpack_from("<L", data, 140)[0]  # file meta information, PS3.10 7.1
    if random.Random(seed).random() < 0.3:
        return mutate(data, seed)
    inner = mutate(zlib.decompress(data[start:], -zlib.MAX_WBITS), seed)
    deflate = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return data[:start] + deflate.compress(inner) + deflate.flush()


_HOSTILE_TEXT = (
    *("", " ", "-1", "0", "1e999", "-0.0", "NaN", "Infinity", "9" * 400, str(2**63), "1e9", "1000000000", "0.5"),
    *("null", "true", "[]", "{}", '"', "'", "\\", "\\u0000", "\\ud800", "\x00", "\x1b[2J", "\u202e", "\ufeff"),
    *("\ufffe", '""', '"x"', '"/dev/zero"', '"../../evil"', "x" * 5000, "\u0301" * 3000, "[" * 3000, '{"a":' * 3000),
    *("&a", "*a", "&a [*a, *a]", "!!python/object/apply:os.system [true]", "!!binary x", "<<: *a", "? ", "- ", ": "),
    *("\t", "\r", "\n", "\n\n---\n", "...", "%YAML 9.9", "no", "2001-13-01", "=cmd|x", "@", "\u2028", "\x85"),
)
_WORD = re.compile(r'"[^"]*"|[\w.+-]+|[^\w\s]')


def mutate_text(data: bytes, seed: int) -> bytes:
    """JSON, YAML or CSV: words replaced by others and by what readers stumble over, lines lost, doubled, exchanged."""
    rng = random.Random(seed)
    text = data.decode("utf-8")
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        kind = rng.randrange(6)
        lines = text.splitlines(keepends=True)
        words = list(_WORD.finditer(text))
        if not lines or not words:
            break
        word = rng.choice(words)
        if kind <= 1:
            text = text[: word.start()] + rng.choice(_HOSTILE_TEXT) + text[word.end() :]
        elif kind == 2:
            text = text[: word.start()] + rng.choice(words).group() + text[word.end() :]
        elif kind == 3:
            text = text[: word.start()] + rng.choice(_HOSTILE_TEXT) + text[word.start() :]
        elif kind == 4:
            at = rng.randrange(len(lines))
            lines[at : at + 1] = rng.choice([[], lines[at : at + 1] * 2, [rng.choice(lines), lines[at]]])
            text = "".join(lines)
        else:
            return mutate(text.encode("utf-8", "surrogatepass"), seed)
    return text.encode("utf-8", "surrogatepass")


def mutate_safetensors(data: bytes, seed: int) -> bytes:
    """Its header as the text that it is, with its length made right; its header's bytes, or its numbers."""
    (length,) = struct.unpack_from("<Q", data)
    drawn = random.Random(seed).random()
    if drawn < 0.2:
        return mutate(data[: 8 + length], seed) + data[8 + length :]
    if drawn < 0.5:
        return data[: 8 + length] + mutate(data[8 + length :], seed)[: len(data)].ljust(len(data) - 8 - length, b"\xff")
    header = mutate_text(data[8 : 8 + length], seed)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def mutate_npz(data: bytes, members: dict[str, bytes], seed: int) -> bytes:
    """The file as it is, whose checksums then tell; or an array in it, packed anew."""
    rng = random.Random(seed)
    if rng.random() < 0.25:
        return mutate(data, seed)
    name = rng.choice([*members, "vectors", "sop_instance_uid"])
    content = members[name]
    head = 10 + struct.unpack_from("<H", content, 8)[0]
    if rng.random() < 0.5:
        text = mutate_text(content[10:head], seed)
        changed = content[:8] + struct.pack("<H", min(len(text), 0xFFFF)) + text[:0xFFFF] + content[head:]
    elif name == "model" and rng.random() < 0.5:
        text = mutate_text(content[head:].decode("utf-32-le").encode(), seed).decode("utf-8", "replace")
        described = f"{{'descr': '<U{len(text)}', 'fortran_order': False, 'shape': (), }}".encode()
        packed = text.encode("utf-32-le", "replace")
        changed = content[:8] + struct.pack("<H", len(described)) + described + packed
    else:
        changed = content[:head] + mutate(content[head:], seed)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for other, array in members.items():
            archive.writestr(f"{other}.npy", changed if other == name else array)
    return out.getvalue()


def mutate_parquet(data: bytes, pages: list[int], seed: int) -> bytes:
    """At the headers of its pages, in the description at its end, or anywhere."""
    rng = random.Random(seed)
    out = bytearray(data)
    described = struct.unpack("<I", data[-8:-4])[0]
    for _ in range(rng.choice([1, 1, 2, 4])):
        place = rng.choice(
            [rng.choice(pages) + rng.randrange(24), len(data) - 8 - rng.randrange(described), rng.randrange(len(data))]
        )
        place = min(max(place, 4), len(data) - 9)
        if rng.random() < 0.5:
            out[place] ^= 1 << rng.randrange(8)
        else:
            worst = (b"\xff\xff\xff\x0f", bytes(4), b"\x01\x7f\x80\xfe", rng.randbytes(4))
            out[place : place + 4] = rng.choice(worst)
    return bytes(out[: len(data)])


_VALUES = (None, "", "x", "\x00", -1, 0, 2**62, -(2**63), 1e308, b"", b"\xff" * 16, "[" * 2000, "{}", "[]", "9" * 50)
_SCHEMA = (
    "DROP TABLE {table}",
    "ALTER TABLE {table} RENAME TO other",
    "ALTER TABLE {table} RENAME COLUMN {column} TO other",
    "CREATE TRIGGER t AFTER INSERT ON {table} BEGIN DELETE FROM {table}; END",
    "CREATE VIEW v AS SELECT * FROM v2",
    "DELETE FROM {table}",
    "INSERT INTO {table} SELECT * FROM {table}",
)


def mutate_catalog(path: Path, seed: int) -> None:
    """A catalog with other values in its rows, other tables, or broken pages. In place."""
    rng = random.Random(seed)
    if rng.random() < 0.3:
        path.write_bytes(mutate(path.read_bytes(), seed))
        return
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA foreign_keys = OFF")
        for _ in range(rng.choice([1, 1, 2, 4])):
            found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            table = rng.choice([name for (name,) in found if not name.startswith("sqlite_")])
            with suppress(sqlite3.Error):  # a constraint that holds
                column = rng.choice([row[1] for row in database.execute(f"PRAGMA table_info({table})")])
                if table == "manifest" and rng.random() < 0.8:
                    _mutate_setting(database, rng)
                elif rng.random() < 0.15:
                    database.execute(rng.choice(_SCHEMA).format(table=table, column=column))
                else:
                    rows = [row for (row,) in database.execute(f"SELECT rowid FROM {table}")]
                    values = (rng.choice(_VALUES), rng.choice(rows) if rows else 0)
                    database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", values)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _mutate_setting(database: sqlite3.Connection, rng: random.Random) -> None:
    settings = database.execute("SELECT key, value FROM manifest").fetchall()
    if not settings:
        return
    key, value = rng.choice(settings)
    changed = mutate_text(str(value).encode(), rng.getrandbits(32)).decode("utf-8", "replace")
    database.execute("UPDATE manifest SET value = ? WHERE key = ?", (changed, key))


def seeds(largest: int = 300_000) -> list[str]:
    """pydicom's own test files with pixels, in its wheel and, where it is installed, in pydicom-data."""
    wheel = Path(pydicom.data.__file__).parent / "test_files"
    folders = [wheel]
    try:
        import data_store
    except ImportError:
        pass
    else:
        folders.append(Path(data_store.__file__).parent / "data")
    paths = sorted(path for folder in folders for path in folder.rglob("*.dcm"))
    return [str(path) for path in paths if path.stat().st_size <= largest and is_dicom(path) and _has_pixels(path)]


def _has_pixels(path: Path) -> bool:
    return b"\xe0\x7f\x10\x00" in path.read_bytes()
