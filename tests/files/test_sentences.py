"""Column files and JSON lines, as they are in the wild."""

from __future__ import annotations

import gzip
import json
import logging
import re
import tracemalloc
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxner.files.columns import ColumnFormat, write_columns
from ctxner.files.documents import iter_documents
from ctxner.files.jsonl import write_jsonl
from ctxner.files.lines import ReadCounts
from ctxner.files.sentences import iter_sentences, read_sentences
from ctxner.schema import Sentence, Span
from ctxner.schemes import SCHEMES, spans_to_tags

SHARED = Path(__file__).parent.parent.parent.parent / "shared" / "data"
FIELDS = ("words", "tags")
SENTENCES = pa.schema([("id", pa.string()), ("words", pa.list_(pa.string())), ("tags", pa.list_(pa.string()))])
TEXT = st.text(max_size=60) | st.text(alphabet="aZ9 .,'’-_@#:/&;s\n\t\ud800\u200d\u200b\u0301日👍🏽ि", max_size=60)


def columns(tmp_path: Path, content: str | bytes, name: str = "some.conll") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, **options) -> list[tuple[str, str]]:
    """`words / tags` of each sentence."""
    sentences = read_sentences(path, ColumnFormat(**options)).sentences
    return [(" ".join(sentence.words), " ".join(sentence.tags or ())) for sentence in sentences]


@pytest.mark.parametrize(
    "content",
    [
        "Bo\tB-per\nran\tO\n\nHi\tO\n",
        "Bo B-per\nran O\n\nHi O",
        "Bo   B-per\nran   O\n \t \nHi O\n\n\n",
        "Bo\tB-per\r\nran\tO\r\n\r\nHi\tO\r\n",
        "\ufeffBo\tB-per\nran\tO\n\nHi\tO\n",
        "-DOCSTART- -X- O\n\nBo NN B-per\nran NN O\n\n-DOCSTART- O\nHi NN O\n",
        "# sent_id = 1\n# text = Bo ran\nBo\tB-per\nran\tO\n\n# sent_id = 2\nHi\tO\n",
    ],
    ids=["tab", "space", "blanks", "crlf", "bom", "docstart", "comments"],
)
def test_layouts_found_in_the_wild_read_the_same(tmp_path, content):
    path = columns(tmp_path, content)
    assert read(path) == [("Bo ran", "S-per O"), ("Hi", "O")]
    assert [sentence.id for sentence in read_sentences(path).sentences] == ["some-0", "some-1"]


def test_docstart_lines_of_column_files_begin_documents(tmp_path):
    mark = "-DOCSTART- -X- O\n"
    content = f"{mark}\na NN O\n \t \nb NN O\n{mark}c NN O\n\n{mark}{mark}d NN O\n"
    (tmp_path / "other.conll").write_text(f"e NN O\n\n{mark}f NN O\n")
    path = columns(tmp_path, content)
    assert [(own.words[0], own.document) for own in read_sentences(tmp_path).sentences] == [
        ("e", None),  # nothing tells where its document began
        ("f", "other-document-0"),
        ("a", "some-document-0"),
        ("b", "some-document-0"),
        ("c", "some-document-1"),
        ("d", "some-document-3"),
    ]
    assert next(iter_sentences(path, id_prefix="x")).document == "x-document-0"


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [("IOB1", "I-a I-a B-a I-b O"), ("IOB2", "B-a I-a B-a B-b O"), ("BMEWO", "B-a E-a W-a W-b O")],
)
def test_every_scheme_becomes_bioes(tmp_path, scheme, tags):
    path = columns(tmp_path, "".join(f"w\t{tag}\n" for tag in tags.split()))
    assert read(path, scheme=scheme) == [("w w w w w", "B-a E-a S-a S-b O")]


def test_any_columns_can_be_chosen_or_the_tags_left_out(tmp_path):
    path = columns(tmp_path, "1 B-x Bo NN\n2 O ran VB\n")
    assert read(path, token_column=2, tag_column=1) == [("Bo ran", "S-x O")]
    assert read(path, token_column=-2, tag_column=1) == [("Bo ran", "S-x O")]
    assert read_sentences(path, ColumnFormat(2, None)).sentences == [Sentence("some-0", ("Bo", "ran"))]


