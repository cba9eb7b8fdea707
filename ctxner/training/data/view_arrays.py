"""Writes the files of stored views: flat NumPy arrays that grow while written, and a manifest that reveals damage.

The meaning of the arrays is documented in `ctxner.training.data.view_store`.
"""

from __future__ import annotations

import json
import os
import zlib
from array import array
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ctxner.training.data.view_key import VERSION

MANIFEST = "store.json"
ARRAYS = {
    "starts": "q",
    "rows": "q",
    "pieces": "H",
    "words": "i",
    "passages": "i",
    "marks": "i",
    "ids": "B",
}  # typecodes
WIDE_PIECES = "i"  # typecode of pieces for vocabularies above 2^16


def append(path: Path, values: array) -> None:
    """Append values to an array's file, created if absent; `complete` later writes the true length in its header."""
    with path.open("ab") as file:
        if not file.tell():
            _write_header(file, np.dtype(values.typecode), 0)
        values.tofile(file)


def complete(folder: Path, key: str) -> None:
    """Write the lengths of a store's arrays into their headers, then write the manifest."""
    for name in ARRAYS:
        with (folder / f"{name}.npy").open("r+b") as file:
            np.lib.format.read_magic(file)
            _, _, dtype = np.lib.format.read_array_header_1_0(file)
            num_bytes = os.fstat(file.fileno()).st_size - file.tell()
            file.seek(0)
            _write_header(file, dtype, num_bytes // dtype.itemsize)
    (folder / MANIFEST).write_bytes(manifest_of(folder, key))


def _write_header(file: BinaryIO, dtype: np.dtype, length: int) -> None:
    """Write a header; NumPy reserves room in it, so that a longer length fits later."""
    np.lib.format.write_array_header_1_0(
        file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)}
    )


def manifest_of(path: Path, key: str) -> bytes:
    """Content that `store.json` must have for the arrays as they are now."""
    arrays = {name: _length_and_crc(path / f"{name}.npy") for name in ARRAYS}
    return json.dumps({"version": VERSION, "key": key, "arrays": arrays}).encode()


def _length_and_crc(path: Path) -> tuple[int, int]:
    length = crc = 0
    with path.open("rb", buffering=0) as file:
        while part := file.read(1 << 20):
            length, crc = length + len(part), zlib.crc32(part, crc)
    return length, crc


def mapped(path: Path) -> np.ndarray:
    """Map an array's file into memory, read-only."""
    return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)  # slices faster than np.memmap
