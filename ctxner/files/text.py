"""Reading plain text with one unlabelled text per line, split into sentences and words as any other text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ctxner.files.lines import UTF8, ReadCounts, bare_name, lines_of
from ctxner.files.records import text_sentences
from ctxner.schema import Sentence


def iter_text(
    path: str | Path, *, encoding: str = UTF8, id_prefix: str | None = None, counts: ReadCounts | None = None
) -> Iterator[Sentence]:
    """Read plain text, one text per line; each line is a document of its own.

    Its id is `{id_prefix}-{n}` from 0, blank lines not counted; it is the id of its only sentence, or the beginning of
    those of several (`ctxner.files.records.text_sentences`).

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
    for number, (line_no, line) in enumerate(lines):
        sentences = text_sentences(f"{prefix}-{number}", {"text": line}, f"{path}:{line_no}")
        if not sentences:
            counts.count("num_empty_texts", f"{path}:{line_no}")
        yield from counts.counted((f"{path}:{line_no}", sentence) for sentence in sentences)
    counts.check(path, "a text on each line")