def test_crlf_does_not_reach_a_token_in_the_last_column(tmp_path):
    path = columns(tmp_path, "B-x\tBo\r\nO\tran\r\n")
    assert read(path, token_column=-1, tag_column=0) == [("Bo ran", "S-x O")]


def test_hash_tags_are_words_and_not_comments(tmp_path):
    path = columns(tmp_path, "#Monday\tO\n#\tO\n# x\tO\n\n#\tO\n")
    assert read_sentences(path, ColumnFormat()).sentences[0].words == ("#Monday", "#", "# x")


def test_empty_tokens_keep_their_place_and_are_counted(tmp_path, caplog):
    path = columns(tmp_path, "Bo\tB-per\n\tI-per\nran\tO\n \tO\n")
    with caplog.at_level(logging.WARNING):
        result = read_sentences(path, ColumnFormat())
    assert result.sentences[0].words == ("Bo", "_", "ran", "_")
    assert result.sentences[0].tags == ("B-per", "E-per", "O", "O")
    assert result.num_empty_tokens == 2
    assert "'num_empty_tokens': 2" in caplog.text


def test_of_several_tags_the_continuing_one_is_kept_else_the_first(tmp_path):
    content = "a\tB-person,B-group\nb\tI-group,I-person\nc\tO,B-group\nd\tO, O\ne\tO\n"
    path = columns(tmp_path, content)
    assert read(path) == [("a b c d e", "B-person E-person S-group O O")]
    assert read_sentences(path, ColumnFormat()).num_multi_tags == 4


def test_illegal_sequences_are_repaired_only_when_asked_and_counted(tmp_path):
    path = columns(tmp_path, "a\tO\n\nb\tO\nc\tI-x\nd\tI-y\n")
    hint = "the whole file is legal as IOB1: --set data.scheme=auto"
    with pytest.raises(ValueError, match=rf"some.conll:4: tag 'I-x' after 'O' is not legal IOB2; wanted B-x; {hint}"):
        read(path, scheme="IOB2")
    result = read_sentences(path, ColumnFormat(scheme="IOB2", repair=True))
    assert result.sentences[1].tags == ("O", "S-x", "S-y")
    assert result.num_repaired_tags == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\tO\nb\xe9\tO\n", r":2: not UTF-8: byte 0xe9 at offset 5; convert it"),
        (b"\xff\xfea\0\t\0O\0\n\0", r":1: NUL at byte 3: the file is binary or UTF-16"),
        (b"\x89PNG\r\n\x1a\n\x00", r":1: not UTF-8: byte 0x89 at offset 0"),
        (b"a\tO\n\x00\tO\n", r":2: NUL at byte 4"),
        (b"a\tO\n\xed\xa0\x80\tO\n", r":2: not UTF-8: byte 0xed at offset 4"),
        (b"", r"some.conll: no sentence in the file; wanted one word"),
        (b"\n\n-DOCSTART-\n", r"no sentence in the file"),
        (b"a\tO\nb\n", r":2: 1 columns in \['b'\], too few"),
        (b"a O\n O\n", r":2: 1 columns in \['O'\], too few .* an empty token needs tabs"),
        (b"a NN I-NP O\nb NN I-NP\n", r":2: 3 columns .* but 4 in the sentence's first line"),
        (b"a\tNN\n", r":1: 'NN' is not a tag of IOB2; .* is this the tag column\? --set data.tag_column=N"),
        (b"a\tO\nb\tI-x\nc\tE-y\n", r":2: tag 'I-x' after 'O' is not legal BIOES.*: 1 of 1 sentences are illegal"),
        (b"a\t\n", r":1: '' is not a tag"),
    ],
)
def test_bad_column_files_are_refused_with_line_and_remedy(tmp_path, content, message):
    path = columns(tmp_path, content)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(tmp_path))}.*{message}"):
        read(path)


def test_no_repair_guesses_at_a_malformed_tag(tmp_path):
    with pytest.raises(ValueError, match=r"some.conll:2: 'NN' is not a tag"):
        read(columns(tmp_path, "a\tO\nb\tNN\n"), scheme="IOB2", repair=True)
    with pytest.raises(ValueError, match=r"some.conll:2: 'NN' is not a tag"):
        read(columns(tmp_path, "a\tB-x\nb\tNN\n"), repair=True)


