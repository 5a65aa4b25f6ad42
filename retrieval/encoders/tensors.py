"""The tensors of a weights file, memory-mapped, without torch: opening costs the header, reading what is touched.

Two formats: safetensors, and the zip that `torch.save` writes (its entries are stored, not packed). The pickle in that
zip is read by an unpickler that knows the four things a state dict is made of, leaves out a few that stand beside one
in a training checkpoint, and refuses every other: that of torch, asked for weights only, also makes byte arrays of any
size. No tensor has more values than the file has room for.
"""

from __future__ import annotations

import io
import math
import mmap
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from retrieval.bounded import open_file, parse_json
from retrieval.encoders.fingerprint import MOST_BYTES
from retrieval.half import widened

BFLOAT16 = "bfloat16"  # NumPy has no such type: held as the upper half of a float32
_SAFETENSORS = {"F32": "<f4", "F16": "<f2", "BF16": BFLOAT16, "F64": "<f8", "I64": "<i8", "I32": "<i4", "U8": "|u1"}
_SAFETENSORS |= {"I16": "<i2", "I8": "|i1", "BOOL": "|b1"}
_STORAGES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": BFLOAT16,
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ByteStorage": "|u1",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "BoolStorage": "|b1",
}
_MOST_HEADER = 100_000_000  # bytes, as the safetensors library has it
_MOST_PICKLE = 100_000_000
# Where training scripts keep a model, in the order of preference: the average over the steps is what they judge.
STATE_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "state_dict", "model_state_dict", "model")
_MOST_NESTED = 3
# What checkpoints hold beside tensors: arguments, losses as NumPy's numbers. Read as nothing.
_BESIDE = {
    ("argparse", "Namespace"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("_codecs", "encode"),
    ("torch", "Size"),
    ("torch", "device"),
}
_MALFORMED = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    OverflowError,
    MemoryError,
    RuntimeError,
    struct.error,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


class UnusableWeights(ValueError):
    """Why a weights file is refused."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file: a view of the mapped bytes."""

    values: npt.NDArray[Any]  # uint16 for bfloat16
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def float32(self, rows: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.float32]:
        """All of it or some rows, as float32; a view where it is float32 already."""
        values = self.values if rows is None else self.values[rows]
        if self.dtype == BFLOAT16:
            wide = values.astype(np.uint32)
            wide <<= 16
            return wide.view(np.float32)
        if self.dtype == "<f2":
            return widened(values)
        return values.astype(np.float32, copy=False)


def open_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a weights file by name. Raises UnusableWeights for another format; an OSError is passed on."""
    with open_file(path, MOST_BYTES) as file:
        start = file.read(4)
        file.seek(0)
        try:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except ValueError as exc:
            raise UnusableWeights(f"{path.name} is empty") from exc
        try:
            return _of_torch_zip(file, data) if start == b"PK\x03\x04" else _of_safetensors(data)
        except _MALFORMED as exc:
            raise UnusableWeights(f"{path.name} is neither a safetensors file nor a torch archive: {exc}") from exc


def _of_safetensors(data: memoryview) -> dict[str, Tensor]:
    (length,) = struct.unpack_from("<Q", data)
    if length > min(_MOST_HEADER, len(data) - 8):
        raise ValueError(f"a header of {length} bytes in a file of {len(data)}")
    header = parse_json(bytes(data[8 : 8 + length]))
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            dtype, shape = _SAFETENSORS[entry["dtype"]], tuple(entry["shape"])
            found[name] = _tensor(data[8 + length + begin : 8 + length + end], dtype, shape, exact=True)
    return found


def _of_torch_zip(file: io.BufferedReader, data: memoryview) -> dict[str, Tensor]:
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        (pickled,) = (name for name in entries if name.endswith("/data.pkl"))
        root = pickled.removesuffix("data.pkl")
        packed = [name for name, entry in entries.items() if entry.compress_type != zipfile.ZIP_STORED]
        if packed or entries[pickled].file_size > min(_MOST_PICKLE, len(data)):
            raise ValueError("its entries are packed, or larger than they can be")
        order = archive.read(f"{root}byteorder") if f"{root}byteorder" in entries else b"little"
        if order != b"little":
            raise ValueError(f"its numbers are {order!r}-endian")

        def storage(key: str) -> memoryview:
            entry = entries[f"{root}data/{key}"]
            name, extra = struct.unpack_from("<HH", data, entry.header_offset + 26)  # APPNOTE 4.3.7
            begin = entry.header_offset + 30 + name + extra
            return data[begin : begin + entry.file_size]

        state = _StateDict(io.BytesIO(archive.read(pickled)), storage).load()
    state = _innermost(state)
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def _innermost(state: Any) -> Mapping[Any, Any]:
    """The state dict in what was saved: itself, or in a training checkpoint, under one of the usual keys."""
    for _ in range(_MOST_NESTED):
        if not isinstance(state, Mapping):
            raise ValueError(f"it holds a {type(state).__name__}, expected a state dict")
        key = next((key for key in STATE_KEYS if isinstance(state.get(key), Mapping) and state[key]), None)
        if key is None:
            break
        state = state[key]
    return dict(state)


class _StateDict(pickle.Unpickler):
    """Makes mappings, and a `Tensor` where torch would make one. Anything else is refused before it is made."""

    def __init__(self, file: io.BytesIO, storage: Any) -> None:
        super().__init__(file)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuilt
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, _requires_grad, _hooks: tensor
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) in _BESIDE:
            return _Nothing
        raise pickle.UnpicklingError(f"it needs {module}.{name}")

    def persistent_load(self, pid: Any) -> tuple[memoryview, str]:
        kind, dtype, key, _device, _count = pid
        if kind != "storage" or dtype not in _STORAGES.values():
            raise pickle.UnpicklingError(f"it refers to a {kind!r}")
        return self._storage(str(key)), str(dtype)


class _Nothing:
    """Stands for a value that is not a tensor."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


def _rebuilt(
    storage: tuple[memoryview, str], offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    data, dtype = storage
    size = _kind(dtype).itemsize
    _require_shape(shape)
    stored = np.frombuffer(data, _kind(dtype), len(data) // size)[offset:]
    # A tensor may lie transposed, or with gaps, but never on more values than there are: no copy of it is larger.
    last = sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) if math.prod(shape) else -1
    if min(stride, default=0) < 0 or offset < 0 or last >= len(stored) or math.prod(shape) > len(stored):
        raise ValueError(f"a tensor of shape {shape} and strides {stride} has {len(data)} bytes")
    return Tensor(as_strided(stored, shape, tuple(s * size for s in stride), writeable=False), dtype)


def _tensor(data: memoryview, dtype: str, shape: tuple[int, ...], *, exact: bool = False) -> Tensor:
    _require_shape(shape)
    kind, count = _kind(dtype), math.prod(shape)
    if count * kind.itemsize > len(data) or (exact and count * kind.itemsize != len(data)):
        raise ValueError(f"a tensor of shape {shape} has {len(data)} bytes")
    return Tensor(np.frombuffer(data, kind, count).reshape(shape), dtype)


def _kind(dtype: str) -> np.dtype[Any]:
    return np.dtype("<u2" if dtype == BFLOAT16 else dtype)


def _require_shape(shape: tuple[int, ...]) -> None:
    if len(shape) > 16 or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"a tensor of shape {shape}")
