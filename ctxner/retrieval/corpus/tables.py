"""CSV and TSV files -> records.

The header says which column is which field, and by which character the fields are separated; a mapping from the user
says it for columns of other names, or by their numbers for a file without a header. The records become passages in
`ctxner.retrieval.corpus.records`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, repeat

COLUMNS = {  # field of an entry -> names of its column; the header's first one in this order counts
    "name": ("name", "title", "term"),
    "description": ("description", "text", "contents", "definition"),
    "type": ("type", "category"),
    "aliases": ("aliases", "synonyms"),
    "id": ("id",),
    "source": ("source",),
}
_FIELD_OF = {name: field for field, names in COLUMNS.items() for name in names}
_RECORD_NAMES = {"name": "title", "description": "contents"}  # others have the same name in a record
DELIMITERS = (",", ";", "\t")
_MAX_NAME_WORDS = 4  # of a column
_MAX_ROW_LENGTH = 1 << 24  # characters, as of a page in a dump; a quote that nobody closes ends there


def check_columns(columns: Mapping[str, str]) -> dict[str, str]:
    """The user's mapping, with each field under its first name in `COLUMNS`.

    Args:
        columns: Column of the file by field: any name in `COLUMNS`.

    Raises:
        ValueError: Unknown field, or two names of one field.
    """
    checked: dict[str, str] = {}
    for name, column in columns.items():
        if name not in _FIELD_OF:
            raise ValueError(f"columns: unknown field {name!r} (for column {column!r}); valid: {', '.join(_FIELD_OF)}")
        if _FIELD_OF[name] in checked:
            raise ValueError(f"columns: {' and '.join(COLUMNS[_FIELD_OF[name]])} are one field; give it one column")
        checked[_FIELD_OF[name]] = column.strip()
    return checked


def read_table(
    lines: Iterable[str], name: str, *, delimiter: str, columns: Mapping[str, str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table that are not empty, each with its first line.

    A row may have fewer fields than the header; the missing ones are empty. Columns of other names are ignored.

    Args:
        lines: All lines, with their ends.
        name: Name of the file in errors.
        delimiter: Character between fields, as the suffix has it; another of `DELIMITERS` counts when only by that one
            the header has a known or mapped column.
        columns: Checked mapping of the user (see `check_columns`); if all columns are numbers, from 1, and none is a
            name in the first row, there is no header.

    Raises:
        ValueError: A header without a needed or mapped column, broken quoting, a row that is too long or has more
            fields than the header, or one with neither name nor text; with the line.
    """
    csv.field_size_limit(_MAX_ROW_LENGTH)  # holds for the whole process; csv knows no limit per reader
    first, lines = _first_line(lines)
    delimiter = _delimiter_of(first, delimiter, columns)
    rows = _rows(lines, delimiter, name)
    header_line, header = next(rows, (1, []))
    if _is_numbered(columns, header):
        rows = chain([(header_line, header)], rows)
        fields = _numbered_places(header, columns, f"{name}:{header_line}", delimiter)
    else:
        fields = _places(header, columns, f"{name}:{header_line}", delimiter)
    for line_no, row in rows:
        if len(row) > len(header):
            raise ValueError(
                f"{name}:{line_no}: {len(row)} fields, but the header has {len(header)}; quote fields that contain "
                f"{delimiter!r}"
            )
        record = {field: row[place] for field, place in fields.items() if place < len(row)}
        if not any(record.get(field, "").strip() for field in ("title", "contents")):
            raise ValueError(
                f"{name}:{line_no}: neither a name nor a text (row {row!s:.200}); an entry needs one of them"
            )
        yield line_no, record