def test_control_characters_only_end_lines_where_they_should(tmp_path):
    words = ("a\x0b", "\x1b[0m", "b\x85c", "d\u2028e", "f\rg", "x" * 100_000)
    path = tmp_path / "some.conll"
    write_columns([Sentence("some-0", words, ("O",) * len(words))], path)
    assert read_sentences(path, ColumnFormat()).sentences[0].words == words


@pytest.mark.parametrize(
    "options",
    [
        {"scheme": "IOBX"},
        {"token_column": 1, "tag_column": 1},
        {"empty_token": " "},
        {"empty_token": ""},
        {"encoding": "cp1253x"},
        {"encoding": "rot13"},
    ],
)
def test_senseless_formats_are_refused(options):
    with pytest.raises(ValueError, match=r"wanted one of .*, or auto|both|blank|unknown text encoding"):
        ColumnFormat(**options)


WORD = st.text(min_size=1, max_size=8).filter(lambda word: word.strip()) | st.sampled_from(
    ["#", "# x", "a b", "\ufeff"]
)


@st.composite
def tagged_sentences(draw, word=WORD):
    sentences = []
    for n in range(draw(st.integers(1, 4))):
        words = tuple(draw(st.lists(word, min_size=1, max_size=6)))
        cuts = sorted(draw(st.sets(st.integers(0, len(words)))))
        types = st.sampled_from(["per", "creative-work", None])
        spans = [Span(a, b, type) for a, b in pairwise(cuts) if (type := draw(types))]
        sentences.append(Sentence(f"some-{n}", words, spans_to_tags(spans, len(words))))
    return sentences


@settings(max_examples=60, deadline=None)
@given(sentences=tagged_sentences(), scheme=st.sampled_from(SCHEMES), suffix=st.sampled_from(["conll", "tsv.gz"]))
def test_column_files_round_trip_or_refuse(tmp_path_factory, sentences, scheme, suffix):
    path = tmp_path_factory.mktemp("columns") / f"some.{suffix}"
    try:
        write_columns(sentences, path, scheme=scheme)
    except ValueError:
        refused = re.compile(r"[\t\n\0]|-DOCSTART-")
        assert any(refused.search(word) for sentence in sentences for word in sentence.words)
        assert list(path.parent.iterdir()) == []
        return
    assert read_sentences(path, ColumnFormat(scheme=scheme)).sentences == sentences


@pytest.mark.parametrize("word", ["a\tb", "a\nb", "\r", " ", "", "-DOCSTART-", "a\0", "\ud800"])
def test_words_that_columns_cannot_hold_are_refused_and_the_old_file_stays(tmp_path, word):
    path = columns(tmp_path, "old\tO\n")
    with pytest.raises(ValueError, match=r"s-9.*`--to jsonl`|lone surrogate"):
        write_columns([Sentence("s-8", ("fine",), ("O",)), Sentence("s-9", (word,), ("O",))], path)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old\tO\n"]


@pytest.mark.parametrize("word", ["a b", "# x", "#", "x\r"])
def test_untagged_words_are_written_only_if_they_come_back(tmp_path, word):
    path = tmp_path / "some.conll"
    sentences = [Sentence("some-0", (word, "y"))]
    if word == "#":
        write_columns(sentences, path)
        assert read_sentences(path, ColumnFormat(tag_column=None)).sentences == sentences
    else:
        with pytest.raises(ValueError, match="read back differently"):
            write_columns(sentences, path)


def test_a_sentence_without_words_has_no_place_in_columns(tmp_path):
    with pytest.raises(ValueError, match="'e' has no words"):
        write_columns([Sentence("e", ())], tmp_path / "x.conll")


def jsonl(tmp_path: Path, *records: object) -> Path:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    return columns(tmp_path, "\n".join(lines) + "\n", "some.jsonl")


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


def test_files_are_chosen_by_suffix_also_when_compressed(tmp_path):
    path = tmp_path / "dev.BIO.gz"
    path.write_bytes(gzip.compress(b"a\tO\n"))
    assert read_sentences(path).sentences == [Sentence("dev-0", ("a",), ("O",))]
    assert read_sentences(path, id_prefix="x").sentences[0].id == "x-0"
    with pytest.raises(ValueError, match=r"unknown suffix '.pdf'; wanted .jsonl or .conll"):
        read_sentences(tmp_path / "a.pdf")
    with pytest.raises(FileNotFoundError, match=r"absent\.conll"):
        read_sentences(tmp_path / "absent.conll")


