"""Entries in JSON lines and Parquet: a title with or without a text, aliases, a type; wrong types are named."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctxner.retrieval.corpus.reader import CorpusReader, read_corpus
from ctxner.schema import Passage

RECORDS = [
    {
        "id": "a",
        "title": "Baroka",
        "contents": "A port.",
        "aliases": ["Baroca", " Port of Baroka ", ""],
        "type": "city",
    },
    {
        "id": "b",
        "title": "Hator",
        "text": "A singer.",
        "aliases": "Dunbra Hator | D. Hator||D. Hator",
        "type": "person",
    },
    {"id": "c", "title": "Velmora", "contents": " ", "aliases": [], "type": None},
    {"id": "d", "title": "Bare", "aliases": "\u0007"},
    {"id": "e", "text": "A text.", "type": "news"},
]
PASSAGES = [
    Passage("a", "world", "A port.", "Baroka", aliases=("Baroca", "Port of Baroka"), type="city"),
    Passage("b", "world", "A singer.", "Hator", aliases=("Dunbra Hator", "D. Hator"), type="person"),
    Passage("c", "world", "", "Velmora"),
    Passage("d", "world", "", "Bare"),
    Passage("e", "world", "A text.", type="news"),
]


def test_json_lines_give_entries(tmp_path):
    (tmp_path / "world.jsonl").write_text("\n".join(map(json.dumps, RECORDS)))
    assert list(read_corpus([tmp_path / "world.jsonl"])) == PASSAGES


@pytest.mark.parametrize("is_text", [True, False])
def test_parquet_gives_the_same_entries_with_a_column_of_lists_or_of_texts(tmp_path, is_text):
    def column(value):
        if is_text:
            return "|".join(value) if isinstance(value, list) else value
        return value.split("|") if isinstance(value, str) else value

    rows = [
        {
            **dict.fromkeys(("id", "title", "contents", "text", "type")),
            **row,
            "aliases": column(row.get("aliases")),
        }
        for row in RECORDS
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "world.parquet")
    assert list(read_corpus([tmp_path / "world.parquet"])) == PASSAGES


def test_an_alias_in_a_list_may_hold_a_bar(tmp_path):
    (tmp_path / "c.jsonl").write_text('{"title": "x", "aliases": ["a|b"]}')
    assert [passage.aliases for passage in read_corpus([tmp_path / "c.jsonl"])] == [("a|b",)]


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        ({"id": "x"}, "no text in 'contents' or 'text', and no 'title' (fields ['id'])"),
        ({"title": " ", "text": ""}, "no text in 'contents' or 'text', and no 'title' (fields ['text', 'title'])"),
        ({"title": ["x"]}, "'title' is list, wanted text"),
        ({"title": "x", "type": 3}, "'type' is int, wanted text"),
        ({"title": "x", "aliases": 3}, "'aliases' is int, wanted a list of texts, or one text with '|' between"),
        ({"title": "x", "aliases": {"a": "b"}}, "'aliases' is dict, wanted a list of texts"),
        ({"title": "x", "aliases": ["a", None]}, "'aliases' holds NoneType, wanted a list of texts"),
        ({"text": "x", "aliases": ["a"]}, "'aliases' without a title"),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_wrong_field_is_named_with_file_line_and_what_was_wanted(tmp_path, kind, record, wanted):
    path = tmp_path / f"c.{kind}"
    if kind == "jsonl":
        path.write_text("\n\n" + json.dumps(record))
    else:
        column = {name: pa.array([value] * 3) for name, value in record.items()}
        pq.write_table(pa.table(column), path)
    place = 3 if kind == "jsonl" else 1
    with pytest.raises(ValueError, match="c\\.") as error:
        list(CorpusReader([path]))
    assert f"{path}:{place}: {wanted}" in str(error.value)
