"""Reading a corpus: JSON lines, plain text or Parquet -> passages, with the place of every fault.

Indexing them is `ctxner.retrieval.index`.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from ctxner.retrieval.query import clean_text
from ctxner.schema import Passage

SUFFIXES = (".jsonl", ".jsonl.gz", ".txt", ".txt.gz", ".parquet")
_MAX_ID_LENGTH = 512  # characters; Lucene refuses terms of 32,766 bytes

_Place = tuple[Path, int]  # file, line (or row) from 1


def read_corpus(paths: Sequence[str | Path]) -> Iterator[Passage]:
    """Passages of all files, in order.

    JSON lines and Parquet rows have `contents` (or `text`), and may have `id`, `source` and `title`; a plain-text file
    holds one passage a line. Without an id a passage is `<file stem>-<line>`; without a source it has the file's
    stem. Blank lines are skipped. Control characters become blanks and lone surrogates U+FFFD.

    Raises:
        ValueError: With file and line: text missing or empty, an id twice (both places), a field of a wrong type,
            bytes that are not UTF-8, a binary or damaged file, invalid JSON; an unknown suffix; no passage at all.
        FileNotFoundError: A path does not exist.
    """
    if not paths:
        raise ValueError("no corpus file given; name at least one")
    first_place: dict[str, _Place] = {}
    for path in map(Path, paths):
        for line_no, passage in _read_file(path):
            if passage.id in first_place:
                raise ValueError(
                    f"{path}:{line_no}: id {passage.id!r} was used before at {_show(first_place[passage.id])}; "
                    "ids must be unique over all corpus files"
                )
            first_place[passage.id] = (path, line_no)
            yield passage
    if not first_place:
        raise ValueError(f"{', '.join(map(str, paths))}: the corpus is empty; at least one passage is needed")


def corpus_stem(path: Path) -> str:
    """File name without its corpus suffix: `news.jsonl.gz` -> `news`.

    Raises:
        ValueError: Another suffix than those of `SUFFIXES`.
    """
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    raise ValueError(f"{path}: unknown corpus format; the name must end in one of {', '.join(SUFFIXES)}")


def _read_file(path: Path) -> Iterator[tuple[int, Passage]]:
    stem = corpus_stem(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such corpus file")
    if path.name.lower().endswith(".parquet"):
        records = _parquet_rows(path)
    elif ".jsonl" in path.name.lower()[len(stem) :]:
        records = _json_lines(path)
    else:
        records = ((line_no, {"contents": line}) for line_no, line in _lines(path))
    for line_no, record in records:
        yield line_no, _passage(record, path, line_no, clean_text(stem))


def _passage(record: dict, path: Path, line_no: int, stem: str) -> Passage:
    text = _text_field(record, "contents" if record.get("contents") is not None else "text", path, line_no)
    if not text:
        found = f"fields {sorted(record)}" if record else "no fields"
        raise ValueError(f"{path}:{line_no}: no text in 'contents' or 'text' ({found}); every passage needs one")
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


def _json_lines(path: Path) -> Iterator[tuple[int, dict]]:
    for line_no, line in _lines(path):
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{path}:{line_no}: not valid JSON ({error})") from error
        if not isinstance(record, dict):
            raise ValueError(f"{path}:{line_no}: found a JSON {type(record).__name__}, wanted an object a line")
        yield line_no, record


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Non-blank lines with their numbers, decoded strictly."""
    line_no = 0
    try:
        with _open(path) as file:
            for line_no, raw in enumerate(file, 1):
                if b"\0" in raw:
                    raise ValueError(f"{path}:{line_no}: NUL byte; this is a binary file, not text")
                try:
                    line = raw.decode("utf-8-sig" if line_no == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise ValueError(
                        f"{path}:{line_no}: not UTF-8 ({error}); convert the file, e.g. with iconv"
                    ) from error
                if line.strip():
                    yield line_no, line.rstrip("\r\n")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}:{line_no + 1}: damaged or not gzip ({error})") from error


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row_no = 0
    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if name in ("id", "contents", "text", "source", "title")]
            for batch in file.iter_batches(batch_size=4096, columns=names):
                for row in batch.to_pylist():
                    row_no += 1
                    yield row_no, row
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"{path}:{row_no + 1}: not readable as Parquet ({error})") from error


def _show(place: _Place) -> str:
    return f"{place[0]}:{place[1]}"
