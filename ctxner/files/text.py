"""Plain text with one sentence a line, unlabelled; words are split by `ctxner.files.words`.

A line is not split into sentences: whoever wrote one sentence a line has decided that already, and for JSON lines and
Parquet rows it is the same. `ctxner.files.words.split_sentences` splits running text.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ctxner.files.lines import ReadCounts, bare_name, lines_of
from ctxner.files.records import text_sentence
from ctxner.schema import Sentence


def iter_text(
    path: str | Path, *, id_prefix: str | None = None, counts: ReadCounts | None = None
) -> Iterator[Sentence]:
    """Read plain text, one sentence a line; ids are `{id_prefix}-{n}` from 0, blank lines not counted.

    Args:
        path: The file; `.gz` and `.zst` are decompressed.
        id_prefix: Default: the file's name without suffixes.
        counts: Where to count; fresh, and complete when the iterator ends. A line without words is skipped and counted.

    Raises:
        ValueError: With file:line: not UTF-8; at the end: no sentence in the file.
    """
    prefix, counts = id_prefix or bare_name(path)[0], ReadCounts() if counts is None else counts
    lines = ((line_no, line) for line_no, line in lines_of(path) if line.strip())
    yield from counts.counted(
        text_sentence(f"{prefix}-{number}", {"text": line}, f"{path}:{line_no}")
        for number, (line_no, line) in enumerate(lines)
    )
    counts.check(path, "a sentence on each line")
