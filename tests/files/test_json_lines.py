"""JSON lines: texts with spans or words with tags, the annotations that are refused, and faults by line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxner.files.columns import ColumnFormat
from ctxner.files.documents import iter_documents
from ctxner.files.jsonl import write_jsonl
from ctxner.files.sentences import read_sentences
from ctxner.schema import Sentence
from tests.files.sentence_files import jsonl, tagged_sentences


def entity(start: int, end: int, type: str = "x") -> dict[str, object]:
    return {"start": start, "end": end, "type": type}


@pytest.mark.parametrize(
    "gold",
    [
        {"label": [[0, 3, "PER"]]},
        {"labels": [[0, 3, "PER"]]},
        {"entities": [{"id": 5, "start_offset": 0, "end_offset": 3, "label": "PER"}], "relations": [], "Comments": []},
        {"entities": [entity(0, 3, "PER")], "label": None},
    ],
)
def test_the_forms_of_doccano_are_read_as_spans(tmp_path, gold):
    (sentence,) = read_sentences(jsonl(tmp_path, {"id": 1, "text": "Ann sings", **gold})).sentences
    assert (sentence.words, sentence.tags) == (("Ann", "sings"), ("S-PER", "O"))


def test_a_line_with_text_and_words_has_the_tags_of_its_words(tmp_path):
    record = {"text": "Ann sings", "words": ["Ann", "sings"], "tags": ["S-person", "O"], "meta": {"tags": ["x"]}}
    (sentence,) = read_sentences(jsonl(tmp_path, record)).sentences
    assert (sentence.words, sentence.tags) == (("Ann", "sings"), ("S-person", "O"))


UNREAD = [
    ({"text": "Ann sings", "tags": ["S-person", "O"]}, "'tags'"),
    ({"text": "Ann sings", "spans": [{"from": 0, "to": 3, "label_id": 7}]}, "'spans'"),
    ({"text": "Ann sings", "Annotations": [{"result": []}], "source": "x"}, "'Annotations'"),
    ({"text": "Ann sings", "entities": [entity(0, 3)], "label": [[0, 3, "PER"]]}, "'label'"),
    ({"words": ["Ann", "sings"], "ner_label": [1, 0], "url": "x"}, "'ner_label'"),
    ({"words": ["Ann"], "labels": [], "ner-tags": ["S-x"]}, "'labels', 'ner-tags'"),
    ({"words": ["Ann"], "tags": ["O"], "text": "Ann", "entities": [entity(0, 3)]}, "'entities'"),
]


@pytest.mark.parametrize(("record", "keys"), UNREAD)
def test_gold_under_a_key_that_is_not_read_is_refused_by_line_and_key(tmp_path, record, keys):
    read = "one of 'entities', 'label', 'labels' beside 'text', or 'tags' beside 'words'"
    message = rf"some\.jsonl:2: {keys}: looks like annotations and is not read; read are {read}; rename"
    with pytest.raises(ValueError, match=message):
        read_sentences(jsonl(tmp_path, {"text": "fine"}, record))


@pytest.mark.parametrize(
    "record",
    [
        *(record for record, _ in UNREAD),
        {"text": "Ann sings", "label": "positive"},
        {"text": "Ann sings", "entities": ["Ann"]},
        {"words": ["Ann", "sings"], "tags": ["music"], "scheme": "none"},
    ],
)
def test_where_gold_is_not_wanted_no_annotation_is_a_reason_to_refuse(tmp_path, record):
    """A model may be run on what others have annotated in any form."""
    with pytest.raises(ValueError, match=r"some\.jsonl:1"):
        read_sentences(jsonl(tmp_path, record))
    (sentence,) = read_sentences(tmp_path / "some.jsonl", ColumnFormat(tag_column=None)).sentences
    assert (sentence.words[0], sentence.tags) == ("Ann", None)
    assert [document.id for document in iter_documents(tmp_path / "some.jsonl")] == ["some-0"]


def test_words_with_tags_are_read_in_their_scheme(tmp_path):
    iob = {"id": "a", "words": ["x", "y", ""], "tags": ["I-p", "I-p", "O"]}
    path = jsonl(
        tmp_path, iob, "", {**iob, "id": "b", "tags": ["B-p", "E-p", "O"], "scheme": "bioes"}, {"words": ["z"]}
    )
    result = read_sentences(path, ColumnFormat(scheme="IOB1"))
    assert [sentence.tags for sentence in result.sentences] == [("B-p", "E-p", "O")] * 2 + [None]
    assert [sentence.id for sentence in result.sentences] == ["a", "b", "some-2"]
    assert result.num_empty_tokens == 2


def test_records_of_both_forms_name_their_document(tmp_path):
    records = [
        {"text": "a", "document_id": "d1"},
        {"text": "b", "entities": [], "doc_id": 7},
        {"words": ["c"], "doc_id": "d1"},
        {"words": ["d"], "document_id": None, "doc_id": "x\ud800"},
        {"words": ["e"], "document_id": ""},
        {"words": ["f"], "document_id": 0, "doc_id": 1},
        {"text": "g"},
    ]
    sentences = read_sentences(jsonl(tmp_path, *records)).sentences
    assert [own.document for own in sentences] == ["d1", "7", "d1", "x\ufffd", None, "0", "some-6"]
    assert [own.id for own in sentences] == [f"some-{number}" for number in range(7)]


def test_illegal_json_tags_are_repaired_only_when_asked(tmp_path):
    path = jsonl(tmp_path, {"words": ["x", "y"], "tags": ["O", "I-p"]}, {"words": ["x"], "tags": ["B-p"]})
    way_out = "1 of 2 sentences are illegal under the best, IOB2; --set data.repair=true"
    with pytest.raises(ValueError, match=rf"some.jsonl:1: word 1: tag 'I-p' after 'O' .* {way_out}"):
        read_sentences(path)
    result = read_sentences(path, ColumnFormat(repair=True))
    assert ([own.tags for own in result.sentences], result.num_repaired_tags) == ([("O", "S-p"), ("S-p",)], 1)


def test_json_lines_without_a_scheme_have_the_one_that_all_their_lines_allow(tmp_path):
    iob = {"words": ["x", "y"], "tags": ["I-p", "I-p"]}
    other = {"words": ["x"], "tags": ["U-p"], "scheme": "bilou"}
    result = read_sentences(jsonl(tmp_path, other, {"text": "x"}, iob, {"words": ["x"], "tags": ["I-p"]}))
    assert [own.tags for own in result.sentences] == [("S-p",), None, ("B-p", "E-p"), ("S-p",)]
    assert list(result.recognised.values()) == ["words and tags (JSON lines), IOB1"]
    with pytest.raises(ValueError, match=r"some.jsonl:1: word 0: 'I-p' .*; mend the record's tags or its 'scheme', or"):
        read_sentences(jsonl(tmp_path, {**iob, "scheme": "BMEWO"}))


def test_texts_without_words_are_skipped_and_counted(tmp_path):
    result = read_sentences(jsonl(tmp_path, {"text": ""}, {"text": " \u200b\x00\ud800"}, {"text": "👍🏽 😂"}))
    assert [(sentence.id, sentence.words) for sentence in result.sentences] == [("some-2", ("👍🏽", "😂"))]
    assert result.num_empty_texts == 2


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "wanted an object with 'text' or 'words'"),
        ('{"id": "1"}', "wanted an object with 'text' or 'words'"),
        ({"text": 5}, "'text' is 5; wanted a string"),
        ({"text": "a", "id": ["x"]}, "'id' is"),
        ({"text": "a", "entities": 3}, "'entities' is 3; wanted a list"),
        ({"text": "a", "entities": [{"start": 0, "end": 1}]}, "wanted {'start': int"),
        ({"text": "a", "label": "good"}, "'label' is 'good'; wanted a list of {'start': int"),
        ({"text": "a", "labels": [[0, 1]]}, "entity .0, 1.; wanted {'start': int"),
        ({"text": "a", "labels": [[0, 2, "x"]]}, "wanted 0 <= start < end <= 1"),
        ({"text": None}, "wanted an object with 'text' or 'words'"),
        ({"text": "abc", "entities": [entity(1, 4)]}, "wanted 0 <= start < end <= 3"),
        ({"text": "abc", "entities": [entity(1, 1)]}, "wanted 0 <= start < end"),
        ({"text": "abc", "entities": [{"start": 0.0, "end": 1, "type": "x"}]}, "wanted 0 <= start"),
        ({"text": "a  b", "entities": [entity(1, 3)]}, "covers no word, only '  '"),
        (
            {"words": ["ab"], "offsets": [[0, 2]], "text": "a"},
            "an offset is not in 'text'; wanted 0 <= start",
        ),
        ({"words": ["a"], "tags": ["O"], "beyond_tags": [[0, 1, "x"]]}, "'beyond_tags' has"),
        ({"words": ["a"], "tags": ["O"], "beyond_tags": 5}, "'beyond_tags' has 5; wanted {'start': int"),
        ({"text": "a", "doc_id": 1.0}, "'doc_id' is 1.0; wanted a string or an integer"),
        ({"words": ["a"], "document_id": True}, "'document_id' is True; wanted a string or an integer"),
        ({"words": "ab", "tags": ["O"]}, "lists of strings"),
        ({"words": ["a", "b"], "tags": ["O"]}, "1 tags for 2 words"),
        ({"words": ["a"], "offsets": [["0", 1]]}, "list of .start, end"),
        ({"words": ["a"], "tags": ["O"], "scheme": "x"}, "unknown tag scheme 'x'"),
        ({"words": ["a"], "tags": ["x"]}, "word 0: 'x' is not a tag"),
    ],
)
def test_bad_json_lines_are_refused_with_their_line(tmp_path, record, message):
    with pytest.raises(ValueError, match=rf"some\.jsonl:2: .*{message}"):
        read_sentences(jsonl(tmp_path, {"text": "fine"}, record))


def test_an_id_used_twice_is_refused_with_both_lines(tmp_path):
    path = jsonl(tmp_path, {"id": "a", "text": "x"}, {"id": "b", "text": "x"}, {"id": "a", "text": "y"})
    with pytest.raises(ValueError, match=r":3: id 'a' was used before at .*:1; ids"):
        read_sentences(path)


@settings(max_examples=60, deadline=None)
@given(tagged_sentences(word=st.text(min_size=1, max_size=6).filter(lambda word: word.strip())), st.booleans())
def test_json_lines_round_trip_everything(tmp_path_factory, sentences, compress):
    offsets = Sentence("an id\n", ("x", "yz"), None, ((0, 1), (4, 6)))
    path = tmp_path_factory.mktemp("jsonl") / f"some.jsonl{'.gz' if compress else ''}"
    write_jsonl([*sentences, offsets], path)
    assert read_sentences(path).sentences == [*sentences, offsets]


def test_ids_that_utf8_cannot_express_are_made_so(tmp_path):
    assert [own.id for own in read_sentences(jsonl(tmp_path, {"id": "a\ud800", "text": "x"})).sentences] == ["a\ufffd"]
