"""Milliseconds to render a CT (512 x 512) and a CR (2500 x 2048), against pydicom's own path.

    python benchmarks/render.py [--rounds 30]

Three ways from a dataset in memory to uint8, interleaved in one process:
- lut: render_frame, values looked up;
- float: render_frame(exact=True), every pixel computed;
- pydicom: pixel_array, apply_modality_lut, apply_voi_lut, scaled and rounded to 8 bits.
Prints medians, quartiles, and each way's ratio to pydicom's median. The three agree within one grey level (checked).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRLittleEndian

from indexer.render.frame import render_frame
from retrieval.types import Uint8Image


def made(rows: int, columns: int, *, signed: bool, bits: int, slope: float, intercept: float, window: tuple) -> Dataset:
    """A smooth picture with noise over most of the range, as an uncompressed dataset."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:rows, 0:columns]
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    wave = (np.sin(x / columns * 5) * np.cos(y / rows * 4) + 1) / 2
    values = np.clip(low + wave * (high - low) + rng.normal(0, (high - low) / 100, wave.shape), low, high)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = rows, columns, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, bits, bits - 1, int(signed)
    ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
    ds.WindowCenter, ds.WindowWidth = window
    ds.PixelData = values.astype("<i2" if signed else "<u2").tobytes()
    return ds


def plain_pydicom(ds: Dataset) -> Uint8Image:
    ds._pixel_array, ds._pixel_id = None, {}  # pydicom keeps the array: without this only the first call decodes
    values = apply_voi_lut(apply_modality_lut(ds.pixel_array, ds), ds)
    ends = ds.BitsStored - ds.PixelRepresentation
    low = -(1 << ends) * ds.PixelRepresentation * ds.RescaleSlope + ds.RescaleIntercept
    high = ((1 << ends) - 1) * ds.RescaleSlope + ds.RescaleIntercept
    return np.floor((values - low) / (high - low) * 255 + 0.5).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    images = {
        "CT 512x512, 16 bit signed": made(
            512, 512, signed=True, bits=12, slope=1, intercept=-1024, window=(-500, 1500)
        ),
        "CR 2500x2048, 12 bit": made(2500, 2048, signed=False, bits=12, slope=1, intercept=0, window=(2040, 3600)),
    }
    ways: dict[str, Callable[[Dataset], Uint8Image]] = {
        "lut": render_frame,
        "float": lambda ds: render_frame(ds, exact=True),
        "pydicom": plain_pydicom,
    }
    for name, ds in images.items():
        pictures = [way(ds).astype(int) for way in ways.values()]
        assert np.array_equal(pictures[0], pictures[1]) and np.abs(pictures[0] - pictures[2]).max() <= 1
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, function in ways.items():
                start = time.perf_counter()
                function(ds)
                times[way].append((time.perf_counter() - start) * 1000)
        base = statistics.median(times["pydicom"])
        for way, taken in times.items():
            lower, middle, upper = statistics.quantiles(taken, n=4)
            print(f"{name:26} {way:8} {middle:8.2f} ms  [{lower:.2f} to {upper:.2f}]  {base / middle:5.1f} x pydicom")


if __name__ == "__main__":
    main()
