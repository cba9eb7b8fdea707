"""Records in the rows of Arrow tables: those of Parquet files, of `.arrow` files, and of folders that `datasets` saved.

Errors name file, row (from 1) and column. Nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxner.files.annotations import is_annotation
from ctxner.files.dataset_info import names_beside, names_within
from ctxner.files.folders import STATE
from ctxner.files.forms.form import Reading
from ctxner.files.forms.recognise import CONTENT_KEYS, GOLD_KEYS, IDS, recognised
from ctxner.files.records import BEYOND_TAGS, DOCUMENT_IDS, Record
from ctxner.files.row_batches import bounded_batches

if TYPE_CHECKING:
    import pyarrow as pa

_FILE_MAGIC = b"ARROW1"  # a file with a footer; else a stream, which `datasets` writes


def arrow_records(path: str | Path, prefix: str, reading: Reading) -> Iterator[Record]:
    """Place, id and fields of each row of an Arrow file, or of a folder that `datasets` saved (`save_to_disk`).

    Raises:
        ValueError: A file that is not Arrow, a column missing or of a wrong type, or a record of no known form.
    """
    path = Path(path)
    folder = path.is_dir()
    files = _saved_files(path) if folder else [path]
    if reading.labels is None:
        names = {**names_beside(path), **names_within(_schema(files[0]).metadata, files[0])}
        reading = replace(reading, names=names)
    rows = chain.from_iterable(_file_rows(file, tagged=reading.tagged) for file in files)
    return recognised(rows, path, "folder of datasets.save_to_disk" if folder else "Arrow", prefix, reading)


def row_values(
    batches: Iterable[pa.RecordBatch], path: str | Path, format: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and fields that are not null, of each row; `format` is named where the rest cannot be read."""
    import pyarrow as pa

    row_no = 0
    try:
        for batch in batches:
            for row in _rows(batch, path, row_no):
                row_no += 1
                yield f"{path}: row {row_no}", _fields(row, f"{path}: row {row_no}")
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: row {row_no + 1}: not readable as {format} ({error}); write it again") from error


def columns_to_read(schema: pa.Schema, path: str | Path, *, tagged: bool) -> list[str]:
    """The columns to read; ValueError when one is missing, there twice or of a wrong type."""
    import pyarrow.types as types

    def is_text(kind: pa.DataType) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)

    def is_list(kind: pa.DataType) -> bool:
        return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)

    def is_texts(kind: pa.DataType) -> bool:
        return is_list(kind) and (is_text(kind.value_type) or types.is_null(kind.value_type))

    def is_tags(kind: pa.DataType) -> bool:
        return is_texts(kind) or (is_list(kind) and types.is_integer(kind.value_type))

    def is_id(kind: pa.DataType) -> bool:
        return is_text(kind) or types.is_integer(kind)

    wanted = {
        **dict.fromkeys(IDS, ("string or integer", is_id)),
        **dict.fromkeys(DOCUMENT_IDS, ("string or integer", lambda kind: True)),  # records check it; tagging ignores it
        **dict.fromkeys(("words",), ("list<string>", is_texts)),
        **dict.fromkeys(("tags",) if tagged else (), ("list<string> or list<integer>", is_tags)),
        **dict.fromkeys(("text", "scheme") if tagged else ("text",), ("string", is_text)),
        **dict.fromkeys(("offsets", BEYOND_TAGS) if tagged else ("offsets",), ("list", is_list)),
    }
    content = [name for name in CONTENT_KEYS if name in schema.names]
    gold = {name for name in schema.names if tagged and (name in GOLD_KEYS or is_annotation(name))}
    names = [name for name in schema.names if name in wanted or name in gold or name in content]
    if not content:
        raise ValueError(f"{path}: no column 'words' or 'text'; found {', '.join(schema.names) or 'no column'}")
    for name in names:
        if names.count(name) > 1 or set(IDS) <= set(names):
            raise ValueError(f"{path}: columns {', '.join(names)}; wanted each once, and 'id' or 'sentence_id'")
        if name not in wanted or (name in gold and not (name == "tags" and "words" in names)):
            continue  # checked where a row has it, since null means absent
        kind, (description, fits) = schema.field(name).type, wanted[name]
        if not fits(kind) and not types.is_null(kind):
            raise ValueError(f"{path}: column {name!r} is of type {kind}; wanted {description}")
    return names


def _rows(batch: pa.RecordBatch, path: str | Path, row_no: int) -> list[dict[str, Any]]:
    """The rows as dicts; ValueError where a string is not UTF-8, which neither Parquet nor Arrow checks."""
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


def _fields(row: dict[str, Any], where: str) -> dict[str, Any]:
    fields = {name: value for name, value in row.items() if value is not None}
    if not any(name in fields for name in CONTENT_KEYS):
        raise ValueError(f"{where}: columns 'words' and 'text' are null or absent; wanted one of them in each row")
    return fields


def _saved_files(folder: Path) -> list[Path]:
    """The Arrow files of a folder, in the order that its `state.json` gives."""
    state = folder / STATE
    try:
        names = [own["filename"] for own in json.loads(state.read_bytes())["_data_files"]]
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise ValueError(f"{state}: wanted '_data_files' as datasets.save_to_disk writes it ({error!r})") from error
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise ValueError(f"{state}: '_data_files' are {names!r:.80}; wanted names of files in this folder")
    return [folder / name for name in names]


def _file_rows(path: Path, *, tagged: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    with _opened(path) as (schema, batches):
        columns = columns_to_read(schema, path, tagged=tagged)
        checked = (_checked(batch.select(columns)) for batch in batches)
        yield from row_values(bounded_batches(checked, path), path, "Arrow")


def _checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    batch.validate(full=True)  # offsets out of range would read other memory
    return batch


def _schema(path: Path) -> pa.Schema:
    with _opened(path) as (schema, _):
        return schema


@contextmanager
def _opened(path: Path) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """Schema and batches of an Arrow file, mapped into memory rather than read."""
    import pyarrow as pa

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with pa.memory_map(str(path)) as file:
            if file.read(len(_FILE_MAGIC)) == _FILE_MAGIC:
                table = pa.ipc.open_file(file)
                yield table.schema, (table.get_batch(number) for number in range(table.num_record_batches))
            else:
                file.seek(0)
                stream = pa.ipc.open_stream(file)
                yield stream.schema, iter(stream)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not readable as Arrow ({error}); write it again") from error
