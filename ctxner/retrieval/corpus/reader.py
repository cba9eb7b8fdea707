"""Reading a corpus: JSON lines, plain text, Parquet or MediaWiki dumps -> passages. Errors name file and line.

`ctxner.retrieval.index.build` indexes the passages; `ctxner.retrieval.corpus.mediawiki` parses Wikipedia's dumps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

from ctxner.files.compression import DAMAGE, CorpusFile
from ctxner.files.unique_ids import IdHashes, refuse_repeats
from ctxner.retrieval.corpus.mediawiki import read_pages
from ctxner.retrieval.text import clean_text
from ctxner.schema import Passage

Unit = Literal["paragraph", "sentence"]
_COMPRESSED = {".jsonl": ("", ".gz", ".zst"), ".txt": ("", ".gz", ".zst"), ".xml": ("", ".bz2", ".gz", ".zst")}
SUFFIXES = (*(kind + compression for kind, endings in _COMPRESSED.items() for compression in endings), ".parquet")
_MAX_ID_LENGTH = 512  # characters; Lucene refuses terms of 32,766 bytes
_FIELDS = ("id", "contents", "text", "source", "title")

_Place = tuple[Path, int | str]  # file, and a line or row from 1, or a page


class CorpusReader:
    """The passages of a corpus, or of a part of it, in order; tells the share of the files read so far.

    JSON lines and Parquet rows have `contents` (or `text`), and may have `id`, `source` and `title`; a plain-text file
    holds one passage per line. Without an id a passage is `<file stem>-<line>`; without a source it has the file's
    stem. A MediaWiki dump gives passages `<page id>-<n>` with the page's title. Blank lines are skipped. Control
    characters become blanks and lone surrogates U+FFFD.

    Part p of P has the lines, rows or pages i of each file with i mod P = p; those of other parts are not parsed.
    """

    def __init__(self, paths: Sequence[str | Path], *, unit: Unit = "paragraph", part: int = 0, num_parts: int = 1):
        """Check the files' names; nothing is opened yet.

        Args:
            paths: Files with one of `SUFFIXES`.
            unit: Passage unit of a MediaWiki dump; in other formats each line or row is a passage.
            part: Index of the part to read, from 0.
            num_parts: Number of parts that the corpus is split into.

        Raises:
            ValueError: No path, an unknown suffix, unit or part.
            FileNotFoundError: A path does not exist.
        """
        if not paths:
            raise ValueError("no corpus file given; name at least one")
        if unit not in get_args(Unit):
            raise ValueError(f"unit is {unit!r}; wanted one of {', '.join(get_args(Unit))}")
        if not 0 <= part < num_parts:
            raise ValueError(f"part is {part} of {num_parts}; wanted 0 to {num_parts - 1}")
        self._paths = [Path(path) for path in paths]
        for path in self._paths:
            corpus_stem(path)
            if not path.is_file():
                raise FileNotFoundError(f"{path}: no such corpus file")
        self._unit = unit
        self._part = part
        self._num_parts = num_parts
        self._sizes = [path.stat().st_size for path in self._paths]
        self._bytes_before = 0  # of the files before the current one
        self._file: CorpusFile | None = None

    def __iter__(self) -> Iterator[Passage]:
        """The passages; ids are not compared with each other (see `read_corpus`).

        Raises:
            ValueError: Missing or empty text, a field of a wrong type, bytes that are not UTF-8, a binary or damaged
                file, or invalid JSON or XML; with file and line.
        """
        return (passage for _, passage in self.places())

    def places(self) -> Iterator[tuple[_Place, Passage]]:
        """The passages, each with its file and line."""
        self._bytes_before = 0
        for path, size in zip(self._paths, self._sizes, strict=True):
            for line_no, passage in self._read_file(path):
                yield (path, line_no), passage
            self._file = None
            self._bytes_before += size

    @property
    def share_read(self) -> float:
        """Share of the files' bytes read so far, from 0 to 1."""
        in_file = self._file.position if self._file else 0
        return min(1.0, (self._bytes_before + in_file) / max(1, sum(self._sizes)))

    def _read_file(self, path: Path) -> Iterator[tuple[int | str, Passage]]:
        stem = clean_text(corpus_stem(path))
        kind = path.name.lower()[len(corpus_stem(path)) :]
        if kind == ".parquet":
            records = self._parquet_rows(path)
        elif kind.startswith(".xml"):
            yield from self._pages(path, stem)
            return
        elif kind.startswith(".jsonl"):
            records = self._json_lines(path)
        else:
            records = ((line_no, {"contents": line}) for line_no, line in self._lines(path))
        for line_no, record in records:
            yield line_no, _passage(record, path, line_no, stem)

    def _is_ours(self, line_no: int) -> bool:
        return (line_no - 1) % self._num_parts == self._part

    def _json_lines(self, path: Path) -> Iterator[tuple[int, dict]]:
        for line_no, line in self._lines(path):
            try:
                record = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise ValueError(f"{path}:{line_no}: not valid JSON ({error})") from error
            if not isinstance(record, dict):
                raise ValueError(f"{path}:{line_no}: found a JSON {type(record).__name__}, wanted one object per line")
            yield line_no, record

    def _lines(self, path: Path) -> Iterator[tuple[int, str]]:
        """Non-blank lines of this part with their numbers, decoded strictly."""
        line_no = 0
        with CorpusFile(path) as self._file:
            try:
                for line_no, raw in enumerate(self._file.stream, 1):
                    if not self._is_ours(line_no):
                        continue
                    line = _decoded(raw, path, line_no)
                    if line.strip():
                        yield line_no, line.rstrip("\r\n")
            except DAMAGE as error:
                raise ValueError(_damaged(path, line_no + 1, error)) from error

    def _parquet_rows(self, path: Path) -> Iterator[tuple[int, dict]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        row_no = 0
        try:
            with CorpusFile(path) as self._file, pq.ParquetFile(self._file.stream) as file:
                names = [name for name in file.schema_arrow.names if name in _FIELDS]
                for batch in file.iter_batches(batch_size=4096, columns=names):
                    rows = [n for n in range(batch.num_rows) if self._is_ours(row_no + n + 1)]
                    for n, row in zip(rows, batch.take(rows).to_pylist(), strict=True):
                        yield row_no + n + 1, row
                    row_no += batch.num_rows
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise ValueError(f"{path}:{row_no + 1}: not readable as Parquet ({error})") from error

    def _pages(self, path: Path, stem: str) -> Iterator[tuple[str, Passage]]:
        with CorpusFile(path) as self._file:
            try:
                for page_no, page in enumerate(read_pages(self._file.stream, str(path)), 1):
                    if not self._is_ours(page_no):
                        continue
                    for n, text in enumerate(page.passages(by_sentence=self._unit == "sentence"), 1):
                        yield f"page {page.id}", Passage(f"{page.id}-{n}", stem, text, title=page.title)
            except DAMAGE as error:
                raise ValueError(_damaged(path, None, error)) from error


def read_corpus(paths: Sequence[str | Path], *, unit: Unit = "paragraph") -> Iterator[Passage]:
    """The passages of all files, in order, with unique ids; see `CorpusReader`.

    Raises:
        ValueError: A fault in a file (see `CorpusReader`); after the last passage, an id used twice, or no passage.
        FileNotFoundError: A path does not exist.
    """
    hashes = IdHashes()
    for passage in CorpusReader(paths, unit=unit):
        hashes.add(passage.id)
        yield passage
    check_corpus(paths, hashes, unit=unit)


def check_corpus(paths: Sequence[str | Path], hashes: IdHashes, *, unit: Unit = "paragraph") -> None:
    """Check that a corpus has a passage and that its ids are unique.

    The files are read again only when two ids have the same hash.

    Args:
        paths: Files of the corpus.
        hashes: Hashes of the ids of all passages.
        unit: Passage unit that the corpus was read with.

    Raises:
        ValueError: The corpus is empty, or an id occurs twice; both places are named.
    """
    if not len(hashes):
        raise ValueError(f"{', '.join(map(str, paths))}: the corpus is empty; at least one passage is needed")
    places = CorpusReader(paths, unit=unit).places()
    refuse_repeats(hashes, ((f"{path}:{where}", passage.id) for (path, where), passage in places))


def corpus_stem(path: Path) -> str:
    """File name without its corpus suffix: `news.jsonl.gz` -> `news`.

    Raises:
        ValueError: Another suffix than those of `SUFFIXES`.
    """
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    raise ValueError(f"{path}: unknown corpus format; the name must end in one of {', '.join(SUFFIXES)}")


def _passage(record: dict, path: Path, line_no: int, stem: str) -> Passage:
    text = _text_field(record, "contents" if record.get("contents") is not None else "text", path, line_no)
    if not text:
        fields = f"fields {sorted(record)}" if record else "no fields"
        raise ValueError(f"{path}:{line_no}: no text in 'contents' or 'text' ({fields}); every passage needs one")
    passage_id = _text_field(record, "id", path, line_no) or f"{stem}-{line_no}"
    if len(passage_id) > _MAX_ID_LENGTH:
        raise ValueError(f"{path}:{line_no}: the id has {len(passage_id)} characters; at most {_MAX_ID_LENGTH} can be")
    source = _text_field(record, "source", path, line_no) or stem
    return Passage(passage_id, source, text, title=_text_field(record, "title", path, line_no))


def _text_field(record: dict, name: str, path: Path, line_no: int) -> str:
    value = record.get(name)
    if value is None:
        return ""
    if name == "id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"{path}:{line_no}: {name!r} is {type(value).__name__}, wanted text")
    return clean_text(value).strip()


def _decoded(raw: bytes, path: Path, line_no: int) -> str:
    if b"\0" in raw:
        raise ValueError(f"{path}:{line_no}: NUL byte; this is a binary file, not text")
    try:
        return raw.decode("utf-8-sig" if line_no == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}:{line_no}: not UTF-8 ({error}); convert the file, e.g. with iconv") from error


def _damaged(path: Path, line_no: int | None, error: BaseException) -> str:
    place = f"{path}:{line_no}" if line_no else str(path)
    format = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstd"}.get(path.suffix.lower(), "readable")
    return f"{place}: damaged or not {format} ({error})"
