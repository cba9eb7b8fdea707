"""Reading plain text with one unlabelled sentence per line; `ctxner.files.words` splits the words.

A line is never split into several sentences, as a JSON line or a Parquet row is not. For running text there is
`ctxner.files.words.split_sentences`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ctxner.files.lines import UTF8, ReadCounts, bare_name, lines_of
from ctxner.files.records import text_sentence
from ctxner.schema import Sentence


def iter_text(
    path: str | Path, *, encoding: str = UTF8, id_prefix: str | None = None, counts: ReadCounts | None = None
) -> Iterator[Sentence]:
    """Read plain text, one sentence per line; ids are `{id_prefix}-{n}` from 0, blank lines not counted.

    Args:
        path: File; `.gz` and `.zst` are decompressed.
        encoding: Python's name of the file's encoding.
        id_prefix: Beginning of the ids; None for the file's name without suffixes.
        counts: Fresh counters to add to; complete when the iterator ends. A line without words is skipped and counted.

    Raises:
        ValueError: A line in another encoding, with file:line; at the end, no sentence in the file.
    """
    prefix, counts = id_prefix or bare_name(path)[0], ReadCounts() if counts is None else counts
    lines = ((line_no, line) for line_no, line in lines_of(path, encoding) if line.strip())
    yield from counts.counted(
        text_sentence(f"{prefix}-{number}", {"text": line}, f"{path}:{line_no}")
        for number, (line_no, line) in enumerate(lines)
    )
    counts.check(path, "a sentence on each line")
