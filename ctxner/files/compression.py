"""Decompressing files by their suffix, for sentence files and corpora alike.

`CorpusFile` also tells how many bytes of the compressed file have been read, for progress bars.
"""

from __future__ import annotations

import bz2
import gzip
import io
import zlib
from pathlib import Path
from typing import BinaryIO, cast

DAMAGE = (OSError, EOFError, zlib.error)  # raised while a truncated file, or one of another format, is read
_BUFFER_BYTES = 1 << 20


def decompressed(file: BinaryIO, suffix: str) -> BinaryIO:
    """The decompressed content of an open file; the file itself unless `suffix` is .gz, .bz2 or .zst."""
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
        """The file itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.stream.close()
        self._file.close()