def _rows(lines: Iterable[str], delimiter: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Rows with a field that is not blank, and the line on which each begins."""
    length = 0

    def counted() -> Iterator[str]:
        nonlocal length
        for line in lines:
            length += len(line)
            if length > _MAX_ROW_LENGTH:
                raise csv.Error("no end of the row")
            yield line

    rows = csv.reader(counted(), delimiter=delimiter, strict=True, skipinitialspace=True)
    while True:
        line_no, length = rows.line_num + 1, 0
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise ValueError(
                f"{name}:{line_no}: broken quoting, or a row above {_MAX_ROW_LENGTH} characters ({error}); wanted "
                'a quote at each end of a quoted field, and "" for one within it'
            ) from None
        if row is None:
            return
        if any(field.strip() for field in row):
            yield line_no, row


def _places(header: list[str], columns: Mapping[str, str], place: str, delimiter: str) -> dict[str, int]:
    """For each field of a record the index of its column."""
    names = [name.strip() for name in header]
    shown = f"{names!s:.500}"
    unmapped = ["" if name in columns.values() else name.casefold() for name in names]
    places: dict[str, int] = {}
    for field, known in COLUMNS.items():
        is_mapped = field in columns
        candidates, wanted = (names, (columns[field],)) if is_mapped else (unmapped, known)
        column = next((name for name in wanted if name in candidates), None)
        if is_mapped and column is None:
            raise ValueError(f"{place}: no column {columns[field]!r} for {field!r}; the header has {shown}")
        if column is None:
            continue
        if candidates.count(column) > 1:
            raise ValueError(f"{place}: column {column!r} occurs twice in the header {shown}; rename one of them")
        places[_RECORD_NAMES.get(field, field)] = candidates.index(column)
    if "title" not in places and "contents" not in places:
        raise ValueError(
            f"{place}: the header, split at {delimiter!r}, has {shown}; wanted at least one of "
            f"{', '.join((*COLUMNS['name'], *COLUMNS['description']))} (others: type, aliases, id, source), or "
            "index.columns or --columns name=COLUMN to say which column it is; if that row is no header, by numbers: "
            "--columns name=1,description=2"
        )
    return places


def is_header(line: str, columns: Mapping[str, str]) -> bool:
    """Whether a line is a table's header beyond doubt.

    It has a name, a description, and only columns that are known; or all columns that the user maps.
    """
    cells = _cells(line, _delimiter_of(line, "\t", columns))
    if columns and {column.casefold() for column in columns.values()} <= set(cells):
        return len(cells) > 1
    names = (set(COLUMNS["name"]), set(COLUMNS["description"]))
    return all(cell in _FIELD_OF for cell in cells) and all(known & set(cells) for known in names)


def table_row(lines: Sequence[str]) -> tuple[str, list[str]] | None:
    """The separator and the cells of the first line where a text looks like a table, whatever its columns are called.

    All lines have as many cells, two at least, and those of the first are names: a few words each.
    """
    best: tuple[str, list[str]] | None = None
    for mark in DELIMITERS:
        rows = [_split(line, mark) for line in lines]
        width = len(rows[0]) if len(rows) > 1 else 0
        if width > (len(best[1]) if best else 1) and all(len(row) == width for row in rows):
            cells = [cell.strip() for cell in rows[0]]
            if all(1 <= len(cell.split()) <= _MAX_NAME_WORDS for cell in cells):
                best = mark, cells
    return best


def _first_line(lines: Iterable[str]) -> tuple[str, Iterator[str]]:
    """The first line that is not blank, and all lines; blank ones before it are not kept but for their number."""
    rest = iter(lines)
    for num_blank, line in enumerate(rest):
        if line.strip():
            return line, chain(repeat("\n", num_blank), [line], rest)
    return "", iter(())


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip().casefold() for cell in _split(line, delimiter)]


def _split(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter), [])
    except csv.Error:
        return []


def _delimiter_of(line: str, usual: str, columns: Mapping[str, str]) -> str:
    """The delimiter by which a header has the most known or mapped columns; the usual one if no other has more."""
    known = {*_FIELD_OF, *(column.casefold() for column in columns.values())}
    counts = {mark: sum(cell in known for cell in _cells(line, mark)) for mark in (usual, *DELIMITERS)}
    best = max(counts, key=lambda mark: counts[mark])
    if not counts[best] and columns and all(column.isdecimal() for column in columns.values()):
        best = max(counts, key=lambda mark: len(_cells(line, mark)))
    return best


def _is_numbered(columns: Mapping[str, str], header: list[str]) -> bool:
    numbers = columns.values()
    return bool(numbers) and all(map(str.isdecimal, numbers)) and not {*numbers} & {cell.strip() for cell in header}


def _numbered_places(row: list[str], columns: Mapping[str, str], place: str, delimiter: str) -> dict[str, int]:
    for field, number in columns.items():
        if not 1 <= int(number) <= len(row):
            raise ValueError(
                f"{place}: no column {number} for {field!r}; split at {delimiter!r}, the row has {len(row)} fields"
            )
    return {_RECORD_NAMES.get(field, field): int(number) - 1 for field, number in columns.items()}
