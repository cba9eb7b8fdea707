"""Reading the lines of a column file as blocks of cells: one block per sentence, in the layout of the file.

`ctxner.files.layouts` recognises the layout, `ctxner.files.columns` makes sentences of the blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctxner.files.layouts import (
    DOCUMENT_START,
    Layout,
    bracket_tags,
    cells_of,
    document_of,
    is_no_word,
    misc_tag,
    sentence_id_of,
)
from ctxner.files.lines import MAX_WORDS, ReadCounts, lines_of
from ctxner.schema import Span

_LONG_SENTENCE = 1000  # words; in a file of one sentence, blank lines are missing


@dataclass
class Block:
    """The lines of one sentence, as cells, with the document and the id that the lines before it give.

    Attributes:
        path: File of the sentence.
        document: Id of the document; None where the file has not begun any.
        id: Id that a comment gives; None where none does.
        line_nos: Number of each word's line, from 1.
        rows: Cells of each word.
    """

    path: str | Path
    document: str | None = None
    id: str | None = None
    line_nos: list[int] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)

    def place(self, index: int) -> str:
        """A word's file:line."""
        return f"{self.path}:{self.line_nos[index]}"


@dataclass(frozen=True)
class BlockReader:
    """How the blocks of a file are read, as often as needed.

    Attributes:
        path: File; `.gz` and `.zst` are decompressed.
        layout: Layout of the file.
        prefix: Beginning of the ids of documents that the file does not name.
        encoding: Encoding of the file.
        comment_prefix: Beginning of comments; None when the file has none.
        tagged: Whether each line must have the column of tags.
        trims: Whether blank cells after the layout's columns are dropped.
    """

    path: str | Path
    layout: Layout
    prefix: str
    encoding: str
    comment_prefix: str | None
    tagged: bool
    trims: bool = True

    def blocks(self, counts: ReadCounts) -> Iterator[Block]:
        """The sentences of the file in order; comments and odd things are counted."""
        block, num_documents, parted, layout = Block(self.path), 0, False, self.layout
        for line_no, line in lines_of(self.path, self.encoding):
            cells = cells_of(line)
            begins = DOCUMENT_START in cells
            if begins or not line.strip():
                if block.rows:
                    yield self._checked(block, counts, parted=True)
                    block, parted = Block(self.path, block.document), True
                given: str | None = "" if begins else None
            elif line[0] == "#" and (layout.numbered or not block.rows) and self._is_comment(line, cells):
                counts.count("num_comments", f"{self.path}:{line_no}")
                given = document_of(line)
                block.id = (sentence_id_of(line) if layout.numbered else None) or block.id
            elif layout.sentence_per_line:
                for word in filter(None, line.split(" ")):
                    self._add(word.rsplit(layout.separator, layout.num_columns - 1), line_no, block)
                yield self._checked(block, counts, parted=True)
                block = Block(self.path, block.document)
                continue
            elif layout.numbered and is_no_word(cells[0]):
                self._remark_left_out(cells, f"{self.path}:{line_no}", counts)
                continue
            else:
                if layout.separator:
                    cells = line.strip(" ").rsplit(layout.separator, layout.num_columns - 1)
                self._add(cells, line_no, block)
                continue
            if given is not None:
                block.document = given or f"{self.prefix}-document-{num_documents}"
                num_documents += not given
        if block.rows:
            yield self._checked(block, counts, parted=parted)

    def raw_tags(self, block: Block, counts: ReadCounts) -> list[str]:
        """One tag per word as the file has them, of nested mentions the outer; nested columns are remarked."""
        layout = self.layout
        cells = [row[layout.tag_column].strip() for row in block.rows]
        for other in layout.nested:
            rest = (row[other:] for row in block.rows)
            index = next((n for n, row in enumerate(rest) if row and row[0].strip() not in ("O", "o")), None)
            if index is not None:
                what = (
                    f"nested mentions in column {other} (--set data.tag_column={other} reads it alone, "
                    f"{layout.tag_column} the outer ones alone)"
                )
                counts.remark(what, block.place(index))
        if layout.tags == "misc":
            return [misc_tag(cell) or "O" for cell in cells]
        if layout.tags == "brackets":
            return _from_brackets(cells, block)[0]
        return _single_tags(cells, block, counts)

    def nested_in_brackets(self, block: Block) -> list[Span]:
        """The mentions inside others that brackets give; none in other layouts."""
        if self.layout.tags != "brackets" or not self.tagged:
            return []
        return _from_brackets([row[self.layout.tag_column].strip() for row in block.rows], block)[1]

    def has_misc_tags(self) -> bool:
        """Whether any word of a file in CoNLL-U has a tag in MISC."""
        try:
            return any(
                misc_tag(cells[self.layout.tag_column]) is not None
                for block in self.blocks(ReadCounts())
                for cells in block.rows
            )
        except ValueError:  # the reader meets it again, after the sentences before it
            return True

    def _is_comment(self, line: str, cells: Sequence[str]) -> bool:
        """Whether a line before a sentence's first word is a comment; `#Monday` and `# x<tab>O` are words."""
        if self.comment_prefix is None or not line.startswith(bare := self.comment_prefix.rstrip()):
            return False
        if self.layout.numbered:
            return True
        if not line.startswith((self.comment_prefix, bare + "\t", "#begin document", "#end document")):
            return False
        if len(cells) != self.layout.num_columns:
            return True
        is_word = self.layout.is_tag(cells[self.layout.tag_column].strip()) if self.layout.certain else "\t" in line
        return not is_word

    def _add(self, cells: list[str], line_no: int, block: Block) -> None:
        """Add a word's line to its sentence."""
        width, rows = self.layout.num_columns if self.trims else 0, block.rows
        while width and len(cells) > width and not cells[-1].strip():
            cells.pop()
        if not rows or len(cells) != len(rows[0]):
            self._check_columns(cells, rows[0] if rows else cells, f"{self.path}:{line_no}")
        rows.append(cells)
        block.line_nos.append(line_no)
        if len(rows) > MAX_WORDS:
            raise ValueError(_without_blank_lines(block))

    def _check_columns(self, cells: list[str], first: list[str], where: str) -> None:
        columns = [self.layout.token_column] + ([self.layout.tag_column] if self.tagged else [])
        places = {column % len(cells) for column in columns if -len(cells) <= column < len(cells)}
        if len(places) < len(columns):
            names = f"token column {self.layout.token_column} and tag column {self.layout.tag_column}"
            raise ValueError(
                f"{where}: {len(cells)} columns in {cells}, too few for {names}; an empty token needs tabs between "
                f"columns, and a file without tags is read only by `ctxner tag` and `ctxner retrieve FILES`"
            )
        if len(cells) != len(first):
            raise ValueError(
                f"{where}: {len(cells)} columns in {cells}, but {len(first)} in the sentence's first line {first}; "
                f"make them equal (tabs if tokens hold spaces)"
            )

    def _checked(self, block: Block, counts: ReadCounts, *, parted: bool) -> Block:
        if len(block.rows) > _LONG_SENTENCE:
            if not parted:
                raise ValueError(_without_blank_lines(block))
            counts.remark(f"sentence of more than {_LONG_SENTENCE} words", block.place(0))
        return block

    def _remark_left_out(self, cells: Sequence[str], where: str, counts: ReadCounts) -> None:
        kind = "multiword tokens (1-2): their words are read" if "-" in cells[0] else "empty nodes (1.1): left out"
        counts.remark(kind, where)
        tag = misc_tag(cells[-1]) if self.layout.tags == "misc" else None
        if tag not in (None, "O"):
            counts.remark("mentions on lines of multiword tokens or empty nodes: not read", where)


def _without_blank_lines(block: Block) -> str:
    return (
        f"{block.place(0)}: {len(block.rows)} words without a blank line; wanted one after each sentence, e.g. after "
        f'each full stop: awk \'{{print}} $1 == "." {{print ""}}\' {block.path} > parted.conll'
    )


def _from_brackets(cells: Sequence[str], block: Block) -> tuple[list[str], list[Span]]:
    try:
        return bracket_tags(cells)
    except ValueError as error:
        raise ValueError(f"{block.place(error.args[0])}: {error.args[1]}") from error


def _single_tags(cells: Sequence[str], block: Block, counts: ReadCounts) -> list[str]:
    if not any("," in cell for cell in cells):
        return list(cells)
    tags: list[str] = []
    for index, cell in enumerate(cells):
        parts = [part.strip() for part in cell.split(",")]
        if len(parts) > 1 and all(part == "O" or part[1:2] == "-" for part in parts):
            counts.count("num_multi_tags", block.place(index))
            mention = tags[-1][2:] if tags else ""
            continuing = [part for part in parts if mention and part[0] in "IME" and part[2:] == mention]
            cell = next((part for part in continuing + parts if part != "O"), "O")
        tags.append(cell)
    return tags
