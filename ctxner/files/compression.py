"""Decompressing files by their suffix and cutting them into lines, for sentence files and corpora alike.

Both are bounded: neither a long line nor a small file that expands to a huge one may fill the memory. `CorpusFile` also
tells how many bytes of the compressed file have been read, for progress bars.
"""

from __future__ import annotations

import bz2
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

DAMAGE = (OSError, EOFError, zlib.error)  # raised while a truncated file, or one of another format, is read
_BUFFER_BYTES = 1 << 16
_MAX_LINE_BYTES = 1 << 26
MAX_RATIO = 500  # texts shrink to a third or a tenth, tables that repeat themselves to a hundredth
ANY_RATIO_BYTES = 1 << 26  # so much may come of any file


def decompressed(file: BinaryIO, suffix: str) -> BinaryIO:
    """The decompressed content of an open file; the file itself unless `suffix` is .gz, .bz2 or .zst.

    Reading on raises a ValueError with file:line as soon as more than 64 MiB and 500 times the file's bytes have come
    out of it.
    """
    if suffix == ".gz":
        return _bounded(cast(BinaryIO, gzip.GzipFile(fileobj=file)), file)
    if suffix == ".bz2":
        return _bounded(cast(BinaryIO, bz2.BZ2File(file)), file)
    if suffix == ".zst":
        import pyarrow as pa

        return _bounded(pa.input_stream(file, compression="zstd"), file)
    return file


def bounded_lines(stream: BinaryIO, path: str | Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines with their ends, from 1.

    Raises:
        ValueError: A line of more than 64 MiB, with file:line.
    """
    line_no = 0
    while line := stream.readline(_MAX_LINE_BYTES + 1):
        line_no += 1
        if len(line) > _MAX_LINE_BYTES:
            raise ValueError(
                f"{path}:{line_no}: a line of more than {_MAX_LINE_BYTES >> 20} MiB; is it a text file? Wanted one "
                "sentence, record or paragraph per line"
            )
        yield line_no, line


class _Bounded(io.RawIOBase):
    """What is decompressed, as long as it is in proportion to what was read of the file."""

    def __init__(self, stream: BinaryIO, file: BinaryIO) -> None:
        self._stream, self._file = stream, file
        self._num_bytes = self._num_line_ends = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        content = self._stream.read(len(buffer))
        self._num_bytes += len(content)
        self._num_line_ends += content.count(b"\n")
        if self._num_bytes > max(ANY_RATIO_BYTES, MAX_RATIO * self._file.tell()):
            raise ValueError(
                f"{getattr(self._file, 'name', 'file')}:{self._num_line_ends + 1}: expands to more than {MAX_RATIO} "
                "times its size up to this line; if this is meant, decompress it and name the decompressed file"
            )
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _bounded(stream: BinaryIO, file: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_Bounded(stream, file), _BUFFER_BYTES))


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
