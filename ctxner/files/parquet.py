"""Records in Parquet files: a text or a sentence of words per row, with the fields of a JSON line.

Errors name file, row (from 1) and column. `ctxner.files.arrow` reads the rows, `ctxner.files.records` makes sentences.
`ctxner.files.contexts` reads what `ctxner retrieve` writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ctxner.files.arrow import columns_to_read, row_values
from ctxner.files.dataset_info import names_beside, names_within
from ctxner.files.forms.form import Reading
from ctxner.files.forms.recognise import recognised
from ctxner.files.records import Record
from ctxner.files.row_batches import parquet_batches

_BUFFER_BYTES = 1 << 20


def parquet_records(path: str | Path, prefix: str, reading: Reading) -> Iterator[Record]:
    """Place, id and fields of each row; tags and unknown annotations only if gold is wanted.

    Required is a column `words` (list of strings) or `text` (string), or one of another tool's, such as `tokens`.
    Columns of metadata are not read. Null means absent.

    Raises:
        ValueError: A file that is not Parquet, or a missing column or one of a wrong type, with file, row and column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if reading.labels is None:
        reading = replace(reading, names=names_beside(path))
    try:
        with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES) as file:
            schema = file.schema_arrow
            reading = replace(reading, names={**reading.names, **names_within(schema.metadata, path)})
            columns = columns_to_read(schema, path, tagged=reading.tagged)
            batches = parquet_batches(file, path, path, columns)
            yield from recognised(row_values(batches, path, "Parquet"), path, "Parquet", prefix, reading)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path}: row 1: not readable as Parquet ({error}); write it again") from error
