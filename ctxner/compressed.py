"""Streams of bytes decompressed by their file's suffix; for sentence files and corpora alike."""

from __future__ import annotations

import bz2
import gzip
import io
import zlib
from typing import BinaryIO, cast

DAMAGE = (OSError, EOFError, zlib.error)  # what a cut or foreign file raises while it is read
_BUFFER_BYTES = 1 << 20


def decompressed(file: BinaryIO, suffix: str) -> BinaryIO:
    """The content of an open file whose name ends in `suffix`; the file itself unless that is .gz, .bz2 or .zst."""
    if suffix == ".gz":
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if suffix == ".bz2":
        return cast(BinaryIO, bz2.BZ2File(file))
    if suffix == ".zst":
        import pyarrow as pa

        return io.BufferedReader(pa.input_stream(file, compression="zstd"), _BUFFER_BYTES)
    return file
