"""Sorts the rows of many Parquet files by position, in bounded memory; order and number of files do not matter.

Positions are divided into ranges of `SPAN`. A row group that spans more positions than one range is first sorted and
written again with one row group per range; then the ranges are read one after the other.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SPAN = 8192  # rows; at most three times as many are in memory, some tens of MB with six passages per row
_LONG_RUN = 32  # rows per run, on average, above which whole runs are moved instead of single rows


@dataclass(frozen=True, slots=True)
class _RowGroup:
    path: Path
    number: int
    first: int  # lowest position

    def read(self, schema: pa.Schema) -> pa.Table:
        with pq.ParquetFile(self.path) as file:
            return file.read_row_group(self.number, use_threads=False).select(schema.names).cast(schema)


def ordered(paths: Iterable[Path], schema: pa.Schema, scratch: Path) -> Iterator[pa.Table]:
    """All rows sorted by the column `position`: one table per range of `SPAN` positions, empty if it has no rows.

    If each position occurs once, at most the rows of three ranges and of one row group are in memory at once.

    Args:
        paths: Files with the columns of `schema`.
        schema: Schema of the tables.
        scratch: Folder for temporary files; it is emptied first, and the caller removes it.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    groups: dict[int, list[_RowGroup]] = defaultdict(list)
    for path in paths:
        for group in _narrow_groups(path, schema, scratch):
            groups[group.first // SPAN].append(group)
    rest = schema.empty_table()
    for number in range(max(groups, default=-1) + 2):
        tables = [group.read(schema) for group in groups.pop(number, ())]
        rows = _by_position(pa.concat_tables([rest, *tables]))
        ready = int(np.searchsorted(rows["position"].to_numpy(), (number + 1) * SPAN))
        yield rows.slice(0, ready)
        rest = rows.slice(ready)


def _narrow_groups(path: Path, schema: pa.Schema, scratch: Path) -> Iterator[_RowGroup]:
    """The row groups of a file that span at most `SPAN` positions, and the parts into which the wider ones are cut."""
    with pq.ParquetFile(path) as file:
        groups = range(file.num_row_groups)
        spans = [pc.min_max(file.read_row_group(n, columns=["position"], use_threads=False)[0]).as_py() for n in groups]
    for number, span in enumerate(spans):
        if span["min"] is None:
            continue
        group = _RowGroup(path, number, span["min"])
        if span["max"] - span["min"] < SPAN:
            yield group
        else:
            yield from _cut(group, schema, scratch / f"{path.stem}-{number}.parquet")


def _cut(group: _RowGroup, schema: pa.Schema, path: Path) -> Iterator[_RowGroup]:
    """Sort a row group and write it again with one row group per range."""
    rows = _by_position(group.read(schema))
    positions = rows["position"].to_numpy()
    cuts = np.flatnonzero(np.diff(positions // SPAN)) + 1
    with pq.ParquetWriter(path, schema) as writer:
        for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(rows)], strict=True)):
            writer.write_table(rows.slice(start, end - start))
            yield _RowGroup(path, number, int(positions[start]))


def _by_position(rows: pa.Table) -> pa.Table:
    """The rows sorted by position. Long runs of consecutive positions are moved whole: copying single rows is slow."""
    positions = rows["position"].to_numpy()
    cuts = np.flatnonzero(np.diff(positions) != 1) + 1
    if len(cuts) < len(rows) / _LONG_RUN:
        runs = sorted(np.split(np.arange(len(rows)), cuts), key=lambda run: positions[run[0]])
        order = np.concatenate(runs)
        if (np.diff(positions[order]) > 0).all():
            return pa.concat_tables([rows.slice(run[0], len(run)) for run in runs])
    return rows.take(np.argsort(positions, kind="stable"))
