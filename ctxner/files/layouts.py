"""Recognising how a column file is laid out, from its first lines, and reading the cells that some layouts have.

Layouts: columns (CoNLL-2003, WNUT-17, Label Studio's export), numbered columns (GermEval 2014, UNER), CoNLL-U (NorNE),
CoNLL-2012 (OntoNotes) and `word|TAG` (WikiNER). `ctxner.files.columns` reads the file with the layout.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ctxner.files.lines import head_of
from ctxner.files.tags import looks_like_tag
from ctxner.schema import Span

DOCUMENT_START = "-DOCSTART-"
NAME_KEYS = ("name", "ner", "ne")  # of NorNE and others, in CoNLL-U's column MISC; any case
_HEAD_LINES = 1000
_CONLL_U_COLUMNS = 10
_ENTITY_COLUMN = 10  # of CoNLL-2012
_BEGIN = re.compile(r"#begin document \(?(.*?)\)?(?:; *part +\d+)?\s*")
_BRACKET = r"\([^()*|]+|\*|\)"
_BRACKETS = re.compile(rf"(?:{_BRACKET})+")

_Rows = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Layout:
    """Where a file has its words and tags.

    Attributes:
        name: Name of the layout, for people.
        token_column: Index of the words' column.
        tag_column: Index of the tags' column; in CoNLL-U without plain tags there, that of MISC.
        num_columns: Number of columns; blank cells after them are dropped. 0 where it differs between sentences.
        tags: Form of the tags: plain, brackets (`(PER*`, `*)`), or the value of a key of MISC.
        numbered: Whether a column numbers the words, so that a line that begins with `#` is a comment, wherever it is.
        nested: Further columns of tags, for nested mentions.
        separator: Character between the columns of a word, if not tab or space.
        sentence_per_line: Whether a line holds a sentence, with a space between words.
        certain: Whether the lines show more than any text in columns does: tags, or the numbers of words.
    """

    name: str = "columns"
    token_column: int = 0
    tag_column: int = -1
    num_columns: int = 0
    tags: Literal["plain", "brackets", "misc"] = "plain"
    numbered: bool = False
    nested: tuple[int, ...] = ()
    separator: str | None = None
    sentence_per_line: bool = False
    certain: bool = False

    def is_tag(self, cell: str) -> bool:
        """Whether a cell looks like a tag, bracketed or plain."""
        return bool(_BRACKETS.fullmatch(cell)) if self.tags == "brackets" else looks_like_tag(cell)


def recognise(lines: Sequence[str], tag_column: int = -1) -> Layout:
    """The layout of a file that begins with these lines; `tag_column` is where plain columns have their tags."""
    marks = [line.startswith("#") for line in lines]
    inked = [line for line in lines if line.strip()]
    comments = not all(line.startswith("#") for line in inked)  # else the words are hashes
    sentences = list(_sentences(line for line, mark in zip(lines, marks, strict=True) if not (mark and comments)))
    if not sentences:
        return Layout()
    rows = [cells for sentence in sentences for cells in sentence]
    begins = any(map(_BEGIN.fullmatch, lines))
    return _conll_2012(rows, begins) or _numbered(sentences) or _piped(lines) or _plain(rows, tag_column)


def head_lines(path: str | Path, encoding: str) -> list[str]:
    """The first lines of a file; of a file with longer lines, the beginning of the first.

    Raises:
        ValueError: The file parts its lines by CR alone.
    """
    text = head_of(path).decode(encoding, "replace").removeprefix("\ufeff")
    lines = [line.removesuffix("\r") for line in text.split("\n", _HEAD_LINES)]
    if len(lines) - (not lines[-1]) == 1 and "\r" in lines[0]:
        raise ValueError(
            f"{path}:1: lines end in CR alone, as on old Macs; wanted LF or CRLF: tr '\\r' '\\n' < {path} > converted"
        )
    return lines[:-1] or lines if lines[-1] else lines


def looks_like_columns(path: str | Path) -> bool:
    """Whether the beginning of a file shows words and tags in columns, whatever the file's name and encoding.

    Raises:
        ValueError: A binary file.
    """
    if b"\0" in head_of(path):
        raise ValueError(f"{path}: NUL: the file is binary or UTF-16; wanted words and tags in columns, as UTF-8 text")
    return recognise(head_lines(path, "latin-1")).certain


def cells_of(line: str) -> list[str]:
    """The columns of a line: parted by each tab, or in a line without tabs by runs of spaces."""
    if "\t" in line:
        return line.split("\t")
    cells = line.split(" ")
    return [cell for cell in cells if cell] if "" in cells else cells


def document_of(comment: str) -> str | None:
    """The document that a comment begins, "" when it gives no id; None for other comments."""
    begin = _BEGIN.fullmatch(comment)
    if begin:
        return begin[1]
    key, _, value = comment.lstrip("# ").partition("=")
    return value.strip() if key.strip() in ("newdoc id", "newdoc") else None


def sentence_id_of(comment: str) -> str | None:
    """The sentence's id that a comment of CoNLL-U gives; None for other comments."""
    key, _, value = comment.lstrip("# ").partition("=")
    return value.strip() or None if key.strip() == "sent_id" else None


def misc_tag(cell: str) -> str | None:
    """The tag in a cell of CoNLL-U's column MISC, such as `SpaceAfter=No|name=B-PER`; None when it has none."""
    for feature in cell.split("|"):
        key, equals, value = feature.partition("=")
        if equals and key.strip().lower() in NAME_KEYS:
            return value.strip()
    return None


