"""Reading and writing column files: one word with its tag per line, a blank line after each sentence.

Tags become BIOES on reading. Errors name `file:line`. Changes that a reader makes are counted in its result and logged.
`ctxner.files.sentences` reads any format and any number of files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctxner.files.gold import Overlaps
from ctxner.files.lines import (
    EMPTY_TOKEN,
    ReadCounts,
    ReadResult,
    bare_name,
    lines_of,
    write_lines,
)
from ctxner.files.records import file_tags, visible_words
from ctxner.labels import convert, scheme_name
from ctxner.schema import Sentence

_DOCUMENT_START = "-DOCSTART-"


@dataclass(frozen=True)
class ColumnFormat:
    """How a column file is laid out.

    A line with a tab is split at each tab, so a token may be empty or hold spaces; other lines are split at
    white space.

    Attributes:
        token_column: Index of the words' column; a negative one counts from the right, as in Python.
        tag_column: Index of the tags' column; None for a file without tags.
        scheme: Tag scheme of the file; one of `ctxner.labels.SCHEMES`.
        comment_prefix: Beginning of comments. A line is skipped when it begins so, has no tab and stands before the
            first word of a sentence: `#Monday` and `#<tab>O` are words. None when the file has no comments.
        repair: Whether illegal tag sequences are read by conlleval's rules and counted, instead of refused.
        empty_token: Word in place of an empty or blank token, so that words and tags stay aligned. CoNLL-U writes `_`
            there too, and every tokenizer has a piece for it.
        overlaps: Treatment of overlapping mentions in JSON lines and Parquet (`ctxner.files.records.text_sentences`).
    """

    token_column: int = 0
    tag_column: int | None = -1
    scheme: str = "IOB2"
    comment_prefix: str | None = "# "
    repair: bool = False
    empty_token: str = EMPTY_TOKEN
    overlaps: Overlaps = "longest"

    def __post_init__(self) -> None:
        scheme_name(self.scheme)
        if self.tag_column == self.token_column:
            raise ValueError(f"token and tag column are both {self.token_column}; tag_column=None reads no tags")
        if not self.empty_token.strip():
            raise ValueError(f"empty_token {self.empty_token!r} is blank itself; give a visible one, e.g. '_'")


def iter_columns(
    path: str | Path, format: ColumnFormat, *, id_prefix: str | None = None, counts: ReadCounts | None = None
) -> Iterator[Sentence]:
    """Read a column file: one word per line, a blank line between sentences; ids are `{id_prefix}-{n}` from 0.

    A line with `-DOCSTART-` begins a document; documents are `{id_prefix}-document-{n}` from 0. Sentences before the
    first such line have none. Of a cell with several tags, the tag that continues the mention before it is taken, else
    the first that is not O.

    Args:
        path: File; `.gz` and `.zst` are decompressed.
        format: Layout of the file.
        id_prefix: Beginning of the ids; None for the file's name without suffixes.
        counts: Fresh counters to add to; complete when the iterator ends.

    Raises:
        ValueError: Text that is not UTF-8, a missing or surplus column, a malformed tag, or an illegal sequence (unless
            `format.repair`), with file:line; at the end, no sentence in the file.
    """
    prefix, counts = id_prefix or bare_name(path)[0], ReadCounts() if counts is None else counts
    for number, (document_no, rows) in enumerate(_sentence_rows(path, format, counts)):
        words = visible_words([cells[format.token_column] for _, cells in rows], format.empty_token, counts)
        tags = None
        if format.tag_column is not None:
            raw_tags = _single_tags([cells[format.tag_column].strip() for _, cells in rows], counts)
            places = [f"{path}:{line_no}" for line_no, _ in rows]
            tags = file_tags(raw_tags, format.scheme, format.repair, places, counts)
        counts.num_sentences += 1
        document = None if document_no is None else f"{prefix}-document-{document_no}"
        yield Sentence(f"{prefix}-{number}", words, tags, document=document)
    counts.check(path, "one word with its columns per line, and a blank line after each sentence")


def read_columns(path: str | Path, format: ColumnFormat, *, id_prefix: str | None = None) -> ReadResult:
    """All sentences of a column file; see `iter_columns`."""
    result = ReadResult()
    result.sentences += iter_columns(path, format, id_prefix=id_prefix, counts=result)
    return result


def write_columns(sentences: Iterable[Sentence], path: str | Path, *, scheme: str = "IOB2") -> None:
    """Write `word<tab>tag` lines (words alone where untagged) that `read_columns` gives back.

    Ids and documents are not written. The file is written all or nothing. `.gz` and `.zst` compress.

    Raises:
        ValueError: A sentence has no words or mentions that tags cannot express, or a word would be read back
            differently (tab, line break, blank, `-DOCSTART-`); `write_jsonl` takes these.
    """
    write_lines(path, (line for sentence in sentences for line in (*column_lines(sentence, scheme), "")))


def _cells(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else line.split()


def _is_comment(line: str, format: ColumnFormat) -> bool:
    return format.comment_prefix is not None and line.startswith(format.comment_prefix) and "\t" not in line


def _sentence_rows(
    path: str | Path, format: ColumnFormat, counts: ReadCounts
) -> Iterator[tuple[int | None, list[tuple[int, list[str]]]]]:
    """The number of each sentence's document, None before the first `-DOCSTART-`, and its lines as cells."""
    document_no: int | None = None
    rows: list[tuple[int, list[str]]] = []
    for line_no, line in lines_of(path):
        cells = _cells(line)
        if not line.strip() or _DOCUMENT_START in cells:
            if rows:
                yield document_no, rows
            rows = []
            if _DOCUMENT_START in cells:
                document_no = 0 if document_no is None else document_no + 1
        elif not rows and _is_comment(line, format):
            counts.num_comments += 1
        else:
            _check_columns(cells, rows[0][1] if rows else cells, format, f"{path}:{line_no}")
            rows.append((line_no, cells))
    if rows:
        yield document_no, rows


