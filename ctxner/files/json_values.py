"""The values of a JSON file one by one: the items of one array, or values that follow one another.

Neither the file nor the array is held in memory, only the value that is being read.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ctxner.files.compression import DAMAGE, decompressed

MAX_CHARS = 1 << 24  # per value: parsed, it takes some ten times as much memory
_CHUNK_BYTES = 1 << 16
_SLACK = 16  # characters of a token that the end of what was read may cut: true, -1.5e10, \ud83d\ude00
_BLANKS = re.compile(r"[ \t\n\r]*")
_ARRAY = re.compile(r"[ \t\n\r]*\[[ \t\n\r]*[\[{\]]")  # [{..., [[... or []: but ["text", {...}] is one value


def json_values(path: str | Path) -> Iterator[tuple[str, Any]]:
    """Place and content of each item of a file's array, or of each value in a file without one.

    An object with a list `annotations` of pairs (NER Annotator's export) stands for its pairs.

    Raises:
        ValueError: What is not JSON, not UTF-8, nested too deeply or longer than `MAX_CHARS`, with its place.
    """
    text = _Text(path)
    if text.is_array():
        yield from text.items()
        return
    while text.peek():
        where = text.place()
        value = text.value()
        annotations = value.get("annotations") if isinstance(value, dict) and "classes" in value else None
        if isinstance(annotations, list):
            yield from (
                (f"{where}: record {number}", own) for number, own in enumerate(annotations, 1) if own is not None
            )
        else:
            yield where, value


def holds_array(path: str | Path) -> bool:
    """Whether the file begins with an array of objects or arrays, as JSON lines do not."""
    try:
        return _Text(path).is_array()
    except ValueError:  # the reader of lines meets it too, and knows its line
        return False


class _Text:
    """Decoded text of a file, read as far as is needed."""

    def __init__(self, path: str | Path):
        self._path, self._chunks = path, _decoded(path)
        self._read, self._at, self._line = "", 0, 1

    def place(self) -> str:
        return f"{self._path}:{self._line}"

    def is_array(self) -> bool:
        self._more()
        return _ARRAY.match(self._read) is not None

    def items(self) -> Iterator[tuple[str, Any]]:
        self._take("[")
        number = 0
        while self.peek() != "]":
            if number:
                self._take(",")
                self.peek()
            number += 1
            where = f"{self.place()}: record {number}"
            yield where, self.value()
        self._take("]")
        if self.peek():
            raise ValueError(f"{self.place()}: {self.peek()!r} after the end of the array; wanted one array, or lines")

    def peek(self) -> str:
        """The next character that is not blank; empty at the end."""
        while True:
            blanks = _BLANKS.match(self._read, self._at)
            self._move(blanks.end() if blanks else self._at)
            if self._at < len(self._read):
                return self._read[self._at]
            if not self._more():
                return ""

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._read, self._at)
                problem = None
            except (ValueError, RecursionError) as error:
                self._refuse_damage(error)
                problem = error
            if problem is None and end < len(self._read):
                self._move(end)
                return value
            if len(self._read) - self._at > MAX_CHARS:
                raise ValueError(
                    f"{self.place()}: no JSON value ends within {MAX_CHARS:,} characters; is a bracket missing? "
                    "a larger value is read from JSON lines"
                )
            if not self._more():
                if problem is not None:
                    self._refuse_damage(problem, whole=True)
                self._move(end)
                return value

    def _refuse_damage(self, error: Exception, *, whole: bool = False) -> None:
        """ValueError unless the reason may be that the rest has not been read (`whole`: there is no rest)."""
        place = self.place()
        if isinstance(error, json.JSONDecodeError):
            cut = error.pos >= len(self._read) - _SLACK or error.msg.startswith("Unterminated string")
            if cut and not whole:
                return
            place = f"{self._path}:{self._line + self._read.count(chr(10), self._at, error.pos)}"
            error = ValueError(f"{error.msg}: {self._read[error.pos : error.pos + 20]!r}")
        raise ValueError(f"{place}: not JSON ({error})") from error

    def _take(self, character: str) -> None:
        found = self.peek()
        if found != character:
            raise ValueError(f"{self.place()}: not JSON: {found or 'the end of the file'!r}, wanted {character!r}")
        self._move(self._at + 1)

    def _move(self, at: int) -> None:
        self._line += self._read.count("\n", self._at, at)
        self._at = at

    def _more(self) -> bool:
        """Read on, by as much as is unread already, so that parsing again costs twice a value's length at most."""
        chunks, wanted = list[str](), max(len(self._read) - self._at, 1)
        while wanted > 0 and (chunk := next(self._chunks, "")):
            chunks.append(chunk)
            wanted -= len(chunk)
        if chunks:
            self._read, self._at = "".join([self._read[self._at :], *chunks]), 0
        return bool(chunks)


_DECODER = json.JSONDecoder()


def _decoded(path: str | Path) -> Iterator[str]:
    decoder, offset, suffix = codecs.getincrementaldecoder("utf-8")(), 0, Path(path).suffix.lower()
    with open(path, "rb") as file:
        try:
            stream = decompressed(file, suffix)
            while raw := stream.read(_CHUNK_BYTES):
                pending = len(decoder.getstate()[0])
                try:
                    chunk = decoder.decode(raw)
                except UnicodeDecodeError as error:
                    byte = f"byte 0x{error.object[error.start]:02x} at offset {offset - pending + error.start}"
                    raise ValueError(f"{path}: not UTF-8: {byte}; convert it (iconv -f latin1 -t utf-8)") from error
                if "\0" in chunk:
                    raise ValueError(f"{path}: it holds NUL: the file is binary or UTF-16; wanted UTF-8 text")
                if chunk := chunk.removeprefix("\ufeff") if offset == 0 else chunk:
                    yield chunk
                offset += len(raw)
        except DAMAGE as error:
            if suffix not in (".gz", ".zst"):
                raise
            raise ValueError(f"{path}: not a whole {suffix} file ({error}); fetch it again") from error
    if cut := decoder.getstate()[0]:
        raise ValueError(f"{path}: not UTF-8: {cut!r} at the end; is the file whole?")