def bracket_tags(cells: Sequence[str]) -> tuple[list[str], list[Span]]:
    """IOB2 tags of bracketed cells such as `(PERSON*`, `*`, `*)`, `(GPE)`, `(ORG(GPE)`; of nested mentions, the outer.

    Returns:
        The tags, and the mentions inside others.

    Raises:
        ValueError: A cell of another form, or a bracket without its other half; the first argument is the word's
            index, the second says what is wrong.
    """
    tags, open_at, nested = [], list[tuple[int, str]](), list[Span]()  # open: first word and type, the outer first
    for index, cell in enumerate(cells):
        if _BRACKETS.fullmatch(cell) is None:
            raise ValueError(index, f"{cell!r} is not a bracketed tag; wanted *, (TYPE*, *) or (TYPE)")
        opening = [part[1:] for part in re.findall(_BRACKET, cell) if part[0] == "("]
        tags.append(f"I-{open_at[0][1]}" if open_at else f"B-{opening[0]}" if opening else "O")
        open_at += [(index, type) for type in opening]
        for _ in range(cell.count(")")):
            if not open_at:
                raise ValueError(index, f"{cell!r} closes a bracket that is not open")
            start, type = open_at.pop()
            if open_at:
                nested.append(Span(start, index + 1, type))
    if open_at:
        raise ValueError(len(cells) - 1, f"the bracket ({open_at[-1][1]} is not closed at the end of the sentence")
    return tags, sorted(nested)


def _sentences(lines: Iterable[str]) -> Iterator[list[list[str]]]:
    rows: list[list[str]] = []
    for line in lines:
        cells = cells_of(line)
        if line.strip() and DOCUMENT_START not in cells:
            rows.append(cells)
        elif rows:
            yield rows
            rows = []
    if rows:
        yield rows


def _conll_2012(rows: _Rows, begins: bool) -> Layout | None:
    """Document, part, number of the word, word, ..., entities in the eleventh column, arguments, coreference."""
    if not all(len(row) > _ENTITY_COLUMN and row[1].isdecimal() and row[2].isdecimal() for row in rows):
        return None
    if not begins and not all(_BRACKETS.fullmatch(row[_ENTITY_COLUMN]) for row in rows):
        return None
    return Layout("CoNLL-2012", 3, _ENTITY_COLUMN, tags="brackets", numbered=True, certain=True)


def _numbered(sentences: Sequence[_Rows]) -> Layout | None:
    """Columns whose first numbers the words of each sentence; ten of them are CoNLL-U."""
    rows = [row for sentence in sentences for row in sentence]
    width = _width(rows)
    whole = [row for row in rows if len(row) >= width]
    if width < 3 or not all(map(_counts_words, sentences)):
        return None
    tagged = [n for n in range(2, width) if all(looks_like_tag(row[n].strip()) for row in whole)]
    if width == _CONLL_U_COLUMNS and tagged in ([], [width - 1]):
        form: Literal["plain", "misc"] = "plain" if tagged else "misc"
        return Layout("CoNLL-U", 1, width - 1, width, form, numbered=True, certain=True)
    if len(rows) == len(sentences):  # one-word sentences: a word that is called 1
        return None
    column = tagged[0] if tagged else -1
    return Layout("numbered columns", 1, column, width, numbered=True, nested=tuple(tagged[1:]), certain=bool(tagged))


def _width(rows: _Rows) -> int:
    """The most frequent number of columns, without blank ones at the end; of equally frequent ones the larger."""
    widths = Counter(next((n for n in range(len(row), 0, -1) if row[n - 1].strip()), 1) for row in rows)
    return max(widths, key=lambda width: (widths[width], width))


def _counts_words(rows: _Rows) -> bool:
    numbers = [row[0] for row in rows if row[0].isdecimal()]
    first = int(numbers[0]) if numbers and numbers[0] in ("0", "1") else 1
    others = [row[0] for row in rows if not row[0].isdecimal()]
    return numbers == [str(first + n) for n in range(len(numbers))] and all(map(is_no_word, others))


def is_no_word(number: str) -> bool:
    """Whether a word's number is that of a multiword token (1-2) or an empty node (1.1) in CoNLL-U."""
    return re.fullmatch(r"\d+[-.]\d+", number) is not None


def _piped(lines: Sequence[str]) -> Layout | None:
    """`word|TAG` or `word|POS|TAG`: a sentence on each line, or one word per line and blank lines."""
    parts = [cells_of(line) for line in lines if line.strip() and not line.startswith("#")]
    words = [word for line in parts for word in line if DOCUMENT_START not in line]
    if not words or not all("|" in word and looks_like_tag(word.rpartition("|")[2]) for word in words):
        return None
    return Layout(
        "word|TAG",
        num_columns=min(word.count("|") for word in words) + 1,
        separator="|",
        sentence_per_line=any(len(line) > 1 for line in parts),
        certain=True,
    )


def _plain(rows: _Rows, tag_column: int) -> Layout:
    """Most frequent number of columns, without blank ones at the end, and whether all its tags look like tags."""
    width = _width(rows)
    tags = [row[:width][tag_column].strip() for row in rows if -width <= tag_column < width <= len(row)]
    if width > 1 and tags and all(map(_BRACKETS.fullmatch, tags)) and not all(map(looks_like_tag, tags)):
        return Layout(tag_column=tag_column, num_columns=width, tags="brackets", certain=True)
    certain = width > 1 and bool(tags) and all(looks_like_tag(tag.partition(",")[0]) for tag in tags)
    return Layout(tag_column=tag_column, num_columns=width, certain=certain)
