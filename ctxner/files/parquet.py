"""Sentences in Parquet files: one sentence per row, with the fields of a JSON line (`ctxner.files.records`).

Errors name file, row (from 1) and column; `ctxner.files.arrow` reads the rows.
`ctxner.files.contexts` reads what `ctxner retrieve` writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ctxner.files.arrow import ROWS_PER_BATCH, columns_to_read, row_values
from ctxner.files.dataset_info import names_beside, names_within
from ctxner.files.forms.form import Reading, counted_once
from ctxner.files.forms.recognise import recognised
from ctxner.files.gold import Overlaps
from ctxner.files.lines import ReadCounts, bare_name
from ctxner.files.records import Record, iter_records
from ctxner.files.tags import AUTO
from ctxner.schema import Sentence

_BUFFER_BYTES = 1 << 20


def iter_parquet(
    path: str | Path,
    *,
    scheme: str = AUTO,
    repair_tags: bool = False,
    tagged: bool = True,
    id_prefix: str | None = None,
    labels: Sequence[str] | None = None,
    counts: ReadCounts | None = None,
    overlaps: Overlaps = "longest",
) -> Iterator[Sentence]:
    """Read a Parquet file, one text or one sentence of words per row; memory grows by eight bytes per id.

    Required is a column `words` (list of strings) or `text` (string, split as in JSON lines); in a row with both,
    `words` is used. Optional are `id` or `sentence_id` (string or integer), `tags` (list of strings), `scheme`
    (string), `entities`, `label` or `labels` (list of start, end and type, as in JSON lines; with `text`), `offsets`
    (list of pairs), and `document_id` or `doc_id` (string or integer; see `iter_jsonl`). A row with annotations in
    another column is refused; columns of metadata are not read. The forms of others are read too, as in `iter_jsonl`:
    Hugging Face's `tokens` and `ner_tags`, with the names of numbers from the file's metadata. Null means absent. Rows
    without an id get `{id_prefix}-{n}`, n being the row from 0.

    Args:
        path: File.
        scheme: Tag scheme of rows that do not name one; `auto` recognises it from all of them.
        repair_tags: Whether illegal tag sequences are mended and counted, instead of refused.
        tagged: Whether gold is wanted; if not, no sentence has tags, and annotations are no reason to refuse a file.
        id_prefix: Beginning of ids that the file does not give; None for the file's name without suffix.
        labels: Tags that the numbers in `ner_tags` stand for, in order; None: the file's metadata or a
            `dataset_info.json` beside it.
        counts: Fresh counters to add to; complete when the iterator ends.
        overlaps: `longest`: of overlapping mentions the longest become tags; `refuse`: they are an error.

    Raises:
        ValueError: A file that is not Parquet, a missing column or one of a wrong type, a row without words,
            annotations in a column that is not read, a mention out of range, or an illegal tag, with file, row and
            column; at the end, an id used twice, or no sentence.
    """
    prefix, counts = id_prefix or bare_name(path)[0], ReadCounts() if counts is None else counts
    records = counted_once(partial(parquet_records, path, prefix), Reading(tagged, labels, counts=counts))
    yield from iter_records(
        records,
        scheme=scheme,
        repair_tags=repair_tags,
        tagged=tagged,
        counts=counts,
        path=path,
        overlaps=overlaps,
    )
    counts.check(path, "one sentence per row, with the column 'words' or 'text'")


def parquet_records(path: str | Path, prefix: str, reading: Reading) -> Iterator[Record]:
    """Place, id and fields of each row; tags and unknown annotations only if gold is wanted."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if reading.labels is None:
        reading = replace(reading, names=names_beside(path))
    try:
        with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES) as file:
            schema = file.schema_arrow
            reading = replace(reading, names={**reading.names, **names_within(schema.metadata, path)})
            columns = columns_to_read(schema, path, tagged=reading.tagged)
            batches = file.iter_batches(ROWS_PER_BATCH, columns=columns, use_threads=False)
            yield from recognised(row_values(batches, path, "Parquet"), path, "Parquet", prefix, reading)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path}: row 1: not readable as Parquet ({error}); write it again") from error
