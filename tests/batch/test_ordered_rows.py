"""Rows come out in order whatever files they lie in, and never more than three ranges of them are in memory."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxner.batch import ordered_rows as joining

SCHEMA = pa.schema([("name", pa.list_(pa.string())), ("position", pa.int64())])


@pytest.fixture(autouse=True, scope="module")
def _short_ranges():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joining, "SPAN", 16)
        patch.setattr(joining, "_LONG_RUN", 3)
        yield


def write(folder: Path, files: list[list[list[int]]], size: int = 0) -> list[Path]:
    """Files of row groups of positions; columns in another order and of another string type than is wanted."""
    paths = []
    schema = pa.schema([("position", pa.int64()), ("name", pa.list_(pa.large_string()))])
    for number, groups in enumerate(files):
        paths.append(folder / f"{number}.parquet")
        with pq.ParquetWriter(paths[-1], schema) as writer:
            for group in groups:
                writer.write_table(pa.table([group, [[f"n{own}" + "x" * size] for own in group]], schema=schema))
    return paths


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 200)), st.integers(1, 20), st.integers(1, 5), st.integers(1, 40), st.randoms())
def test_any_rows_in_any_files_come_out_in_order(tmp_path_factory, left_out, block_size, num_files, group_size, rng):
    folder, positions = tmp_path_factory.mktemp("rows"), sorted(set(range(150)) - left_out)
    blocks = [positions[start : start + block_size] for start in range(0, len(positions), block_size)]
    order = [position for block in rng.sample(blocks, len(blocks)) for position in block]
    groups = [order[start : start + group_size] for start in range(0, len(order), group_size)]
    paths = write(folder, [[*groups[n::num_files], []] for n in range(num_files)])
    tables = list(joining.ordered(paths, SCHEMA, folder / "scratch"))
    for number, table in enumerate(tables):
        assert table.schema == SCHEMA
        assert {position // 16 for position in table["position"].to_pylist()} <= {number}
    rows = [row for table in tables for row in table.to_pylist()]
    assert rows == [{"name": [f"n{position}"], "position": position} for position in positions]


@pytest.mark.parametrize("again", [[1, 2], [1], [4, 5, 6, 7], [0, 2]])
def test_a_position_there_twice_comes_out_twice(tmp_path, again):
    first = [*range(9), 40]
    paths = write(tmp_path, [[first], [again]])
    tables = joining.ordered(paths, SCHEMA, tmp_path / "scratch")
    assert [own for table in tables for own in table["position"].to_pylist()] == sorted(first + again)


def test_what_an_earlier_join_left_is_not_read(tmp_path):
    paths = write(tmp_path, [[[0, 100], [3]]])
    for _ in range(2):
        tables = joining.ordered(paths, SCHEMA, tmp_path / "scratch")
        assert [own for table in tables for own in table["position"].to_pylist()] == [0, 3, 100]
    assert len(list((tmp_path / "scratch").iterdir())) == 1


def test_memory_does_not_grow_with_the_rows(tmp_path):
    """What Arrow allocates at most, in rows of 10 kB; all files reach over all positions."""

    def peak(num_rows: int) -> float:
        order = random.Random(0).sample(range(num_rows), num_rows)
        (folder := tmp_path / str(num_rows)).mkdir()
        paths = write(folder, [[order[start : start + 32]] for start in range(0, num_rows, 32)], size=10_000)
        pool, usual = pa.proxy_memory_pool(pa.system_memory_pool()), pa.default_memory_pool()
        pa.set_memory_pool(pool)
        try:
            assert sum(len(table) for table in joining.ordered(paths, SCHEMA, folder / "scratch")) == num_rows
        finally:
            pa.set_memory_pool(usual)
        return pool.max_memory()

    few, many = peak(128), peak(1280)
    assert 32 * 10_000 < many < 1.5 * few
