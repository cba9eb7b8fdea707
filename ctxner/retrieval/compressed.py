"""Opening corpus files whatever their compression, with the place reached in the file as it lies on disk."""

from __future__ import annotations

from pathlib import Path

from ctxner.compressed import DAMAGE, decompressed

__all__ = ["DAMAGE", "CorpusFile"]


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
