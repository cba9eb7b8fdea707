"""Streams of bytes decompressed by their file's suffix; for sentence files and corpora alike.

`CorpusFile` also tells how far the file, as it lies on disk, has been read.
"""

from __future__ import annotations

import bz2
import gzip
import io
import zlib
from pathlib import Path
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


class CorpusFile:
    """A file opened for reading bytes, decompressed by its suffix; a context manager.

    Attributes:
        stream: The decompressed bytes.
    """

    def __init__(self, path: Path):
        """Open `path`.

        Raises:
            FileNotFoundError: No such file.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such corpus file")
        self._file = path.open("rb")
        self.stream = decompressed(self._file, path.suffix.lower())

    @property
    def position(self) -> int:
        """Bytes of the file read so far, as they lie on disk."""
        return self._file.tell()

    def __enter__(self) -> CorpusFile:
        """Nothing more than the file itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.stream.close()
        self._file.close()
