"""Reading a corpus, texts or entries in any of `formats.SUFFIXES`, into passages. Errors name file and line.

The modules beside this one read tables, lists of names, ontologies and MediaWiki dumps; this one reads the other
formats, and shares the files out among shards. `ctxner.retrieval.index.build` indexes the passages.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from ctxner.files.compression import DAMAGE, CorpusFile, bounded_lines
from ctxner.files.node_copies import fetched
from ctxner.files.row_batches import parquet_batches
from ctxner.files.unique_ids import IdHashes, refuse_repeats
from ctxner.retrieval.corpus.documents import MAX_BYTES, read_json, read_markdown
from ctxner.retrieval.corpus.formats import corpus_files, split_name
from ctxner.retrieval.corpus.lines import damaged, decoded, first_lines
from ctxner.retrieval.corpus.mediawiki import Page, Redirect, read_pages
from ctxner.retrieval.corpus.name_lists import read_names
from ctxner.retrieval.corpus.obo import read_terms
from ctxner.retrieval.corpus.records import FIELDS, passage_of, read_json_lines
from ctxner.retrieval.corpus.redirects import collect_aliases
from ctxner.retrieval.corpus.skos import FORMATS as RDF_FORMATS
from ctxner.retrieval.corpus.skos import read_concepts
from ctxner.retrieval.corpus.tables import check_columns, is_header, read_table, table_row
from ctxner.retrieval.text import clean_text
from ctxner.schema import Passage

_log = logging.getLogger(__name__)

Unit = Literal["paragraph", "sentence"]

T = TypeVar("T")
_Place = tuple[Path, int | str]  # file, and a line or row from 1, or a page


class CorpusReader:
    """The passages of a corpus, or of a part of it, in order; tells the share of the files read so far.

    JSON lines and Parquet rows have `contents` (or `text`), a `title` or both, and may have `id`, `source`, `type` and
    `aliases` (a list, or one text with `|` between); rows of CSV and TSV have the same in the columns that their header
    names. A JSON file holds an array of such records, or names with texts; a Markdown file paragraphs below headings,
    their titles. A plain-text file holds one passage per line, a list of names one entry per line. An OBO file gives an
    entry per term, an RDF file one per SKOS concept or OWL class, a MediaWiki dump passages `<page id>-<n>` with the
    page's title. Elsewhere a passage without an id is `<file stem>-<line>`; without a source it has the file's stem.
    Blank lines and rows are skipped. Control characters become blanks and lone surrogates U+FFFD.

    Part p of P has the lines, rows, terms or pages i of each file with i mod P = p. Those of other parts become no
    passages; in JSON lines, plain text and lists of names they are not even parsed.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        unit: Unit = "paragraph",
        columns: Mapping[str, str] | None = None,
        part: int = 0,
        num_parts: int = 1,
    ):
        """Check the files' names; nothing is opened yet.

        Args:
            paths: Files with one of `formats.SUFFIXES`, and folders of such files; or URIs of such.
            unit: Passage unit of a MediaWiki dump; in other formats each line or row is a passage.
            columns: Column by field for CSV and TSV files whose header has other names (see `tables.COLUMNS`).
            part: Index of the part to read, from 0.
            num_parts: Number of parts that the corpus is split into.

        Raises:
            ValueError: No path, an unknown suffix, unit, field of `columns` or part.
            FileNotFoundError: A path does not exist.
        """
        if not paths:
            raise ValueError("no corpus file given; name at least one")
        if unit not in get_args(Unit):
            raise ValueError(f"unit is {unit!r}; wanted one of {', '.join(get_args(Unit))}")
        if not 0 <= part < num_parts:
            raise ValueError(f"part is {part} of {num_parts}; wanted 0 to {num_parts - 1}")
        files = corpus_files(fetched(paths))
        self._paths, self._stems = [path for path, _ in files], dict(files)
        self._unit = unit
        self._columns = check_columns(columns or {})
        self._part = part
        self._num_parts = num_parts
        self._sizes = [path.stat().st_size * (2 if ".xml" in split_name(path)[1] else 1) for path in self._paths]
        self._bytes_before = 0  # of the files before the current one, and of it when it is read for the second time
        self._file: CorpusFile | None = None

    def __iter__(self) -> Iterator[Passage]:
        """The passages; ids are not compared with each other (see `read_corpus`).

        Raises:
            ValueError: Neither text nor title, a field of a wrong type, bytes that are not UTF-8, a binary or damaged
                file, or one that is not of its format; with file and line.
        """
        return (passage for _, passage in self.places())

    def places(self) -> Iterator[tuple[_Place, Passage]]:
        """The passages, each with its file and line."""
        for n, path in enumerate(self._paths):
            self._bytes_before = sum(self._sizes[:n])
            for line_no, passage in self._read_file(path):
                yield (path, line_no), passage
            self._file = None
        self._bytes_before = sum(self._sizes)

    @property
    def share_read(self) -> float:
        """Share of the files' bytes read so far, from 0 to 1."""
        in_file = self._file.position if self._file else 0
        return min(1.0, (self._bytes_before + in_file) / max(1, sum(self._sizes)))

    def _read_file(self, path: Path) -> Iterator[tuple[int | str, Passage]]:
        kind, stem = split_name(path)[1], clean_text(self._stems[path])
        if kind.startswith(".xml"):
            yield from self._pages(path, stem)
            return
        for line_no, record in self._records(path, kind):
            yield line_no, passage_of(record, path, line_no, stem)

    def _records(self, path: Path, kind: str) -> Iterable[tuple[int, dict[str, Any]]]:
        if kind == ".parquet":
            return self._parquet_rows(path)
        if kind.startswith(".jsonl"):
            return read_json_lines(self._lines(path), str(path))
        if kind.startswith(".names"):
            return read_names(self._lines(path), str(path))
        if kind.startswith((".csv", ".tsv")):
            delimiter = "," if kind.startswith(".csv") else "\t"
            lines = (line for _, line in self._all_lines(path))
            return self._ours(read_table(lines, str(path), delimiter=delimiter, columns=self._columns))
        if kind.startswith(".obo"):
            not_blank = ((line_no, line) for line_no, line in self._all_lines(path) if line.strip())
            return self._ours(read_terms(not_blank, str(path)))
        if (suffix := kind.partition(".gz")[0].partition(".zst")[0]) in RDF_FORMATS:
            return self._ours(self._concepts(path, suffix))
        if kind.startswith((".json", ".md")):
            read = read_json if kind.startswith(".json") else read_markdown
            return self._ours(read(self._whole(path), str(path)))
        return self._plain_text(path)

    def _plain_text(self, path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
        """A text per line; a table, if the first line is the header of one."""
        head = first_lines(path)
        line_no, first = head[0] if head else (1, "")
        if is_header(first, self._columns):
            _log.info("%s: read as a table with the columns %s", path, first.split())
            lines = (line for _, line in self._all_lines(path))
            return self._ours(read_table(lines, str(path), delimiter="\t", columns=self._columns))
        if self._part == 0 and (row := table_row([line for _, line in head])):
            separator, cells = row
            _log.warning(
                "%s:%d: read as a text per line, this line too, though all lines split at %r into %d cells; if this "
                "one is a header, give --columns name=%s,description=%s; if there is none, name it %s and give "
                "--columns name=1,description=2",
                *(path, line_no, separator, len(cells), *cells[:2], ".tsv" if separator == "\t" else ".csv"),
            )
        elif self._part == 0 and first.strip().count("\t") == 1:
            _log.warning(
                "%s: read as a text per line; if its lines are a term, a tab and a definition, name it .tsv and give "
                "--columns name=1,description=2",
                path,
            )
        return ((line_no, {"contents": line}) for line_no, line in self._lines(path))

    def _whole(self, path: Path) -> str:
        """The text of a file that is not read by lines.

        Raises:
            ValueError: The file is too large, or not UTF-8.
        """
        lines, num_bytes = io.StringIO(newline=""), 0
        for line_no, raw in self._raw_lines(path):
            num_bytes += len(raw)
            if num_bytes > MAX_BYTES:
                raise ValueError(f"{path}: more than {MAX_BYTES >> 20} MiB; write it as JSON lines (.jsonl)")
            lines.write(decoded(raw, path, line_no))
        return lines.getvalue()

    def _is_ours(self, line_no: int) -> bool:
        return (line_no - 1) % self._num_parts == self._part

    def _ours(self, records: Iterator[T]) -> Iterator[T]:
        return islice(records, self._part, None, self._num_parts)

    def _lines(self, path: Path) -> Iterator[tuple[int, str]]:
        """Non-blank lines of this part with their numbers."""
        for line_no, raw in self._raw_lines(path):
            if self._is_ours(line_no) and (line := decoded(raw, path, line_no)).strip():
                yield line_no, line.rstrip("\r\n")

    def _all_lines(self, path: Path) -> Iterator[tuple[int, str]]:
        """The lines of all parts, with their numbers and ends."""
        return ((line_no, decoded(raw, path, line_no)) for line_no, raw in self._raw_lines(path))

    def _raw_lines(self, path: Path) -> Iterator[tuple[int, bytes]]:
        line_no = 0
        with CorpusFile(path) as self._file:
            try:
                for line_no, raw in bounded_lines(self._file.stream, path):
                    yield line_no, raw
            except DAMAGE as error:
                raise ValueError(damaged(path, line_no + 1, error)) from error

    def _parquet_rows(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        row_no = 0
        try:
            with CorpusFile(path) as self._file, pq.ParquetFile(self._file.stream) as file:
                names = [name for name in file.schema_arrow.names if name in FIELDS]
                for batch in parquet_batches(file, self._file.stream, path, names):
                    rows = [n for n in range(batch.num_rows) if self._is_ours(row_no + n + 1)]
                    for n, row in zip(rows, batch.take(rows).to_pylist(), strict=True):
                        yield row_no + n + 1, row
                    row_no += batch.num_rows
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise ValueError(f"{path}:{row_no + 1}: not readable as Parquet ({error})") from error

    def _concepts(self, path: Path, suffix: str) -> Iterator[tuple[int, dict[str, Any]]]:
        with CorpusFile(path) as self._file:
            yield from read_concepts(self._file.stream, str(path), suffix)

    def _pages(self, path: Path, stem: str) -> Iterator[tuple[str, Passage]]:
        """The passages of a dump's pages; the first one of a page has its aliases, so that a name brings one passage.

        The dump is read twice, since a redirect may stand behind the page that it points to.
        """
        redirects = (page for page in self._dump(path) if isinstance(page, Redirect))
        aliases = collect_aliases(redirects, str(path))
        self._bytes_before += path.stat().st_size
        pages = (page for page in self._dump(path) if isinstance(page, Page))
        for page in self._ours(pages):
            names = tuple(aliases.get(page.title, ()))
            for n, text in enumerate(page.passages(by_sentence=self._unit == "sentence"), 1):
                passage_id = f"{page.id}-{n}"
                yield f"page {page.id}", Passage(passage_id, stem, text, page.title, names if n == 1 else ())

    def _dump(self, path: Path) -> Iterator[Page | Redirect]:
        with CorpusFile(path) as self._file:
            try:
                yield from read_pages(self._file.stream, str(path))
            except DAMAGE as error:
                raise ValueError(damaged(path, None, error)) from error


def read_corpus(
    paths: Sequence[str | Path], *, unit: Unit = "paragraph", columns: Mapping[str, str] | None = None
) -> Iterator[Passage]:
    """The passages of all files, in order, with unique ids; see `CorpusReader`.

    Raises:
        ValueError: A fault in a file (see `CorpusReader`); after the last passage, an id used twice, or no passage.
        FileNotFoundError: A path does not exist.
    """
    hashes = IdHashes()
    for passage in CorpusReader(paths, unit=unit, columns=columns):
        hashes.add(passage.id)
        yield passage
    check_corpus(paths, hashes, unit=unit, columns=columns)


def check_corpus(
    paths: Sequence[str | Path],
    hashes: IdHashes,
    *,
    unit: Unit = "paragraph",
    columns: Mapping[str, str] | None = None,
) -> None:
    """Check that a corpus has a passage and that its ids are unique.

    The files are read again only when two ids have the same hash.

    Args:
        paths: Files of the corpus.
        hashes: Hashes of the ids of all passages.
        unit: Passage unit that the corpus was read with.
        columns: Mapping of columns that it was read with.

    Raises:
        ValueError: The corpus is empty, or an id occurs twice; both places are named.
    """
    if not len(hashes):
        raise ValueError(f"{', '.join(map(str, paths))}: the corpus is empty; at least one passage is needed")
    places = CorpusReader(paths, unit=unit, columns=columns).places()
    refuse_repeats(hashes, ((f"{path}:{where}", passage.id) for (path, where), passage in places))