def _check_columns(cells: list[str], first: list[str], format: ColumnFormat, where: str) -> None:
    columns = [format.token_column] + ([] if format.tag_column is None else [format.tag_column])
    places = {column % len(cells) for column in columns if -len(cells) <= column < len(cells)}
    if len(places) < len(columns):
        names = f"token column {format.token_column} and tag column {format.tag_column}"
        raise ValueError(
            f"{where}: {len(cells)} columns in {cells}, too few for {names}; an empty token needs tabs "
            f"between columns, a file without tags tag_column=None"
        )
    if len(cells) != len(first):
        raise ValueError(
            f"{where}: {len(cells)} columns in {cells}, but {len(first)} in the sentence's first line {first}; make "
            f"them equal (tabs if tokens hold spaces)"
        )


def _single_tags(cells: Sequence[str], counts: ReadCounts) -> list[str]:
    tags: list[str] = []
    for cell in cells:
        parts = [part.strip() for part in cell.split(",")]
        if len(parts) > 1 and all(part == "O" or part[1:2] == "-" for part in parts):
            counts.num_multi_tags += 1
            mention = tags[-1][2:] if tags else ""
            continuing = [part for part in parts if mention and part[0] in "IME" and part[2:] == mention]
            cell = next((part for part in continuing + parts if part != "O"), "O")
        tags.append(cell)
    return tags


def column_lines(sentence: Sentence, scheme: str = "IOB2") -> list[str]:
    """The lines of a sentence, without the blank one after it; see `write_columns`.

    Raises:
        ValueError: No words, a mention beyond the tags, or a word that would be read back differently.
    """
    if not sentence.words:
        raise ValueError(f"sentence {sentence.id!r} has no words, which a column file cannot hold; leave it out")
    if sentence.beyond_tags:
        mention = sentence.beyond_tags[0]
        raise ValueError(
            f"sentence {sentence.id!r}: tags cannot express the mention {mention.text!r} ({mention.type}), which cuts "
            "a word, goes on in another sentence, or overlaps another; use write_jsonl"
        )
    rows = [[word] for word in sentence.words]
    if sentence.tags is not None:
        tags = convert(sentence.tags, "BIOES", scheme)
        rows = [[word, tag] for word, tag in zip(sentence.words, tags, strict=True)]
    for index, row in enumerate(rows):
        line, word = "\t".join(row), row[0]
        ambiguous = not word.strip() or word == _DOCUMENT_START or (index == 0 and _is_comment(line, ColumnFormat()))
        if ambiguous or _cells(line) != row or re.search(r"[\n\0]|\r$", line):
            raise ValueError(
                f"sentence {sentence.id!r}: word {index} {word!r} would be read back differently from a column file; "
                f"use write_jsonl, or replace it"
            )
    return ["\t".join(row) for row in rows]
