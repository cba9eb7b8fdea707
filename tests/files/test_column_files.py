"""Files with a word and its tag on each line: layouts, tag schemes, faults, and what is written and read back."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxner.files.columns import ColumnFormat, write_columns
from ctxner.files.sentences import iter_sentences, read_sentences
from ctxner.schema import Sentence
from ctxner.schemes import SCHEMES
from tests.files.sentence_files import columns, tagged_sentences

SHARED = Path(__file__).parent.parent.parent.parent / "shared" / "data"


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
