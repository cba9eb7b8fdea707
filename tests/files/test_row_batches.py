"""Batches of Parquet rows; the oracle is `pyarrow.parquet.read_table`. Bounds are small here, unlike in test_bombs."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctxner.files import row_batches
from ctxner.files.row_batches import parquet_batches

COLUMNS = ["text", "words", "entities", "id"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """3,000 rows in two row groups, of texts, lists, lists of structs and integers; many values are equal."""
    rows = range(3000)
    table = pa.table(
        {
            "text": [f"London {number % 7} " * (number % 5) for number in rows],
            "words": [["Ann", "sings", str(number % 3)][: number % 4] for number in rows],
            "entities": [[{"start": number, "end": number + 1, "type": "place"}] * (number % 3) for number in rows],
            "id": list(rows),
            "unread": ["x"] * 3000,
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2000)
    return tmp_path / "a.parquet"


def batches(path: Path, columns: list[str] = COLUMNS) -> list[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        return list(parquet_batches(file, path, path, columns))


@pytest.mark.parametrize("coded", [False, True])
def test_rows_are_those_of_the_file_however_they_are_read(path, coded, monkeypatch):
    if coded:  # as where values may expand
        monkeypatch.setattr(row_batches, "_may_expand", lambda *_: True)
    made = batches(path)
    assert pa.Table.from_batches(made) == pq.read_table(path, columns=COLUMNS)
    assert [batch.num_rows for batch in made] == [1024, 976, 1000]


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", "PLAIN"])
@pytest.mark.parametrize("coded", [False, True])
def test_every_encoding_of_texts_is_read(path, encoding, coded, monkeypatch):
    """Some writers have these as their defaults; beside such a column another one may have to be read as numbers."""
    table = pq.read_table(path)
    pq.write_table(table, path, use_dictionary=["words.list.element"], column_encoding={"text": encoding})
    monkeypatch.setattr(row_batches, "_may_expand", lambda *_: coded)
    assert pa.Table.from_batches(batches(path)) == pq.read_table(path, columns=COLUMNS)


@pytest.mark.parametrize("coded", [False, True])
def test_batches_are_cut_to_their_bytes(path, coded, monkeypatch):
    monkeypatch.setattr(row_batches, "_MAX_BYTES", 20_000)
    monkeypatch.setattr(row_batches, "_may_expand", lambda *_: coded)
    made = batches(path)
    assert len(made) > 20
    assert max(batch.nbytes for batch in made) < 30_000
    assert pa.Table.from_batches(made) == pq.read_table(path, columns=COLUMNS)


def test_large_batches_of_an_arrow_file_are_cut_to_their_rows(path):
    whole = pa.record_batch({"id": list(range(5000))})
    made = list(row_batches.bounded_batches([whole], path))
    assert [batch.num_rows for batch in made] == [1024] * 4 + [904]
    assert pa.Table.from_batches(made) == pa.Table.from_batches([whole])


def test_a_row_that_is_too_large_is_named(path, monkeypatch):
    table = pq.read_table(path)
    texts = table["text"].to_pylist()
    texts[2500] = "a" * 500_000
    pq.write_table(table.set_column(0, "text", pa.array(texts)), path)
    monkeypatch.setattr(row_batches, "_MAX_BYTES", 400_000)
    with pytest.raises(ValueError, match=r"a\.parquet: row 2501: a row of 0 MiB"):
        batches(path)


def test_a_file_whose_footer_says_too_much_is_not_read(path, monkeypatch):
    monkeypatch.setattr(row_batches, "_MAX_VALUES", 1900)
    with pytest.raises(ValueError, match=r"a\.parquet: row 1: 2,000 values of 'text' in a row group"):
        batches(path, ["text"])
    monkeypatch.undo()
    monkeypatch.setattr(row_batches, "ANY_RATIO_BYTES", 0)
    monkeypatch.setattr(row_batches, "MAX_RATIO", 0)
    monkeypatch.setattr(row_batches, "bounded_batches", lambda *_: pytest.fail("it is read"))
    with pytest.raises(ValueError, match=r"a\.parquet: row 1: the file expands more than 0-fold"):
        batches(path)
