"""Reading documents to tag from files of any format, and cutting long documents into parts between sentences.

A document is a text, or one sentence that is already split into words. Gold tags are ignored;
`ctxner.files.sentences` reads them. `ctxner.texts` splits the parts into sentences.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ctxner.files.abbreviations import definitions_in, latest
from ctxner.files.columns import ColumnFormat, iter_columns
from ctxner.files.compression import DAMAGE, decompressed
from ctxner.files.forms.form import Reading
from ctxner.files.lines import ReadCounts, lines_of, unwrapped
from ctxner.files.paths import Kind, kind_of, refuse_txt, sentence_files
from ctxner.files.record_files import records_of
from ctxner.files.records import Record, record_text, words_sentence
from ctxner.files.words import split_sentences

logger = logging.getLogger(__name__)

DocumentKind = Kind | Literal["files"]
_Bounds = tuple[tuple[int, int], ...]
MAX_CHARS = 1 << 26  # per document: its row has to fit into memory several times
PART_CHARS = 4000  # per part: some thirty sentences


@dataclass(frozen=True, slots=True)
class Document:
    """A text to tag.

    Attributes:
        id: Id that the file gives, or the file's name and a number; need not be unique.
        text: Text that character offsets refer to; for words without a text of their own, the words joined by spaces.
        words: Words of a document that is one sentence, already split; else None.
        offsets: (start, end) of each of `words` in `text`, where the file gives both; else None.
    """

    id: str
    text: str
    words: tuple[str, ...] | None = None
    offsets: _Bounds | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a document; the parts of a document joined are its text.

    Attributes:
        start: Index of the first character in the document.
        text: Text of the part.
        bounds: (start, end) of each sentence in `text`, when cutting has already found the sentences; else None.
        abbreviations: Short and long forms of the abbreviations that the document defines before this part.
    """

    start: int
    text: str
    bounds: _Bounds | None = None
    abbreviations: tuple[tuple[str, str], ...] = ()


_TXT = {"text": "one document per line", "files": "one document per file", "columns": "words in columns"}


def iter_documents(
    paths: str | Path | Sequence[str | Path],
    kind: DocumentKind | None = None,
    *,
    format: ColumnFormat | None = None,
    on_error: Callable[[Path, Exception], None] | None = None,
) -> Iterator[Document]:
    """Read documents from files one after the other, in order; memory does not grow with them.

    Lone surrogates become U+FFFD (offsets stay). Blank lines are no documents; texts without words are.

    Args:
        paths: Files, folders and patterns, as `ctxner.files.sentences.iter_sentences` takes them.
        kind: Format of all files. Records (JSON, Parquet and others) have `text` or `words` per document (of both,
            `words` count), `columns` one sentence per document, `text` one document per line, `files` one document per
            file. None: the suffix decides, and `.txt` is refused because three formats use it, unless brat's `.ann`
            lies beside it.
        format: Layout of column files, whose tag column is ignored, and encoding of these and of plain text.
        on_error: Called with a file that has a fault, and its error; none of its documents is yielded then. Each file
            is read twice. None: a fault ends the reading.

    Raises:
        FileNotFoundError: A file does not exist, or a folder or pattern has no file.
        ValueError: An unknown suffix, or a fault in a file, with its place.
    """
    files = sentence_files(paths, "text" if kind == "files" else kind)
    for file in files:
        if not file.exists():
            raise FileNotFoundError(f"{file}: no such file")
    if kind is None:
        refuse_txt(files, _TXT)
    kinds = {file: kind or kind_of(file) for file in files}

    def read(file: Path) -> Iterator[Document]:
        columns = format or ColumnFormat(tag_column=None)
        return map(_checked, _file_documents(file, kinds[file], files[file], columns))

    return (document for file in files if _is_sound(read, file, on_error) for document in read(file))


def _is_sound(
    read: Callable[[Path], Iterator[Document]], file: Path, on_error: Callable[[Path, Exception], None] | None
) -> bool:
    """Whether a file can be read to its end; always true when nobody asks."""
    if on_error is None:
        return True
    try:
        deque(read(file), maxlen=0)
    except (ValueError, OSError) as error:
        on_error(file, error)
        return False
    return True


