"""Sentences in Parquet files: one sentence per row, with the fields of a JSON line (`ctxner.files.records`).

Errors name file, row (from 1) and column. `ctxner.files.contexts` reads what `ctxner retrieve` writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxner.files.gold import Overlaps
from ctxner.files.lines import ReadCounts, bare_name
from ctxner.files.records import BEYOND_TAGS, DOCUMENT_IDS, Record, is_annotation, iter_records
from ctxner.schema import Sentence

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_PER_BATCH = 1024
_BUFFER_BYTES = 1 << 20
_IDS = ("id", "sentence_id")


def iter_parquet(
    path: str | Path,
    *,
    scheme: str = "BIOES",
    repair_tags: bool = False,
    tagged: bool = True,
    id_prefix: str | None = None,
    counts: ReadCounts | None = None,
    overlaps: Overlaps = "longest",
) -> Iterator[Sentence]:
    """Read a Parquet file, one text or one sentence of words per row; memory grows by eight bytes per id.

    Required is a column `words` (list of strings) or `text` (string, split as in JSON lines); in a row with both,
    `words` is used. Optional are `id` or `sentence_id` (string or integer), `tags` (list of strings), `scheme`
    (string), `entities`, `label` or `labels` (list of start, end and type, as in JSON lines; with `text`), `offsets`
    (list of pairs), and `document_id` or `doc_id` (string or integer; see `iter_jsonl`). A row with annotations in
    another column is refused; columns of metadata are not read. Null means absent. Rows without an id get
    `{id_prefix}-{n}`, n being the row from 0.

    Args:
        path: File.
        scheme: Tag scheme of rows that do not name one.
        repair_tags: Whether illegal tag sequences are mended and counted, instead of refused.
        tagged: Whether gold is wanted; if not, no sentence has tags, and annotations are no reason to refuse a file.
        id_prefix: Beginning of ids that the file does not give; None for the file's name without suffix.
        counts: Fresh counters to add to; complete when the iterator ends.
        overlaps: `longest`: of overlapping mentions the longest become tags; `refuse`: they are an error.

    Raises:
        ValueError: A file that is not Parquet, a missing column or one of a wrong type, a row without words,
            annotations in a column that is not read, a mention out of range, or an illegal tag, with file, row and
            column; at the end, an id used twice, or no sentence.
    """
    prefix, counts = id_prefix or bare_name(path)[0], ReadCounts() if counts is None else counts
    records = partial(parquet_records, path, prefix, tagged=tagged)
    yield from iter_records(
        records, scheme=scheme, repair_tags=repair_tags, tagged=tagged, counts=counts, overlaps=overlaps
    )
    counts.check(path, "one sentence per row, with the column 'words' or 'text'")


def parquet_records(path: str | Path, prefix: str, *, tagged: bool) -> Iterator[Record]:
    """Place, id and fields that are not null, of each row; tags and unknown annotations only if gold is wanted."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    row_no = 0
    try:
        with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES) as file:
            names = _columns(file.schema_arrow, path, tagged=tagged)
            for batch in file.iter_batches(_ROWS_PER_BATCH, columns=names, use_threads=False):
                for row in _rows(batch, path, row_no):
                    row_no += 1
                    yield _record(row, f"{path}: row {row_no}", row_no, prefix)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path}: row {row_no + 1}: not readable as Parquet ({error}); write it again") from error


def _columns(schema: pa.Schema, path: str | Path, *, tagged: bool) -> list[str]:
    """The columns to read; ValueError when one is missing, there twice or of a wrong type."""
    import pyarrow.types as types

    def is_text(kind: pa.DataType) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)

    def is_list(kind: pa.DataType) -> bool:
        return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)

    def is_texts(kind: pa.DataType) -> bool:
        return is_list(kind) and (is_text(kind.value_type) or types.is_null(kind.value_type))

    def is_id(kind: pa.DataType) -> bool:
        return is_text(kind) or types.is_integer(kind)

    wanted = {
        **dict.fromkeys(_IDS, ("string or integer", is_id)),
        **dict.fromkeys(DOCUMENT_IDS, ("string or integer", lambda kind: True)),  # records check it; tagging ignores it
        **dict.fromkeys(("words", "tags") if tagged else ("words",), ("list<string>", is_texts)),
        **dict.fromkeys(("text", "scheme") if tagged else ("text",), ("string", is_text)),
        **dict.fromkeys(("offsets", BEYOND_TAGS) if tagged else ("offsets",), ("list", is_list)),
    }
    gold = {name for name in schema.names if is_annotation(name) and tagged}
    names = [name for name in schema.names if name in wanted or name in gold]
    if not {"words", "text"} & set(names):
        raise ValueError(f"{path}: no column 'words' or 'text'; found {', '.join(schema.names) or 'no column'}")
    for name in names:
        if names.count(name) > 1 or set(_IDS) <= set(names):
            raise ValueError(f"{path}: columns {', '.join(names)}; wanted each once, and 'id' or 'sentence_id'")
        if name in gold and not (name == "tags" and "words" in names):
            continue  # checked where a row has it, since null means absent
        kind, (description, fits) = schema.field(name).type, wanted[name]
        if not fits(kind) and not types.is_null(kind):
            raise ValueError(f"{path}: column {name!r} is of type {kind}; wanted {description}")
    return names


def _rows(batch: pa.RecordBatch, path: str | Path, row_no: int) -> list[dict[str, Any]]:
    """The rows as dicts; ValueError where a string is not UTF-8, which Parquet does not check."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        for number in range(batch.num_rows):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                try:
                    column[number].as_py()
                except UnicodeDecodeError as error:
                    where = f"{path}: row {row_no + number + 1}: column {name!r}"
                    raise ValueError(f"{where}: not UTF-8 ({error}); write it again") from error
        raise


def _record(row: dict[str, Any], where: str, row_no: int, prefix: str) -> Record:
    record = {name: value for name, value in row.items() if value is not None}
    if not record.keys() & {"words", "text"}:
        raise ValueError(f"{where}: columns 'words' and 'text' are null or absent; wanted one of them in each row")
    id = next((record[name] for name in _IDS if name in record), None)
    return where, f"{prefix}-{row_no - 1}" if id is None else str(id), record
