"""Files that want more than they give: each is refused in a line, in little memory, and nothing of it is run."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import struct
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalog_factory import DIM, SPEC, indexed

from indexer.store.store import Store
from indexer.tasks import vector_files
from indexer.tasks.exchange import export_frames, import_frames
from retrieval import row_files
from retrieval.errors import QueryError, StoreError
from retrieval.row_files import read_row_file

FRAMES = 40
MOST = 24 << 20  # bytes at the peak


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.create(tmp_path_factory.mktemp("made") / "store", SPEC) as made:
        archive = made.catalog.files.archive_id("/a")
        made.catalog.files.commit(archive, [indexed(f"{n}", f"1.2.{n}", frames=2) for n in range(FRAMES // 2)], [])
        made.frames_index()
        yield made


@pytest.fixture
def columns(store: Store, tmp_path: Path) -> dict[str, Any]:
    export_frames(store, tmp_path / "good.npz")
    with np.load(tmp_path / "good.npz") as values:
        return dict(values)


def refused(store: Store, path: Path, why: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(StoreError, match=why) as caught:
            import_frames(store, path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MOST
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)
    assert str(path.parent) not in str(caught.value)


def npz(path: Path, members: dict[str, Any], raw: dict[str, bytes] | None = None, method: int = 8) -> Path:
    """An npz file; `raw` are members as bytes, in place of arrays."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, array in members.items():
            if name not in (raw or {}):
                data = io.BytesIO()
                np.save(data, array)
                archive.writestr(f"{name}.npy", data.getvalue())
        for name, content in (raw or {}).items():
            archive.writestr(f"{name}.npy", content)
    return path


def header(shape: str, descr: str = "'<f2'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


DEEP = "[" * 100_000 + "]" * 100_000


class Ran:
    ran = False

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (Ran, "ran", True)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ({"vectors": header(f"({10**12}, {DIM})")}, "has 1000000000000 vectors, but the store has 40 frames"),
        ({"vectors": header(f"(40, {10**12})")}, f"expected floats of shape \\(N, {DIM}\\)"),
        ({"vectors": header(f"(40, {DIM}, {10**9})")}, "expected floats"),
        ({"vectors": header(f"(-40, {DIM})")}, "its array vectors is float16"),
        (
            {"vectors": header(f"({40}, {DIM})", "'<f2', 'x': " + "(" * 5000)},
            "the header of its array vectors can't be read",
        ),
        ({"vectors": header(f"(40, {DIM})")}, "it ends within an array"),
        ({"vectors": header(f"(40, {DIM})", "'|O'") + pickle.dumps(Ran())}, "objects are not read"),
        ({"sop_instance_uid": header("(40,)", "'|O'") + pickle.dumps([Ran()] * 40)}, "objects are not read"),
        ({"sop_instance_uid": header("(40,)", "'<U300'")}, "texts of up to 256 characters"),
        ({"sop_instance_uid": header(f"({10**12},)", "'<U64'")}, "has 1000000000000 vectors"),
        ({"frame_number": header(f"({10**12},)", "'<i8'")}, "has 1000000000000 vectors"),
        ({"frame_number": header("(40,)", "'<M8[s]'")}, "expected one dimension of integers"),
        ({"model": header("()", "'<U300000'")}, "its model is"),
        ({"model": header("()", "'|O'") + pickle.dumps(Ran())}, "objects are not read"),
        ({"vectors": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b" " * (1 << 22)}, r"version \(2, 0\)"),
        ({"model": header("()", f"'<U{10**9}'")}, "the header of its array model can't be read"),
        ({"vectors": header("(" + "9" * 4000 + f", {DIM})")}, r"over 10\^15 vectors"),
        ({"vectors": b""}, "the header of its array vectors can't be read"),
    ],
)
def test_an_npz_that_claims_what_it_has_not(
    raw: dict[str, bytes], why: str, store: Store, columns: dict[str, Any], tmp_path: Path
) -> None:
    refused(store, npz(tmp_path / "in.npz", columns, raw), why)
    assert not Ran.ran


