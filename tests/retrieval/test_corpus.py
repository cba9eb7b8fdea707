"""Corpus reading: every format gives the same passages, every fault is named with its place."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctxner.retrieval.corpus import read_corpus
from ctxner.schema import Passage

RECORDS = [
    {"id": "a", "contents": "Baroka is a city.", "source": "atlas", "title": "Baroka"},
    {"id": 7, "text": "Ünïcode — ok"},
    {"contents": "no id"},
]
PASSAGES = [
    Passage("a", "atlas", "Baroka is a city.", "Baroka"),
    Passage("7", "world", "Ünïcode — ok"),
    Passage("world-3", "world", "no id"),
]


def write(path, content):
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["world.jsonl", "world.jsonl.gz", "WORLD.JSONL"])
def test_json_lines_give_their_passages(tmp_path, name):
    path = write(tmp_path / name, "\n".join(json.dumps(record) for record in RECORDS))
    stem = name.split(".")[0]
    assert [str(p).replace(stem, "world") for p in read_corpus([path])] == [str(p) for p in PASSAGES]


def test_parquet_gives_the_same_passages_as_json_lines(tmp_path):
    rows = [{**dict.fromkeys(("id", "contents", "text", "source", "title")), **record} for record in RECORDS]
    rows[1]["id"] = "7"
    pq.write_table(pa.Table.from_pylist([{**row, "other": 1} for row in rows]), tmp_path / "world.parquet")
    assert list(read_corpus([tmp_path / "world.parquet"])) == PASSAGES


def test_plain_text_is_one_passage_a_line_numbered_by_line(tmp_path):
    path = write(tmp_path / "notes.txt.gz", "\ufefffirst\r\n\n  second line  \n")
    assert list(read_corpus([path])) == [
        Passage("notes-1", "notes", "first"),
        Passage("notes-3", "notes", "second line"),
    ]


def test_control_characters_and_lone_surrogates_become_printable(tmp_path):
    path = write(tmp_path / "c.jsonl", r'{"id": "x", "contents": "a\u0000b\ud800c\u0007"}')
    assert list(read_corpus([path])) == [Passage("x", "c", "a b\ufffdc")]


@pytest.mark.parametrize(
    ("name", "content", "place", "wanted"),
    [
        ("c.jsonl", '{"contents": "x"}\n{"id": "b"}', ":2", "no text"),
        ("c.jsonl", '{"contents": "   "}', ":1", "no text"),
        ("c.jsonl", '{"contents": ["x"]}', ":1", "'contents' is list"),
        ("c.jsonl", '{"contents": "x"}\n\n{"contents": ', ":3", "not valid JSON"),
        ("c.jsonl", '["x"]', ":1", "found a JSON list"),
        ("c.jsonl", "[" * 100_000, ":1", "not valid JSON"),
        ("c.jsonl", '{"id": "' + "i" * 600 + '", "contents": "x"}', ":1", "id has 600 characters"),
        ("c.txt", "fine\nna\u00efve".encode("latin-1"), ":2", "not UTF-8"),
        ("c.txt", b"fine\n\x00\x01\x02", ":2", "binary"),
        ("c.txt", "", "", "corpus is empty"),
        ("c.jsonl", "\n\n", "", "corpus is empty"),
        ("c.csv", "a,b", "", "unknown corpus format"),
        ("c.parquet", "not parquet", "", "not readable as Parquet"),
    ],
)
def test_a_fault_is_named_with_its_place(tmp_path, name, content, place, wanted):
    path = write(tmp_path / name, content)
    with pytest.raises(ValueError, match=wanted) as error:
        list(read_corpus([path]))
    assert f"{path}{place}" in str(error.value)


def test_damaged_gzip_is_an_error(tmp_path):
    whole = gzip.compress(b'{"contents": "x"}\n' * 1000)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "not.jsonl.gz").write_bytes(b'{"contents": "x"}')
    for name in ("cut.jsonl.gz", "not.jsonl.gz"):
        with pytest.raises(ValueError, match="damaged or not gzip"):
            list(read_corpus([tmp_path / name]))


def test_a_duplicate_id_names_both_places(tmp_path):
    first = write(tmp_path / "a.jsonl", '{"contents": "x"}\n{"id": "same", "contents": "y"}')
    second = write(tmp_path / "b.jsonl", '{"id": "same", "contents": "z"}')
    with pytest.raises(ValueError, match="'same'") as error:
        list(read_corpus([first, second]))
    assert f"{first}:2" in str(error.value)
    assert f"{second}:1" in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.txt"):
        list(read_corpus([tmp_path / "gone.txt"]))