def cut(text: str, max_chars: int = PART_CHARS) -> Iterator[Part]:
    """Cut a text into parts of whole sentences, each as long as `max_chars` allows; a short text is one part.

    A part is longer than `max_chars` only if it is a single sentence.
    """
    if len(text) <= max_chars:
        yield Part(0, text)
        return
    start, bounds, known = 0, list[tuple[int, int]](), tuple[tuple[str, str], ...]()
    for first, last in split_sentences(text):
        if bounds and last - start > max_chars:
            yield _part(text, start, first, bounds, known)
            defined = definitions_in(text[begin:end] for begin, end in bounds)
            start, bounds, known = first, [], latest((*known, *defined))
        bounds.append((first, last))
    yield _part(text, start, len(text), bounds, known)


def _part(
    text: str, start: int, end: int, bounds: Sequence[tuple[int, int]], abbreviations: tuple[tuple[str, str], ...]
) -> Part:
    return Part(start, text[start:end], tuple((first - start, last - start) for first, last in bounds), abbreviations)


def _checked(document: Document) -> Document:
    if len(document.text) > MAX_CHARS:
        raise ValueError(f"document {document.id!r} has {len(document.text)} characters; cut it to {MAX_CHARS} at most")
    return document


def _file_documents(path: Path, kind: DocumentKind, prefix: str, format: ColumnFormat) -> Iterator[Document]:
    if kind == "columns":
        return _columns(path, prefix, format)
    if kind == "text":
        return _lines(path, prefix, format.encoding)
    if kind == "files":
        whole = _whole(path, prefix, format.encoding)
        return (replace(own, text=unwrapped(own.text)) for own in whole) if format.wrapped else whole
    return _records(path, kind, prefix, wrapped=format.wrapped)


def _records(path: Path, kind: Kind, prefix: str, *, wrapped: bool) -> Iterator[Document]:
    reading = Reading(tagged=False, wrapped=wrapped)
    yield from map(_from_record, records_of(path, kind, prefix, reading))
    for file, form in reading.counts.recognised.items():
        logger.info("%s: read as %s", file, form)


def _from_record(record: Record) -> Document:
    where, id, fields = record
    if "words" not in fields:
        return Document(id, record_text(fields, where))
    fields = {name: fields[name] for name in ("words", "offsets", "text") if name in fields}
    sentence = words_sentence(id, fields, where, scheme="BIOES", repair_tags=False, counts=ReadCounts())
    text, offsets = (sentence.text, sentence.offsets) if sentence.text is not None else (" ".join(sentence.words), None)
    return Document(id, text, sentence.words, offsets)


def _columns(path: Path, prefix: str, format: ColumnFormat) -> Iterator[Document]:
    for sentence in iter_columns(path, format, id_prefix=prefix):
        yield Document(sentence.id, " ".join(sentence.words), sentence.words)


def _lines(path: Path, prefix: str, encoding: str) -> Iterator[Document]:
    lines = (line for _, line in lines_of(path, encoding) if line.strip())
    return (Document(f"{prefix}-{number}", line) for number, line in enumerate(lines))


def _whole(path: Path, prefix: str, encoding: str) -> Iterator[Document]:
    """The file's text with its line ends as they are; a byte order mark is dropped."""
    try:
        with path.open("rb") as file:
            content = decompressed(file, path.suffix.lower()).read(4 * MAX_CHARS + 1)
        yield Document(prefix, content.decode(encoding).removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        bad = f"byte 0x{error.object[error.start]:02x} at offset {error.start}"
        name, way_out = encoding.upper(), "name its encoding (--set data.encoding=cp1252)"
        raise ValueError(f"{path}: not {name}: {bad}; convert it (iconv -f latin1 -t utf-8) or {way_out}") from error
    except DAMAGE as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise ValueError(f"{path}: not a whole compressed file ({error}); fetch it again") from error