@pytest.mark.parametrize("content", [gzip.compress(b"a\tO\n" * 99)[:-9], b"a\tO\n"], ids=["cut", "plain"])
def test_broken_gzip_files_are_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"some.conll.gz: not a whole gzip file"):
        read_sentences(columns(tmp_path, content, "some.conll.gz"))


@pytest.mark.parametrize(
    "content", [pa.compress(b"a\tO\n" * 999, "zstd", asbytes=True)[:-9], b"a\tO\n"], ids=["cut", "plain"]
)
def test_broken_zstandard_files_are_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"some.conll.zst: not a whole zstd file"):
        read_sentences(columns(tmp_path, content, "some.conll.zst"))


def test_a_sentence_is_there_before_the_next_line_is_read(tmp_path):
    """The last line is at fault, and what stands before it comes out all the same."""
    contents = {"some.conll": "a\tO\n\nb\tO\n\nc\n", "some.jsonl": '{"text": "a"}\n{"text": "b"}\n{\n'}
    for name, content in contents.items():
        sentences = iter_sentences(columns(tmp_path, content, name))
        assert [next(sentences).words, next(sentences).words] == [("a",), ("b",)]
        with pytest.raises(ValueError, match=rf"{name}:\d: "):
            next(sentences)


@pytest.mark.parametrize("name", ["some.conll", "some.jsonl.gz"])
def test_streaming_memory_is_eight_bytes_a_sentence(tmp_path, name):
    def peak(number: int) -> int:
        sentences = (Sentence(f"s-{n}", ("some", "words", "x"), ("O", "O", "O")) for n in range(number))
        (write_columns if name == "some.conll" else write_jsonl)(sentences, tmp_path / name)
        tracemalloc.start()
        assert sum(1 for _ in iter_sentences(tmp_path / name)) == number
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = peak(500), peak(4500)
    assert many - few < 3 * 8 * 4000  # the hashes, and once more while the array grows and is compared


@settings(max_examples=40, deadline=None)
@given(sentences=tagged_sentences(), compressed=st.sampled_from(["", ".gz", ".zst"]))
def test_all_formats_give_the_same_sentences_streamed_and_whole(tmp_path_factory, sentences, compressed):
    folder, iob = tmp_path_factory.mktemp("formats"), ColumnFormat(scheme="BIOES")
    files = [folder / f"some.jsonl{compressed}", folder / "some.parquet", folder / f"some.conll{compressed}"]
    write_jsonl(sentences, files[0])
    table = {
        "id": [own.id for own in sentences],
        **{name: [getattr(own, name) for own in sentences] for name in FIELDS},
    }
    pq.write_table(pa.table(table, schema=SENTENCES), files[1])
    try:
        write_columns(sentences, files[2], scheme="BIOES")
    except ValueError:
        files.pop()
    for file in files:
        counts = ReadCounts()
        assert list(iter_sentences(file, iob, counts=counts)) == read_sentences(file, iob).sentences == sentences
        assert counts == ReadCounts(num_sentences=len(sentences), recognised=counts.recognised)


def test_many_files_are_one_data_set_with_unique_ids(tmp_path, caplog):
    for part, text in (("b", "x\tO\n\ny\tO\n"), ("a", "# c\n\tO\n")):
        (tmp_path / part).mkdir()
        (tmp_path / part / "part.conll").write_text(text)
    (tmp_path / "own.jsonl").write_text('{"id": "mine", "words": ["z"], "tags": ["O"]}\n{"text": "w"}\n')
    with caplog.at_level(logging.WARNING):
        result = read_sentences(tmp_path)
    assert [(own.id, own.words) for own in result.sentences] == [
        ("a/part.conll-0", ("_",)),
        ("b/part.conll-0", ("x",)),
        ("b/part.conll-1", ("y",)),
        ("mine", ("z",)),
        ("own-1", ("w",)),
    ]
    assert (result.num_sentences, result.num_comments, result.num_empty_tokens) == (5, 1, 1)
    assert "a/part.conll: 1 sentences read, with {'num_empty_tokens': 1, 'num_comments': 1}" in caplog.text
    assert len(read_sentences(tmp_path / "*" / "part.*").sentences) == 3