def test_five_gigabytes_of_zeros_in_a_few_megabytes(store: Store, columns: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "in.npz"
    rows = 5 * 10**9 // (2 * DIM)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("vectors.npy", "w", force_zip64=True) as member:
            member.write(header(f"({rows}, {DIM})"))
            for _ in range(64):  # the rest would say nothing more
                member.write(bytes(1 << 20))
        for name in ("sop_instance_uid", "frame_number", "model"):
            data = io.BytesIO()
            np.save(data, columns[name])
            archive.writestr(f"{name}.npy", data.getvalue())
    refused(store, path, f"has {rows} vectors, but the store has 40 frames")


def test_a_description_of_a_model_nested_deeply(store: Store, columns: dict[str, Any], tmp_path: Path) -> None:
    path = npz(tmp_path / "in.npz", columns | {"model": np.array(DEEP)})
    refused(store, path, r"the description of its model is not valid JSON \(RecursionError\)")
    refused(store, npz(path, columns | {"model": np.array(DEEP * 2)}), "expected one text of up to")
    name = {"name": "x" * 100_000, "weights_sha256": "0" * 64, "embed_dim": DIM}
    refused(store, npz(path, columns | {"model": np.array(json.dumps(name))}), "differ in")


def test_archives_that_are_odd(store: Store, columns: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "in.npz"
    refused(store, npz(path, columns, method=zipfile.ZIP_LZMA), "compressed by method 14")
    good = npz(path, columns).read_bytes()
    end = good.rindex(b"PK\5\6")
    path.write_bytes(good[: end + 12] + struct.pack("<I", 2**31) + good[end + 16 :])
    refused(store, path, "its list of arrays has 2147483648 bytes")
    for content in (b"", b"PK\5\6", good[:-30], b"\x80\x04" + pickle.dumps(Ran()), bytes(1000), pickle.dumps(Ran())):
        path.write_bytes(content)
        refused(store, path, r"the vectors of .* can't be read")
    rng = np.random.default_rng(3)
    for _ in range(60):
        changed = bytearray(good)
        for at in rng.integers(0, len(good), 3):
            changed[at] = rng.integers(0, 256)
        path.write_bytes(changed)
        with contextlib.suppress(StoreError):
            assert import_frames(store, path).replaced == 0
    assert not Ran.ran


def test_a_stranger_s_faiss_file_is_not_read(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    export_frames(store, tmp_path / "in.faiss")

    def read(*_: Any) -> None:
        raise AssertionError("FAISS was given a stranger's file")

    monkeypatch.setattr(faiss, "read_index", read)
    refused(store, tmp_path / "in.faiss", "not an npz file")


def test_endless_files(store: Store, tmp_path: Path) -> None:
    (tmp_path / "zero.npz").symlink_to("/dev/zero")
    refused(store, tmp_path / "zero.npz", "not a regular file")
    with (tmp_path / "sparse.npz").open("wb") as file:
        file.truncate(1 << 40)
    refused(store, tmp_path / "sparse.npz", r"the vectors of .* can't be read")


# -- parquet


@pytest.fixture
def table(columns: dict[str, Any]) -> Any:
    pa = pytest.importorskip("pyarrow")
    return pa.table(
        {
            "sop_instance_uid": columns["sop_instance_uid"].tolist(),
            "frame_number": columns["frame_number"].tolist(),
            "vector": pa.array(columns["vectors"].astype(np.float32).tolist(), pa.list_(pa.float32())),
        }
    ).replace_schema_metadata({"medlens_model": json.dumps(SPEC)})


def written(path: Path, table: Any, **options: Any) -> Path:
    import pyarrow.parquet as pq

    pq.write_table(table, path, **options)
    return path


def test_parquet_that_others_write_is_read(store: Store, table: Any, tmp_path: Path) -> None:
    assert import_frames(store, written(tmp_path / "in.parquet", table, row_group_size=7)).unchanged == FRAMES


def test_parquet_bombs(store: Store, table: Any, tmp_path: Path) -> None:
    import pyarrow as pa

    path = tmp_path / "in.parquet"
    zeros = pa.array(np.zeros(1 << 22, np.float32))
    long = pa.ListArray.from_arrays(pa.array([0] + [1 << 22] * FRAMES, pa.int32()), zeros)
    refused(
        store,
        written(path, table.set_column(2, "vector", long)),
        f"have 4194343 numbers; expected {DIM} for each vector",
    )
    uids = pa.array(["1" * (1 << 22)] * FRAMES)
    refused(store, written(path, table.set_column(0, "sop_instance_uid", uids)), "unpacks to|characters")
    uids = pa.array(["1" * 300] * FRAMES)
    refused(
        store,
        written(path, table.set_column(0, "sop_instance_uid", uids)),
        "some of its UIDs have more than 256 characters",
    )
    refused(store, written(path, pa.concat_tables([table] * 5000)), "has 200000 vectors, but the store has 40 frames")
    nested = pa.array([{"a": {"b": n}} for n in range(FRAMES)])
    refused(store, written(path, table.set_column(2, "vector", nested)), "its column vector has a different type")
    many = pa.table({f"c{n}": [1] for n in range(3000)})
    refused(store, written(path, many), "3000 columns")
    deep = DEEP.encode()
    refused(store, written(path, table.replace_schema_metadata({"medlens_model": deep})), "RecursionError")
    nulls = table.set_column(1, "frame_number", pa.array([None] * FRAMES, pa.int64()))
    refused(store, written(path, nulls), "some rows lack a value")


def test_a_parquet_file_whose_reader_dies(
    store: Store, table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages can claim what the file's description does not: the worker that reads them may take so much, no more."""
    path = written(tmp_path / "in.parquet", table)
    monkeypatch.setattr(vector_files, "_SPARE_MEMORY", 4096 - 8 * FRAMES * (4 * DIM + 256))
    refused(store, path, "reading it needs more memory or time than its number of vectors explains")


def test_parquet_files_that_are_damaged(store: Store, table: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "in.parquet", table)
    good = path.read_bytes()
    for content in (b"PAR1", b"", good[:-20], good[:-8] + struct.pack("<I", 2**31) + b"PAR1", b"PAR1" + bytes(99)):
        path.write_bytes(content)
        refused(store, path, r"the vectors of .* can't be read")
    rng = np.random.default_rng(4)
    for _ in range(6):
        changed = bytearray(good)
        for at in rng.integers(0, len(good), 20):
            changed[at] = rng.integers(0, 256)
        path.write_bytes(changed)
        refused(store, path, "in.parquet")


def test_a_parquet_schema_nested_without_end(store: Store, tmp_path: Path) -> None:
    """Thrift's compact protocol by hand: a tower of groups, of which each holds the next."""
    pytest.importorskip("pyarrow")
    for depth in (50_000, 1_000_000):
        group = b"\x35\x00" + b"\x18\x01a" + b"\x15\x02\x00"  # required, name "a", one child
        leaf = b"\x15\x02" + b"\x25\x00" + b"\x18\x01a\x00"  # INT32, required, name "a"
        number, size = depth + 1, b""
        while number:
            size, number = size + bytes([number & 0x7F | (0x80 if number > 0x7F else 0)]), number >> 7
        footer = b"\x15\x04\x19\xfc" + size + group * depth + leaf + b"\x16\x00\x19\x0c\x00"
        path = tmp_path / "deep.parquet"
        path.write_bytes(b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1")
        refused(store, path, r"the vectors of .* can't be read")


# -- rows


@pytest.mark.parametrize(
    "text",
    ["image,group," + "x," * 300_000, 'image,group\n"' + "x\n" * 300_000, "image\n" + '"x\n",' * 300_000],
    ids=["one line", "a quote that never ends", "a row of many lines"],
)
def test_a_csv_of_one_endless_row(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "LONGEST_ROW", 1 << 17)
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(QueryError, match=r"the row in a\.csv, line [12] has more than 131,072 characters|field larger"):
        read_row_file(tmp_path / "a.csv", what="truth file", error=QueryError, takes_csv=True)


def test_json_lines_of_one_endless_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "LONGEST_ROW", 1 << 17)
    deep = "nested too deeply" if sys.version_info < (3, 12) else "nested too deeply|is not JSON: Expecting value"
    for text, message in (
        ('{"a": [' + "0," * 300_000 + "0]}", "more than 131,072 characters"),
        ('{"a": ' + DEEP[:1000] + "}\n" + "[" * 130_000, deep),
    ):
        (tmp_path / "a.jsonl").write_text(text)
        with pytest.raises(QueryError, match=message):
            read_row_file(tmp_path / "a.jsonl", what="pairs file", error=QueryError)


def test_rows_are_read_without_a_second_copy_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + b" \n" * (8 << 20) + b'{"a": "\xe2\x82\xac"}\n')
    tracemalloc.start()
    try:
        file = read_row_file(tmp_path / "a.jsonl", what="pairs file", error=QueryError)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20  # the file has 16 MiB; its text as StringIO had held it would take 64
    assert [(line.number, line.values) for line in file.lines] == [((8 << 20) + 1, {"a": "\u20ac"})]


@pytest.mark.parametrize("before", [0, 1, (1 << 20) - 2, (1 << 20) - 1, 1 << 20])
def test_bytes_that_are_not_utf8_are_told_by_their_line(before: int, tmp_path: Path) -> None:
    """Also where they stand at the edge of a piece that is looked through at once, or are the start of a letter."""
    for end in (b"\xff\n", b"\xe2\x82", b"\xe2\x82\n"):
        (tmp_path / "a.csv").write_bytes(b"image\n" + b"x" * before + b"\n" + end)
        with pytest.raises(QueryError, match=r"^a\.csv, line 3 is not UTF-8 text$"):
            read_row_file(tmp_path / "a.csv", what="truth file", error=QueryError, takes_csv=True)


def test_rows_are_read_of_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    for name in ("pipe.jsonl", "zero.jsonl"):
        with pytest.raises(QueryError, match="is a device, a pipe or a socket, expected a file"):
            read_row_file(tmp_path / name, what="pairs file", error=QueryError)
