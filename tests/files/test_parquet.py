"""Parquet files with sentences: faults are named by file, row and column, and memory does not grow with the rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctxner.files.columns import ColumnFormat
from ctxner.files.documents import iter_documents
from ctxner.files.lines import ReadCounts
from ctxner.files.sentences import iter_sentences, read_sentences
from ctxner.schema import Sentence


def parquet(tmp_path: Path, columns: dict, **options) -> Path:
    pq.write_table(pa.table(columns), tmp_path / "some.parquet", **options)
    return tmp_path / "some.parquet"


def test_words_with_tags_and_ids(tmp_path):
    words, tags = [["Bo", "ran", ""], ["Hi"], ["x"]], [["B-per", "O", "O"], None, ["B-a"]]
    path = parquet(tmp_path, {"sentence_id": ["a", None, "c"], "words": words, "tags": tags, "other": [1, 2, 3]})
    counts = ReadCounts()
    assert list(iter_sentences(path, ColumnFormat(scheme="IOB2"), counts=counts)) == [
        Sentence("a", ("Bo", "ran", "_"), ("S-per", "O", "O")),
        Sentence("some-1", ("Hi",)),
        Sentence("c", ("x",), ("S-a",)),
    ]
    assert (counts.num_sentences, counts.num_empty_tokens) == (3, 1)


def test_texts_are_split_into_words_and_their_entities_are_exact(tmp_path):
    entities = [[{"start": 0, "end": 2, "type": "per"}], None, []]
    path = parquet(tmp_path, {"text": ["Bo's. Ok", "\u200b", "Hi"], "entities": entities, "id": [7, 8, 9]})
    result = read_sentences(path)
    assert [(own.id, own.words, own.tags) for own in result.sentences] == [
        ("7-0", ("Bo", "'s", "."), ("S-per", "O", "O")),
        ("7-1", ("Ok",), ("O",)),
        ("9", ("Hi",), ("O",)),
    ]
    assert [own.offsets for own in result.sentences[:2]] == [((0, 2), (2, 4), (4, 5)), ((6, 8),)]
    assert result.num_empty_texts == 1


@pytest.mark.parametrize("name", ["document_id", "doc_id"])
def test_a_column_names_the_documents(tmp_path, name):
    path = parquet(tmp_path, {"text": ["a", "b", "c"], name: [4, None, 4]})
    assert [own.document for own in iter_sentences(path)] == ["4", "some-1", "4"]
    path = parquet(tmp_path, {"words": [["a"], ["b"]], name: ["x", "y"]})
    assert [own.document for own in iter_sentences(path)] == ["x", "y"]
    path = parquet(tmp_path, {"text": ["a"], name: [0.5]})
    assert [document.text for document in iter_documents(path)] == ["a"]  # tagging does not use it
    with pytest.raises(ValueError, match=rf"some\.parquet: row 1: '{name}' is 0\.5; wanted a string or an integer"):
        list(iter_sentences(path))


def test_where_a_row_has_words_they_count(tmp_path):
    path = parquet(tmp_path, {"words": [["a", "b"], None], "text": ["ab", "c d"], "scheme": ["iob1", None]})
    assert [own.words for own in iter_sentences(path)] == [("a", "b"), ("c", "d")]


@pytest.mark.parametrize("name", ["entities", "label", "labels"])
def test_the_forms_of_doccano_are_read_as_spans(tmp_path, name):
    span = {"start_offset": 0, "end_offset": 3, "label": "PER"}
    path = parquet(tmp_path, {"text": ["Ann sings", "Hi"], name: [[span], None]})
    assert [own.tags for own in iter_sentences(path)] == [("S-PER", "O"), None]


UNREAD = [
    ({"text": ["Hi", "Ann"], "tags": [None, ["S-person"]]}, "'tags'"),
    ({"text": ["Hi", "Ann"], "NER": [None, "Ann"], "meta": ["x", "y"]}, "'NER'"),
    ({"words": [["Hi"], ["Ann"]], "ner_label": [None, [1]], "label": pa.nulls(2)}, "'ner_label'"),
    ({"words": [["Hi"], ["Ann"]], "tags": [["O"], ["S-x"]], "label": [None, 3]}, "'label'"),
]


@pytest.mark.parametrize(("columns", "keys"), UNREAD)
def test_gold_in_a_column_that_is_not_read_is_refused_by_row_and_column(tmp_path, columns, keys):
    read = "one of 'entities', 'label', 'labels' beside 'text', or 'tags' beside 'words'"
    message = rf"some\.parquet: row 2: {keys}: looks like annotations and is not read; read are {read}; rename"
    with pytest.raises(ValueError, match=message):
        read_sentences(parquet(tmp_path, columns))


@pytest.mark.parametrize("columns", [*(columns for columns, _ in UNREAD), {"words": [["Hi"], ["Ann"]], "tags": [1, 2]}])
def test_where_gold_is_not_wanted_no_column_of_annotations_is_a_reason_to_refuse(tmp_path, columns):
    path = parquet(tmp_path, columns)
    found = read_sentences(path, ColumnFormat(tag_column=None)).sentences
    assert [(own.words, own.tags) for own in found] == [(("Hi",), None), (("Ann",), None)]
    assert [document.text for document in iter_documents(path)] == ["Hi", "Ann"]


@pytest.mark.parametrize(
    "kind",
    [pa.large_list(pa.large_string()), pa.list_(pa.dictionary(pa.int32(), pa.string())), pa.list_(pa.string(), 2)],
    ids=str,
)
def test_lists_of_strings_of_any_type_are_words(tmp_path, kind):
    path = parquet(tmp_path, {"words": pa.array([["a", "b"]], pa.list_(pa.string())).cast(kind)})
    assert read_sentences(path).sentences == [Sentence("some-0", ("a", "b"))]


def test_schemes_and_repair_are_those_of_the_format(tmp_path):
    path = parquet(tmp_path, {"words": [["a", "b"], ["a"]], "tags": [["I-x", "O"], ["I-x"]], "scheme": ["IOB1", None]})
    with pytest.raises(ValueError, match=r"some.parquet: row 2: word 0: tag 'I-x' .* not legal IOB2.*legal as IOB1: -"):
        read_sentences(path, ColumnFormat(scheme="IOB2"))
    result = read_sentences(path)
    assert [own.tags for own in result.sentences] == [("S-x", "O"), ("S-x",)]
    assert result.recognised == {str(path): "words and tags (Parquet), IOB1"}
    result = read_sentences(path, ColumnFormat(scheme="IOB2", repair=True))
    assert ([own.tags for own in result.sentences], result.num_repaired_tags) == ([("S-x", "O"), ("S-x",)], 1)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"sentence": ["a"]}, r": no column 'words' or 'text'; found sentence"),
        ({"words": ["a b"]}, r": column 'words' is of type string; wanted list<string>"),
        ({"words": [[1]]}, r": column 'words' is of type list<.*int64>; wanted list<string>"),
        ({"text": [["a"]]}, r": column 'text' is of type list<.*>; wanted string"),
        ({"words": [["a"]], "tags": ["O"]}, r": column 'tags' is of type string; wanted list<string>"),
        ({"text": ["a"], "id": [0.5]}, r": column 'id' is of type double; wanted string or integer"),
        ({"text": ["a"], "id": ["x"], "sentence_id": ["y"]}, r": columns text, id, sentence_id; wanted each once, and"),
        ({"text": ["a", None]}, r": row 2: columns 'words' and 'text' are null or absent"),
        ({"words": [["a"], ["b", None]]}, r": row 2: wanted 'words' and 'tags' to be lists of strings"),
        ({"words": [["a"], ["b"]], "tags": [["O"], ["O", "O"]]}, r": row 2: 2 tags for 1 words"),
        ({"words": [["a"]], "offsets": [[[0]]]}, r": row 1: wanted 'offsets' to be a list of \[start, end\]"),
        ({"text": ["a"], "entities": [[{"start": 0, "end": 5, "type": "x"}]]}, r": row 1: entity .* wanted 0 <= start"),
        (
            {"text": ["x", "y", "z"], "id": ["a", "b", "a"]},
            r": row 3: id 'a' was used before at .*: row 1; ids",
        ),
        ({"text": pa.array([], pa.string())}, r": no sentence in the file; wanted records with"),
    ],
)
def test_bad_files_are_refused_with_row_and_column(tmp_path, columns, message):
    with pytest.raises(ValueError, match=rf"some\.parquet{message}"):
        list(iter_sentences(parquet(tmp_path, columns)))


def test_the_row_is_right_in_a_later_batch_and_row_group(tmp_path):
    path = parquet(tmp_path, {"text": ["a"] * 2999 + [None]}, row_group_size=700)
    with pytest.raises(ValueError, match="row 3000: columns"):
        list(iter_sentences(path))


def test_a_column_there_twice_is_refused(tmp_path):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "some.parquet")
    with pytest.raises(ValueError, match="columns text, text; wanted each once"):
        list(iter_sentences(tmp_path / "some.parquet"))


def test_what_is_no_utf8_is_named(tmp_path):
    text = pa.array([b"fine", b"caf\xe9"]).view(pa.string())
    with pytest.raises(ValueError, match=r"some.parquet: row 2: column 'text': not UTF-8"):
        list(iter_sentences(parquet(tmp_path, {"id": ["a", "b"], "text": text})))


@pytest.mark.parametrize("cut", [0, 3, 100, -3])
def test_what_is_not_parquet_is_refused(tmp_path, cut):
    path = parquet(tmp_path, {"text": ["a b c"] * 1000})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"some\.parquet: row 1: not readable as Parquet"):
        list(iter_sentences(path))
    with pytest.raises(FileNotFoundError):
        list(iter_sentences(tmp_path / "absent.parquet"))


def test_memory_does_not_grow_with_one_large_row_group(tmp_path):
    """What Arrow allocates at most while 40,000 rows of 3 kB lie in one row group."""
    words = pa.array([[f"{number:05d}" + "x" * 3000] for number in range(40_000)])
    path = parquet(tmp_path, {"words": words}, row_group_size=40_000, compression="none", use_dictionary=False)
    assert words.nbytes > 100e6
    pool, usual = pa.proxy_memory_pool(pa.system_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        assert sum(1 for _ in iter_sentences(path)) == 40_000
    finally:
        pa.set_memory_pool(usual)
    assert 0 < pool.max_memory() < 30e6
