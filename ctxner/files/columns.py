"""Reading and writing column files: one word with its tag per line, a blank line after each sentence.

The layout and the tag scheme are recognised from the file (`ctxner.files.layouts`, `ctxner.files.tags`). Tags become
BIOES on reading. Errors name `file:line`. Changes that a reader makes are counted in its result and logged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ctxner.files.blocks import Block, BlockReader
from ctxner.files.gold import Overlaps, place_on_words
from ctxner.files.layouts import DOCUMENT_START, Layout, cells_of, head_lines, recognise
from ctxner.files.lines import (
    EMPTY_TOKEN,
    UTF8,
    ReadCounts,
    bare_name,
    check_encoding,
    write_lines,
)
from ctxner.files.records import visible_words
from ctxner.files.tags import AUTO, FileTags, file_scheme
from ctxner.files.unique_ids import IdHashes, refuse_repeats
from ctxner.schema import Sentence, Span
from ctxner.schemes import convert, tags_to_spans

_NOT_COLUMNS = "write JSON lines, which hold it (`--to jsonl`; in Python, write_jsonl)"


@dataclass(frozen=True)
class ColumnFormat:
    """How a column file is laid out.

    A line with a tab is split at each tab, so a token may be empty or hold spaces; other lines are split at runs of
    spaces. No other character parts columns, and only LF and CRLF part lines.

    Attributes:
        token_column: Index of the words' column; a negative one counts from the right, as in Python. 0 is the layout's
            column of words, where the file shows another layout than plain columns (`ctxner.files.layouts`).
        tag_column: Index of the tags' column; -1 is the layout's column of tags, None reads no tags.
        scheme: Tag scheme that the file must have, one of `ctxner.schemes.SCHEMES`; `auto` recognises it.
        comment_prefix: Beginning of comments, whose blank may be a tab. A line is skipped when it begins so and stands
            before the first word of a sentence, unless it has the columns and the tag of a word: `#Monday` and
            `#<tab>O` are words. None when the file has no comments.
        repair: Whether illegal tag sequences are read by conlleval's rules and counted, instead of refused.
        empty_token: Word in place of an empty or blank token, so that words and tags stay aligned. CoNLL-U writes `_`
            there too, and every tokenizer has a piece for it.
        labels: Tags that numbers stand for, in order, in JSON, Parquet and Arrow files; column files do not use it.
        encoding: Python's name of the file's encoding.
        wrapped: Whether a line break within a paragraph is a space, in brat's texts and documents that are files.
        overlaps: Treatment of overlapping and nested mentions (`ctxner.files.records.text_sentences`).
    """

    token_column: int = 0
    tag_column: int | None = -1
    scheme: str = AUTO
    comment_prefix: str | None = "# "
    repair: bool = False
    empty_token: str = EMPTY_TOKEN
    labels: tuple[str, ...] | None = None
    encoding: str = UTF8
    overlaps: Overlaps = "longest"
    wrapped: bool = False

    def __post_init__(self) -> None:
        file_scheme(self.scheme)
        check_encoding(self.encoding)
        if self.tag_column == self.token_column:
            raise ValueError(
                f"token and tag column are both {self.token_column}; --set data.tag_column=N names another column, "
                "counted from 0 (-1 is the last)"
            )
        if not self.empty_token.strip():
            raise ValueError(f"empty_token {self.empty_token!r} is blank itself; give a visible one, e.g. '_'")


def iter_columns(
    path: str | Path, format: ColumnFormat, *, id_prefix: str | None = None, counts: ReadCounts | None = None
) -> Iterator[Sentence]:
    """Read a column file: one word per line, a blank line between sentences; ids are `{id_prefix}-{n}` from 0.

    Other layouts are recognised from the first lines (`ctxner.files.layouts`), tag schemes from the whole file, which
    is then read twice. Where the words are numbered, `# sent_id` gives ids. `-DOCSTART-`, `# newdoc` and `#begin
    document` begin a document; those without a name are `{id_prefix}-document-{n}` from 0. Sentences before the first
    such line have none. Of a cell with several tags, the tag that continues the mention before it is taken, else the
    first that is not O. Lines of multiword tokens (1-2) and empty nodes (1.1) are left out. Of nested mentions, in
    brackets or further columns of tags, the longest becomes tags and the others are beyond them, as in texts; their
    sentence has the text of its words joined by blanks.

    Args:
        path: File; `.gz` and `.zst` are decompressed.
        format: Layout of the file.
        id_prefix: Beginning of the ids; None for the file's name without suffixes.
        counts: Fresh counters to add to; complete when the iterator ends.

    Raises:
        ValueError: Text in another encoding, lines parted by CR alone, a missing or surplus column, a malformed tag, an
            illegal sequence (unless `format.repair`), or overlapping mentions though they are refused, with file:line;
            at the end, an id used twice, or no sentence.
    """
    prefix, counts = id_prefix or bare_name(path)[0], ReadCounts() if counts is None else counts
    reader = _reader(path, format, prefix)
    tags, ids = _file_tags(reader, format), IdHashes()
    nested = _nested(reader) if tags else None
    _note(reader, format, tags, counts)

    def block_id(number: int, block: Block) -> str:
        return block.id or f"{prefix}-{number}"

    for number, block in enumerate(reader.blocks(counts)):
        tokens = [cells[reader.layout.token_column] for cells in block.rows]
        words = visible_words(tokens, format.empty_token, counts, block.place)
        bioes = tags.bioes(reader.raw_tags(block, counts), block.place, counts) if tags else None
        counts.num_sentences += 1
        if reader.layout.numbered:
            ids.add(block_id(number, block))
        sentence = Sentence(block_id(number, block), words, bioes, document=block.document)
        inner = nested(block) if nested else []
        yield _with_nested(sentence, inner, block.place(inner[0].start), format, counts) if inner else sentence
    again = enumerate(reader.blocks(ReadCounts()))
    refuse_repeats(ids, ((block.place(0), block_id(number, block)) for number, block in again))
    counts.check(path, "one word with its columns per line, and a blank line after each sentence")


def write_columns(sentences: Iterable[Sentence], path: str | Path, *, scheme: str = "IOB2") -> None:
    """Write `word<tab>tag` lines (words alone where untagged) that reading gives back.

    Ids and documents are not written. The file is written all or nothing. `.gz` and `.zst` compress.

    Raises:
        ValueError: A sentence has no words or mentions that tags cannot express, or a word would be read back
            differently (tab, line break, blank, `-DOCSTART-`); `write_jsonl` takes these.
    """
    write_lines(path, (line for sentence in sentences for line in (*column_lines(sentence, scheme), "")))


def _reader(path: str | Path, format: ColumnFormat, prefix: str) -> BlockReader:
    """A reader in the recognised layout, with the columns that the format names."""
    tagged, tag_column = format.tag_column is not None, -1 if format.tag_column is None else format.tag_column
    layout = recognise(head_lines(path, format.encoding), tag_column)
    if tag_column not in (-1, layout.tag_column):
        layout = replace(layout, tag_column=tag_column, tags="plain")
    if tag_column != -1:  # the column that is asked for, and no other
        layout = replace(layout, nested=())
    layout = replace(layout, token_column=format.token_column or layout.token_column)
    least = max(layout.token_column, layout.tag_column, int(tagged)) + 1
    layout = replace(layout, num_columns=layout.num_columns and max(layout.num_columns, least))
    from_right = tag_column < -1 or format.token_column < 0  # where blank cells count too
    return BlockReader(
        path, layout, prefix, format.encoding, format.comment_prefix, tagged=tagged, trims=not from_right
    )


def _file_tags(reader: BlockReader, format: ColumnFormat) -> FileTags | None:
    """What reads the file's tags; None where it has none, or none are wanted."""
    if format.tag_column is None or (reader.layout.tags == "misc" and not reader.has_misc_tags()):
        return None

    def sentences() -> Iterator[Sequence[str]]:
        unused = ReadCounts()
        return (reader.raw_tags(block, unused) for block in reader.blocks(unused))

    return FileTags(sentences, file_scheme(format.scheme), repair=format.repair)


