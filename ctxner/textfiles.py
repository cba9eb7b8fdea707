"""What the readers of sentence files share: numbered lines, writing aside, tags to BIOES, the result and its counts.

Column files are `ctxner.conll`, JSON lines `ctxner.jsonl`.
"""

from __future__ import annotations

import gzip
import logging
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctxner.labels import SCHEMES, convert, first_error, first_malformed, repair
from ctxner.schema import Sentence

logger = logging.getLogger(__name__)

EMPTY_TOKEN = "_"
SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass
class ReadResult:
    """The sentences of a file, and what had to be changed to read them.

    Attributes:
        num_repaired_tags: Tags changed because `repair` was asked for.
        num_empty_tokens: Tokens replaced by `empty_token`.
        num_multi_tags: Cells such as `B-person,B-group` of which one tag was kept.
        num_comments: Comment lines skipped.
        num_empty_texts: JSON lines skipped because their text has no word.
    """

    sentences: list[Sentence] = field(default_factory=list)
    num_repaired_tags: int = 0
    num_empty_tokens: int = 0
    num_multi_tags: int = 0
    num_comments: int = 0
    num_empty_texts: int = 0


def lines_of(path: str | Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without their ends, from 1; only LF and CRLF end a line; a byte order mark is dropped.

    Raises:
        ValueError: With file:line and byte offset (gzip: in the content): NUL, or not UTF-8. A broken gzip file.
    """
    offset = 0
    with gzip.open(path, "rb") if str(path).endswith(".gz") else open(path, "rb") as file:
        try:
            for line_no, raw in enumerate(file, 1):
                where = f"{path}:{line_no}"
                if b"\0" in raw:
                    at = offset + raw.index(b"\0")
                    raise ValueError(f"{where}: NUL at byte {at}: the file is binary or UTF-16; wanted UTF-8 text")
                try:
                    line = raw.decode("utf-8-sig" if line_no == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    bad = f"byte 0x{error.object[error.start]:02x} at offset {offset + error.start}"
                    raise ValueError(
                        f"{where}: not UTF-8: {bad}; convert it (iconv -f latin1 -t utf-8) or give the right file"
                    ) from error
                offset += len(raw)
                yield line_no, line.removesuffix("\n").removesuffix("\r")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"{path}: not a whole gzip file ({error}); fetch it again or drop the .gz suffix"
            ) from error


def write_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Write lines aside, then rename, so that nobody reads half a file; `.gz` compresses.

    Raises:
        ValueError: A line holds a lone surrogate, which UTF-8 cannot express. An older file stays as it was.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.aside")
    try:
        with gzip.open(aside, "wb") if path.suffix == ".gz" else open(aside, "wb") as file:
            for number, line in enumerate(lines):
                if SURROGATE.search(line):
                    raise ValueError(f"{path}: cannot write {line!r}: it holds a lone surrogate; replace it by U+FFFD")
                mark = "\ufeff" if number == 0 and line.startswith("\ufeff") else ""  # a reader drops the first one
                file.write(f"{mark}{line}\n".encode())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def bare_name(path: str | Path) -> tuple[str, str]:
    """Stem and lower-case suffix, both without `.gz`."""
    bare = Path(Path(path).name.removesuffix(".gz"))
    return bare.stem, bare.suffix.lower()


def visible_words(words: Sequence[str], empty_token: str, result: ReadResult) -> tuple[str, ...]:
    """The words with `empty_token` for blank ones, which are counted."""
    visible = tuple(word if word.strip() else empty_token for word in words)
    result.num_empty_tokens += sum(not word.strip() for word in words)
    return visible


def file_tags(
    tags: Sequence[str], scheme: str, repairing: bool, places: Sequence[str], result: ReadResult
) -> tuple[str, ...]:
    """A file's tags as BIOES: checked, or repaired if asked (counted); `places` gives file:line of each word."""
    error = (first_malformed if repairing else first_error)(tags, scheme)
    if error is not None:
        index, message = error
        fitting = [name for name in SCHEMES if first_error(tags, name) is None]
        if fitting:
            hint = f"the sentence is legal {' and '.join(fitting)}: set the scheme"
        elif first_malformed(tags, scheme) is None:
            hint = "no scheme allows the sentence: repair=True reads it by conlleval's rules and counts the changes"
        else:
            hint = "is this the tag column?"
        raise ValueError(f"{places[index]}: {message}; {hint}")
    if repairing:
        tags, num_changed = repair(tags, scheme)
        result.num_repaired_tags += num_changed
    return convert(tags, scheme, "BIOES")


def checked(result: ReadResult, path: str | Path, wanted: str) -> ReadResult:
    """The result, its changes logged; ValueError when it has no sentence."""
    if not result.sentences:
        raise ValueError(f"{path}: no sentence in the file; wanted {wanted}")
    counts = {name: count for name, count in vars(result).items() if name != "sentences" and count}
    if counts:
        logger.warning("%s: %d sentences read, with %s", path, len(result.sentences), counts)
    return result
