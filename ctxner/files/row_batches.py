"""Batches of rows of Parquet and Arrow files, cut so that each fits into memory.

A dictionary stores a value once and a row stores its number: a file of 2 KB can hold 50 GB of text. So values stay
numbers until the size of their rows is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ctxner.files.compression import ANY_RATIO_BYTES, MAX_RATIO

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ROWS_PER_BATCH = 1024
_MAX_BYTES = 1 << 26  # per row, and per batch, which becomes Python's objects
_MAX_VALUES = 1 << 26  # per column and row group
_ORDINARY_EXPANSION = 100  # the longest text of a column is some ten times as long as the mean
_DELTA_BYTES, _FEWEST_ROWS = 1 << 26, 16  # of a batch in which each value may be as long as its column chunk
_VALUE_BYTES = 8  # a value costs at least this, however short it is


def parquet_batches(
    file: pq.ParquetFile, source: str | Path | BinaryIO, path: str | Path, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """The rows of some columns of a Parquet file, in batches of at most `ROWS_PER_BATCH` rows and 64 MiB.

    Args:
        file: The file, opened.
        source: What `file` was opened from.
        path: Path of the file, for errors.
        columns: Names of the columns to read.

    Raises:
        ValueError: A row of more than 64 MiB, or a file that expands too much, with file and row.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    leaves = [file.schema.column(number) for number in range(len(file.schema))]
    places = [number for number, leaf in enumerate(leaves) if leaf.path.partition(".")[0] in columns]
    _check_footer(file.metadata, places, path)
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    deltas = [place for place in places if any(_is_delta(group.column(place)) for group in groups)]
    # pyarrow reads only what has a dictionary as numbers
    texts = [place for place in places if leaves[place].physical_type == "BYTE_ARRAY" and place not in deltas]
    coded = pq.ParquetFile(source, metadata=file.metadata, read_dictionary=[leaves[place].path for place in texts])
    schema = pa.schema([file.schema_arrow.field(name) for name in file.schema_arrow.names if name in columns])

    def batches() -> Iterator[pa.RecordBatch]:
        for number, group in enumerate(groups):
            reader = coded if any(_may_expand(coded, number, place) for place in texts) else file
            size = max((group.column(place).total_uncompressed_size for place in deltas), default=0)
            num_rows = max(_FEWEST_ROWS, min(ROWS_PER_BATCH, _DELTA_BYTES // max(1, size)))
            yield from reader.iter_batches(num_rows, [number], list(columns), use_threads=False)

    with coded:
        for batch in bounded_batches(batches(), path):
            yield batch if batch.schema.equals(schema) else batch.cast(schema)


def _is_delta(chunk: pq.ColumnChunkMetaData) -> bool:
    """Whether a value may be the beginning of the one before: then it may be as long as the whole column chunk."""
    return any(encoding.startswith("DELTA") and encoding.endswith("BYTE_ARRAY") for encoding in chunk.encodings)


def _may_expand(coded: pq.ParquetFile, group: int, number: int) -> bool:
    """Whether the values of a column, each standing by itself, may take far more memory than the column has bytes."""
    chunk = coded.metadata.row_group(group).column(number)
    if not chunk.has_dictionary_page or chunk.num_values * chunk.total_uncompressed_size <= ANY_RATIO_BYTES:
        return False
    column = chunk.path_in_schema.partition(".")[0]
    first = next(coded.iter_batches(1, [group], [column], use_threads=False), None)
    longest = 0 if first is None else _longest(first.column(0))
    return chunk.num_values * longest > max(ANY_RATIO_BYTES, _ORDINARY_EXPANSION * chunk.total_uncompressed_size)


def _longest(array: pa.Array) -> int:
    """Length of the longest value in the dictionaries of an array, in bytes."""
    import pyarrow.compute as pc
    import pyarrow.types as types

    if types.is_struct(array.type):
        return max(map(_longest, array.flatten()), default=0)
    if types.is_list(array.type) or types.is_large_list(array.type):
        return _longest(array.values)
    if not types.is_dictionary(array.type):
        return 0
    return pc.max(pc.binary_length(array.dictionary)).as_py() or 0


def bounded_batches(batches: Iterable[pa.RecordBatch], path: str | Path) -> Iterator[pa.RecordBatch]:
    """The batches, cut so that each has at most `ROWS_PER_BATCH` rows and 64 MiB.

    Raises:
        ValueError: A row of more than 64 MiB, or more bytes than `MAX_RATIO` times the file's, with file and row.
    """
    size, row_no, num_bytes = Path(path).stat().st_size, 0, 0
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS_PER_BATCH):
            for piece, piece_bytes in _cut(batch.slice(start, ROWS_PER_BATCH), path, row_no):
                num_bytes += piece_bytes
                if num_bytes > max(ANY_RATIO_BYTES, MAX_RATIO * size):
                    raise ValueError(f"{path}: row {row_no + 1}: {_expands(num_bytes)}")
                yield piece
                row_no += piece.num_rows


def _cut(batch: pa.RecordBatch, path: str | Path, row_no: int) -> Iterator[tuple[pa.RecordBatch, int]]:
    num_bytes = sum(map(_num_bytes, batch.columns))
    if num_bytes <= _MAX_BYTES:
        yield batch, num_bytes
        return
    if batch.num_rows == 1:
        raise ValueError(
            f"{path}: row {row_no + 1}: a row of {num_bytes >> 20} MiB; wanted at most {_MAX_BYTES >> 20}: cut the text"
        )
    half = batch.num_rows // 2
    yield from _cut(batch.slice(0, half), path, row_no)
    yield from _cut(batch.slice(half), path, row_no + half)


def _num_bytes(array: pa.Array) -> int:
    """Bytes of the array's values once each of them stands by itself."""
    import pyarrow.compute as pc
    import pyarrow.types as types

    kind, count = array.type, _VALUE_BYTES * len(array)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return count + _num_bytes(array.flatten())
    if types.is_struct(kind):
        return count + sum(map(_num_bytes, array.flatten()))
    if not types.is_dictionary(kind):
        return count + int(array.nbytes)
    if not (types.is_string(kind.value_type) or types.is_binary(kind.value_type) or _is_large(kind.value_type)):
        return 2 * count
    lengths = pc.take(pc.binary_length(array.dictionary), array.indices)
    return count + (pc.sum(lengths).as_py() or 0)


def _is_large(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    return types.is_large_string(kind) or types.is_large_binary(kind)


def _check_footer(metadata: pq.FileMetaData, places: Sequence[int], path: str | Path) -> None:
    size, row_no = Path(path).stat().st_size, 1
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for chunk in map(group.column, places):
            if chunk.total_uncompressed_size > max(ANY_RATIO_BYTES, MAX_RATIO * size):
                raise ValueError(f"{path}: row {row_no}: {_expands(chunk.total_uncompressed_size)}")
            if chunk.num_values > _MAX_VALUES:
                raise ValueError(
                    f"{path}: row {row_no}: {chunk.num_values:,} values of {chunk.path_in_schema!r} in a row group; "
                    f"wanted at most {_MAX_VALUES:,}: write it with smaller row groups"
                )
        row_no += group.num_rows


def _expands(num_bytes: int) -> str:
    return (
        f"the file expands more than {MAX_RATIO}-fold, to over {num_bytes >> 20} MiB; if it is meant to, write it "
        "as JSON lines"
    )
