"""Reading and writing numbered lines of text, and what readers of sentence files count.

The formats are in `ctxner.files.columns`, `ctxner.files.jsonl`, `ctxner.files.parquet` and `ctxner.files.text`;
`ctxner.files.sentences` reads any of them.
"""

from __future__ import annotations

import codecs
import gzip
import io
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import IO

from ctxner.files.atomic import new_file
from ctxner.files.compression import DAMAGE, bounded_lines, decompressed
from ctxner.schema import Sentence

logger = logging.getLogger(__name__)

EMPTY_TOKEN = "_"  # noqa: S105 - a token of text
MAX_WORDS = 50_000  # per sentence, which has to fit into memory
UTF8 = "utf-8"
SURROGATE = re.compile("[\ud800-\udfff]")


_HEAD_BYTES = 1 << 16
_MAX_CHARS = 1 << 26  # of a line in another encoding than UTF-8
_COMPRESSED = {".gz": "gzip", ".zst": "zstd"}


@dataclass
class Remark:
    """How often a reader met one odd thing, and where first."""

    count: int = 0
    places: list[str] = field(default_factory=list)  # file:line, the first few


@dataclass
class ReadCounts:
    """Counts of what a reader has yielded and changed so far.

    Attributes:
        num_sentences: Number of sentences yielded.
        num_repaired_tags: Number of tags changed by `repair`.
        num_empty_tokens: Number of tokens replaced by `empty_token`.
        num_multi_tags: Number of cells with several tags, such as `B-person,B-group`, reduced to one.
        num_comments: Number of comment lines skipped.
        num_empty_texts: Number of JSON lines, Parquet rows and lines of plain text skipped because they have no word.
        recognised: File -> format that its content was recognised as, where no option named it.
        remarks: Odd thing -> how often and where; each was read by a stated rule and may be a fault of the file.
        places: Name of a count -> first places of what it counts.
        places_of_tags: BIOES tag -> place where it stands first, of the first few thousand tags.
    """

    num_sentences: int = 0
    num_repaired_tags: int = 0
    num_empty_tokens: int = 0
    num_multi_tags: int = 0
    num_comments: int = 0
    num_empty_texts: int = 0
    recognised: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, Remark] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)
    places_of_tags: dict[str, str] = field(default_factory=dict, compare=False)

    def count(self, name: str, where: str) -> None:
        """Add one to a count, and keep its first places."""
        setattr(self, name, getattr(self, name) + 1)
        places = self.places.setdefault(name, [])
        if len(places) < _REMARK_PLACES:
            places.append(where)

    def note_tags(self, tags: Sequence[str], place: Callable[[int], str]) -> None:
        """Keep where each of a sentence's tags stands first; `place` names a tag's place by its index."""
        new = set(tags) - self.places_of_tags.keys()
        if new and len(self.places_of_tags) < _MAX_TAGS:
            self.places_of_tags |= {tag: place(tags.index(tag)) for tag in sorted(new, key=tags.index)}

    def remark(self, what: str, where: str) -> None:
        """Count an odd thing that is read by a stated rule, e.g. `tags without prefix`, and keep its first places."""
        remark = self.remarks.setdefault(what, Remark())
        remark.count += 1
        if len(remark.places) < _REMARK_PLACES:
            remark.places.append(where)

    def counted(self, sentences: Iterable[tuple[str, Sentence]]) -> Iterator[Sentence]:
        """Pass on the sentences that have words; count those that have and those that have not.

        Args:
            sentences: Place and sentence.
        """
        for where, sentence in sentences:
            if sentence.words:
                self.num_sentences += 1
                yield sentence
            else:
                self.count("num_empty_texts", where)

    def add(self, other: ReadCounts) -> None:
        """Add the counts of another reader."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name, places in other.places.items():
            self.places[name] = [*self.places.get(name, ()), *places][:_REMARK_PLACES]
        self.places_of_tags = other.places_of_tags | self.places_of_tags
        self.recognised |= other.recognised
        for what, remark in other.remarks.items():
            mine = self.remarks.setdefault(what, Remark())
            mine.count += remark.count
            mine.places = [*mine.places, *remark.places][:_REMARK_PLACES]

    def check(self, path: str | Path, wanted: str) -> None:
        """Log what was changed in a whole file; raise ValueError when it has no sentence."""
        if not self.num_sentences:
            raise ValueError(f"{path}: no sentence in the file; wanted {wanted}")
        counts = {name: count for name in _COUNTS[1:] if (count := getattr(self, name))}
        if counts:
            logger.warning("%s: %d sentences read, with %s", path, self.num_sentences, counts)
        for file, format in self.recognised.items():
            logger.log(logging.DEBUG if _ORDINARY.fullmatch(format) else logging.INFO, "%s: read as %s", file, format)
        for what, remark in self.remarks.items():
            logger.warning("%s: %s: %d times, first %s", path, what, remark.count, remark.places[0])


_COUNTS = tuple(count.name for count in fields(ReadCounts) if count.name.startswith("num_"))
_REMARK_PLACES = 5
_MAX_TAGS = 10_000  # whose places are kept
# What a file's name says already: columns with IOB2, and records in our own forms
_ORDINARY = re.compile(r"(columns|(text|words)( and \w+)? \([\w ]+\))(, IOB2)?")


@dataclass
class ReadResult(ReadCounts):
    """The sentences of one or more files, and the counts of reading them."""

    sentences: list[Sentence] = field(default_factory=list)


def lines_of(path: str | Path, encoding: str = UTF8) -> Iterator[tuple[int, str]]:
    """Numbered lines without their ends, from 1; only LF and CRLF end a line; a byte order mark is dropped.

    Args:
        path: File; `.gz` and `.zst` are decompressed.
        encoding: Python's name of the file's encoding.

    Raises:
        ValueError: NUL, or bytes that the encoding does not have, with file:line and, in UTF-8, the offset (after
            decompression); a line of more than 64 MiB; or a gzip or zstd file that is broken or expands beyond reason.
    """
    return _utf8_lines(path) if codecs.lookup(encoding).name == UTF8 else _encoded_lines(path, encoding)


def check_encoding(name: str) -> str:
    """The name itself; ValueError when Python has no such text encoding."""
    try:
        "".encode(name)
    except LookupError:
        names = "utf-8, cp1252, latin-1, shift_jis, gb18030, utf-16"
        raise ValueError(f"unknown text encoding {name!r}; wanted a name that Python has, such as {names}") from None
    return name


def _encoded_lines(path: str | Path, encoding: str) -> Iterator[tuple[int, str]]:
    """`lines_of` for other encodings than UTF-8: undecodable bytes become surrogates, which no text holds."""
    line_no, suffix = 0, Path(path).suffix.lower()
    with open(path, "rb") as file:
        stream = decompressed(file, suffix) if suffix in _COMPRESSED else file
        try:
            text = io.TextIOWrapper(stream, encoding, errors="surrogateescape", newline="\n")
            for line_no, line in enumerate(iter(partial(text.readline, _MAX_CHARS + 1), ""), 1):
                if len(line) > _MAX_CHARS:
                    raise ValueError(f"{path}:{line_no}: a line of more than {_MAX_CHARS:,} characters; is it a text?")
                if bad := SURROGATE.search(line):
                    byte = ord(bad[0]) & 0xFF
                    raise ValueError(f"{path}:{line_no}: not {encoding}: byte 0x{byte:02x}; give another data.encoding")
                if "\0" in line:
                    raise ValueError(f"{path}:{line_no}: NUL: not a text in {encoding}; give another data.encoding")
                plain = line.removeprefix("\ufeff") if line_no == 1 else line
                yield line_no, plain.removesuffix("\n").removesuffix("\r")
        except UnicodeError as error:
            where = f"{path}: after line {line_no}"
            raise ValueError(f"{where}: not {encoding} ({error}); give another data.encoding") from error
        except DAMAGE as error:
            if suffix not in _COMPRESSED:
                raise
            raise ValueError(_damaged(path, suffix, error)) from error


def _damaged(path: str | Path, suffix: str, error: object) -> str:
    return f"{path}: not a whole {_COMPRESSED[suffix]} file ({error}); fetch it again or drop the {suffix} suffix"


def _utf8_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    offset, suffix = 0, Path(path).suffix.lower()
    with open(path, "rb") as file:
        try:
            stream = decompressed(file, suffix) if suffix in _COMPRESSED else file
            for line_no, raw in bounded_lines(stream, path):
                where = f"{path}:{line_no}"
                if b"\0" in raw:
                    at = offset + raw.index(b"\0")
                    raise ValueError(f"{where}: NUL at byte {at}: the file is binary or UTF-16; wanted UTF-8 text")
                try:
                    line = raw.decode("utf-8-sig" if line_no == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    bad = f"byte 0x{error.object[error.start]:02x} at offset {offset + error.start}"
                    raise ValueError(
                        f"{where}: not UTF-8: {bad}; convert it (iconv -f latin1 -t utf-8), or of a column file or "
                        f"plain text name the encoding (--set data.encoding=cp1252)"
                    ) from error
                offset += len(raw)
                yield line_no, line.removesuffix("\n").removesuffix("\r")
        except DAMAGE as error:
            if suffix not in _COMPRESSED:
                raise
            raise ValueError(_damaged(path, suffix, error)) from error


def head_of(path: str | Path) -> bytes:
    """The first 64 KiB of a file, decompressed; empty where they cannot be read, as `lines_of` will tell."""
    suffix = Path(path).suffix.lower()
    try:
        with open(path, "rb") as file:
            return (decompressed(file, suffix) if suffix in _COMPRESSED else file).read(_HEAD_BYTES)
    except DAMAGE:
        return b""


def unwrapped(text: str) -> str:
    """The text with spaces in place of the line breaks within paragraphs; each character stays at its place."""
    lines = text.split("\n")
    parts = [lines[0]]
    for before, line in pairwise(lines):
        if before.strip() and line.strip():
            parts[-1] = f"{before[:-1]} " if before.endswith("\r") else before
            parts += [" ", line]
        else:
            parts += ["\n", line]
    return "".join(parts)


def write_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Write lines as UTF-8, all or nothing; `.gz` and `.zst` compress.

    Raises:
        ValueError: A line holds a lone surrogate, which UTF-8 cannot express. An older file stays as it was.
    """
    path = Path(path)
    with new_file(path) as aside, _compressing(aside, path.suffix.lower()) as file:
        for number, line in enumerate(lines):
            if SURROGATE.search(line):
                raise ValueError(f"{path}: cannot write {line!r}: it holds a lone surrogate; replace it by U+FFFD")
            mark = "\ufeff" if number == 0 and line.startswith("\ufeff") else ""  # a reader drops the first one
            file.write(f"{mark}{line}\n".encode())


def _compressing(path: Path, suffix: str) -> IO[bytes]:
    if suffix == ".gz":
        return gzip.open(path, "wb")  # type: ignore[return-value]
    if suffix == ".zst":
        import pyarrow as pa

        return pa.output_stream(str(path), compression="zstd")
    return open(path, "wb")


def bare_name(path: str | Path) -> tuple[str, str]:
    """Stem and lower-case suffix of a path without `.gz` and `.zst`; in the stem, what is not UTF-8 becomes U+FFFD."""
    whole = Path(path)
    bare = Path(whole.stem) if whole.suffix.lower() in _COMPRESSED else whole
    return SURROGATE.sub("\ufffd", bare.stem), bare.suffix.lower()
