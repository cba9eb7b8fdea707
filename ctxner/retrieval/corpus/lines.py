"""Lines of a corpus' files as text: the first ones, one decoded, and what is said where a file is damaged."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ctxner.files.compression import DAMAGE, CorpusFile, bounded_lines

_HEAD_LINES, _HEAD_BYTES = 20, 10_000  # looked at to tell whether a plain text is a table; bytes per line


def first_lines(path: Path) -> list[tuple[int, str]]:
    """The first lines that are not blank, as many as tell whether a text is a table; damage is told on reading."""
    lines: list[tuple[int, str]] = []
    with CorpusFile(path) as file, suppress(*DAMAGE):
        for line_no, raw in bounded_lines(file.stream, path):
            if raw.strip():
                lines.append((line_no, raw[:_HEAD_BYTES].decode("utf-8-sig", errors="replace")))
            if len(lines) == _HEAD_LINES:
                break
    return lines


def decoded(raw: bytes, path: Path, line_no: int) -> str:
    """The text of a line.

    Raises:
        ValueError: It is binary, or not UTF-8.
    """
    if b"\0" in raw:
        raise ValueError(f"{path}:{line_no}: NUL byte; this is a binary file, not text")
    try:
        return raw.decode("utf-8-sig" if line_no == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}:{line_no}: not UTF-8 ({error}); convert the file, e.g. with iconv") from error


def damaged(path: Path, line_no: int | None, error: BaseException) -> str:
    """The message of a file that cannot be unpacked from a line on; None: no line is known."""
    place = f"{path}:{line_no}" if line_no else str(path)
    format = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstd"}.get(path.suffix.lower(), "readable")
    return f"{place}: damaged or not {format} ({error})"