def test_an_id_that_two_files_give_is_refused(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text('{"id": "same", "text": "z"}\n')
    with pytest.raises(ValueError, match=r"\*.jsonl: two of the files give the sentence id 'same'; ids must be unique"):
        read_sentences(tmp_path / "*.jsonl")


def test_an_empty_file_among_many_is_named(tmp_path):
    (tmp_path / "a.conll").write_text("x\tO\n")
    (tmp_path / "b.conll").write_text("\n")
    with pytest.raises(ValueError, match=r"b\.conll: no sentence in the file"):
        read_sentences(tmp_path)


def test_the_kind_that_is_given_beats_the_suffix(tmp_path):
    path = columns(tmp_path, "Bo ran\nHi all\n", "some.log")
    assert [own.words for own in iter_sentences(path, kind="text")] == [("Bo", "ran"), ("Hi", "all")]
    assert [own.words for own in iter_sentences(path, ColumnFormat(tag_column=None), kind="columns")] == [("Bo", "Hi")]
    with pytest.raises(ValueError, match=r"some.log:1: not JSON"):
        list(iter_sentences(path, kind="jsonl"))


def test_ids_that_utf8_cannot_express_are_made_so(tmp_path):
    assert [own.id for own in read_sentences(jsonl(tmp_path, {"id": "a\ud800", "text": "x"})).sentences] == ["a\ufffd"]


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "num_sentences"),
    [("wnut17", (3394, 1009, 1287)), ("conllpp", (14041, 3250, 3453)), ("bc5cdr", (4560, 4581, 4797))],
)
def test_shared_data_reads_strictly_as_iob2_with_its_documented_sizes(tmp_path, name, num_sentences):
    if not (SHARED / name).is_dir():
        pytest.skip(f"needs the data set {name} in ../shared/data")
    for split, wanted in zip(("train", "dev", "test"), num_sentences, strict=True):
        result = read_sentences(SHARED / name / f"{split}.conll")
        assert len(result.sentences) == wanted
        assert result.num_repaired_tags == result.num_empty_tokens == result.num_multi_tags == 0
    write_columns(result.sentences, tmp_path / "test.tsv", scheme="BMEWO")
    again = read_sentences(tmp_path / "test.tsv", ColumnFormat(scheme="BMEWO")).sentences
    # columns are written without documents, which tell how far an abbreviation reaches
    bare = [[replace(own, document=None, abbreviations=()) for own in read] for read in (again, result.sentences)]
    assert bare[0] == bare[1]


@pytest.mark.data
def test_shared_news_data_names_all_documents(tmp_path):
    if not (SHARED / "conllpp").is_dir():
        pytest.skip("needs the data set conllpp in ../shared/data")
    documents = {
        split: [s.document for s in read_sentences(SHARED / "conllpp" / f"{split}.conll").sentences]
        for split in ("train", "dev", "test")
    }
    assert {split: len(set(ids)) for split, ids in documents.items()} == {"train": 946, "dev": 216, "test": 231}
    assert all(id is not None for ids in documents.values() for id in ids)


def test_remarks_keep_their_first_places_and_add_up(caplog):
    counts, other = ReadCounts(num_sentences=1), ReadCounts()
    for line in range(1, 8):
        counts.remark("tags without prefix", f"a.conll:{line}")
    other.remark("tags without prefix", "b.conll:3")
    other.remark("nested mentions", "b.conll:4")
    other.recognised["b.conll"] = "CoNLL-2003, IOB1"
    counts.add(other)
    assert counts.remarks["tags without prefix"].count == 8
    assert counts.remarks["tags without prefix"].places == [f"a.conll:{line}" for line in range(1, 6)]
    assert counts.remarks["nested mentions"].places == ["b.conll:4"]
    with caplog.at_level("INFO"):
        counts.check("ab", "sentences")
    assert "b.conll: read as CoNLL-2003, IOB1" in caplog.text
    assert "ab: tags without prefix: 8 times, first a.conll:1" in caplog.text


def test_only_what_a_files_name_does_not_say_is_told(tmp_path, caplog):
    with caplog.at_level("INFO"):
        read_sentences(columns(tmp_path, "a\tB-x\nb\tO\n", "a.conll"))
        read_sentences(jsonl(tmp_path, {"text": "a", "entities": []}))
        assert caplog.text == ""
        read_sentences(columns(tmp_path, "a\tI-x\nb\tO\n", "b.conll"))
    assert "b.conll: read as columns, IOB1" in caplog.text
