"""The files of stored views: flat NumPy arrays that grow while they are written, and a manifest that finds any damage.

What they mean is `ctxner.training.data.view_store`'s.
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
ARRAYS = {"starts": "q", "rows": "q", "pieces": "H", "words": "i", "passages": "i", "ids": "B"}  # typecodes
WIDE_PIECES = "i"  # for vocabularies above 2^16


def append(path: Path, values: array) -> None:
    """Add values to the end of an array's file, which is made if need be; its header is right once it is in place."""
    with path.open("ab") as file:
        if not file.tell():
            _write_header(file, np.dtype(values.typecode), 0)
        values.tofile(file)


def complete(folder: Path, key: str) -> None:
    """Write the lengths of a store's arrays into their headers, and then the manifest."""
    for name in ARRAYS:
        with (folder / f"{name}.npy").open("r+b") as file:
            np.lib.format.read_magic(file)
            _, _, dtype = np.lib.format.read_array_header_1_0(file)
            num_bytes = os.fstat(file.fileno()).st_size - file.tell()
            file.seek(0)
            _write_header(file, dtype, num_bytes // dtype.itemsize)
    (folder / MANIFEST).write_bytes(manifest_of(folder, key))


def _write_header(file: BinaryIO, dtype: np.dtype, length: int) -> None:
    """NumPy leaves room in a header for the length to grow."""
    np.lib.format.write_array_header_1_0(
        file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)}
    )


def manifest_of(path: Path, key: str) -> bytes:
    """What `store.json` says of the arrays that are there."""
    arrays = {name: _length_and_crc(path / f"{name}.npy") for name in ARRAYS}
    return json.dumps({"version": VERSION, "key": key, "arrays": arrays}).encode()


def _length_and_crc(path: Path) -> tuple[int, int]:
    length = crc = 0
    with path.open("rb", buffering=0) as file:
        while part := file.read(1 << 20):
            length, crc = length + len(part), zlib.crc32(part, crc)
    return length, crc


def mapped(path: Path) -> np.ndarray:
    """An array as it lies on disk."""
    return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)  # slices quicker than np.memmap