def _nested(reader: BlockReader) -> Callable[[Block], list[Span]]:
    """What reads the mentions inside others: those in brackets, and those of further columns, by conlleval's rules."""

    def rows(column: int, block: Block) -> list[str]:
        return [row[column].strip() if column < len(row) else "O" for row in block.rows]

    def sentences(column: int) -> Iterator[list[str]]:
        return (rows(column, block) for block in reader.blocks(ReadCounts()))

    columns = {column: FileTags(partial(sentences, column), repair=True) for column in reader.layout.nested}

    def mentions(block: Block) -> list[Span]:
        spans = set(reader.nested_in_brackets(block))
        for column, tags in columns.items():
            if any(tag not in ("O", "o") for tag in rows(column, block)):
                spans.update(tags_to_spans(tags.bioes(rows(column, block), block.place, ReadCounts())))
        return sorted(spans)

    return mentions


def _with_nested(
    sentence: Sentence, inner: Sequence[Span], where: str, format: ColumnFormat, counts: ReadCounts
) -> Sentence:
    """The sentence with mentions that overlap those of its tags; the longest are tags."""
    spans = *tags_to_spans(sentence.tags or ()), *inner
    (tags, beyond), offsets, text = place_on_words(
        sentence.words, spans, where, overlaps=format.overlaps, counts=counts
    )
    return replace(sentence, tags=tags, beyond_tags=beyond, offsets=offsets, text=text) if beyond else sentence


def _note(reader: BlockReader, format: ColumnFormat, tags: FileTags | None, counts: ReadCounts) -> None:
    """Say what the file was recognised as, where no option named it."""
    name = reader.layout.name
    if tags is not None and file_scheme(format.scheme) == AUTO:
        counts.recognised[str(reader.path)] = f"{name}, {tags.name}"
    elif name != Layout.name:
        without = tags is None and format.tag_column is not None
        counts.recognised[str(reader.path)] = f"{name}, no tags (no name= in MISC)" if without else name


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
            f"a word, goes on in another sentence, or overlaps another; {_NOT_COLUMNS}"
        )
    rows = [[word] for word in sentence.words]
    if sentence.tags is not None:
        tags = convert(sentence.tags, "BIOES", scheme)
        rows = [[word, tag] for word, tag in zip(sentence.words, tags, strict=True)]
    for index, row in enumerate(rows):
        line, word = "\t".join(row), row[0]
        if not word.strip() or word == DOCUMENT_START or cells_of(line) != row or re.search(r"[\n\0]|\r$", line):
            raise ValueError(
                f"sentence {sentence.id!r}: word {index} {word!r} would be read back differently from a column file; "
                f"replace it, or {_NOT_COLUMNS}"
            )
    return ["\t".join(row) for row in rows]
