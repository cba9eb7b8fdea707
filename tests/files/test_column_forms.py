"""The column files that people have are read without options, and as their formats' documentation says."""

from __future__ import annotations

import gzip

import pytest

from ctxner.config import load_config
from ctxner.files.columns import ColumnFormat
from ctxner.files.documents import iter_documents
from ctxner.files.paths import kind_of
from ctxner.files.sentences import read_sentences
from ctxner.labels import gold_spans
from ctxner.schema import Sentence, Span
from tests.files.column_samples import (
    CONLL_2003,
    CONLL_2012,
    FORMS,
    GERMEVAL,
    NORNE,
    WIKINER,
    mentions,
    remarks,
    write,
)


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_says_what_it_is_needs_no_options(tmp_path, form):
    content, recognised, num_mentions, documents = FORMS[form]
    path = write(tmp_path, content)
    result = read_sentences(path)
    assert [len(gold_spans(sentence)) for sentence in result.sentences] == num_mentions
    assert [sentence.document for sentence in result.sentences] == documents
    assert result.recognised == {str(path): recognised}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["eng.train", "dev", "x.v0_gold_conll", "esp.testa.gz"])
def test_a_file_with_an_odd_suffix_or_none_is_looked_into(tmp_path, form, name):
    content = FORMS[form][0].encode()
    path = write(tmp_path, gzip.compress(content) if name.endswith(".gz") else content, name)
    bare = write(tmp_path, content, "f.conll")
    assert kind_of(path) == "columns"
    read, wanted = (read_sentences(own).sentences for own in (path, bare))
    assert [(own.words, own.tags) for own in read] == [(own.words, own.tags) for own in wanted]


@pytest.mark.parametrize("form", FORMS)
def test_files_to_tag_have_the_words_of_a_tagged_reading(tmp_path, form):
    path = write(tmp_path, FORMS[form][0])
    documents = list(iter_documents(path))
    assert [(own.id, own.words) for own in documents] == [(own.id, own.words) for own in read_sentences(path).sentences]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00", "NUL: the file is binary or UTF-16"),
        (b"a text\nof lines\n", r"unknown suffix '\.train'.*, or words and tags in columns"),
        (b"", "unknown suffix"),
    ],
)
def test_other_files_with_an_odd_suffix_are_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"some\.train: {message}"):
        read_sentences(write(tmp_path, content, "some.train"))


def test_conll_2003_as_released_is_read_as_iob1(tmp_path):
    one, two = read_sentences(write(tmp_path, CONLL_2003)).sentences
    assert mentions(one) == [("U.N.", "ORG"), ("Ekeus", "PER"), ("Baghdad", "LOC")]
    assert mentions(two) == [("Britain", "LOC"), ("Spain", "LOC"), ("Sweden", "LOC")]


def test_conll_u_gives_ids_documents_and_syntactic_words(tmp_path):
    result = read_sentences(write(tmp_path, NORNE))
    one, two = result.sentences
    assert (one.id, two.id) == ("000001", "000002")
    assert one.words == ("Hun", "bor", "i", "vannet", "i", "New", "York")
    assert two.words == ("#", "Kari")
    assert mentions(one) == [("New York", "GPE_LOC")]
    assert remarks(result) == {
        "multiword tokens (1-2): their words are read": ["6"],
        "empty nodes (1.1): left out": ["9"],
    }


def test_conll_u_without_names_has_no_gold_and_says_so(tmp_path):
    path = write(tmp_path, "1\ta\t_\tX\t_\t_\t0\troot\t_\tSpaceAfter=No\n", "f.conllu")
    result = read_sentences(path)
    assert result.sentences == [Sentence("f-0", ("a",))]
    assert result.recognised == {str(path): "CoNLL-U, no tags (no name= in MISC)"}


def test_conll_u_with_tags_as_its_last_column_is_read_too(tmp_path):
    rest = "_\tX\t_\t_\t0\troot\t_"
    (sentence,) = read_sentences(write(tmp_path, f"1\ta\t{rest}\tB-x\n2\tb\t{rest}\tO\n")).sentences
    assert (sentence.words, sentence.tags) == (("a", "b"), ("S-x", "O"))


def test_gold_on_the_line_of_a_multiword_token_is_not_dropped_in_silence(tmp_path):
    rest = "_\tX\t_\t_\t0\troot\t_"
    path = write(tmp_path, f"1-2\tdel\t{rest}\tname=B-x\n1\tde\t{rest}\tname=O\n2\tel\t{rest}\t_\n")
    assert remarks(read_sentences(path))["mentions on lines of multiword tokens or empty nodes: not read"] == ["1"]


def test_an_id_that_a_column_file_gives_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r":15: id '000001' was used before at .*f.conll:4"):
        read_sentences(write(tmp_path, NORNE.replace("000002", "000001")))


def test_brackets_of_conll_2012_are_mentions_and_of_nested_ones_the_outermost_is_a_tag(tmp_path):
    result = read_sentences(write(tmp_path, CONLL_2012))
    assert [mentions(own) for own in result.sentences] == [
        [("Vandenberg and", "PERSON"), ("Hong", "GPE")],
        [],
        [("No #", "ORG"), ("#", "GPE")],
    ]
    assert [own.tags for own in result.sentences][2] == ("B-ORG", "E-ORG")
    assert remarks(result) == {"mentions that overlap a longer one": ["11: [3, 4, 'GPE'] '#'"]}


def test_nested_brackets_are_counted_each_once(tmp_path):
    path = write(tmp_path, "a\t(X(Y*\nb\t(Z)\nc\t*))\nd\t(X(X))\n")
    result = read_sentences(path)
    assert gold_spans(result.sentences[0]) == (Span(0, 3, "X"), Span(0, 3, "Y"), Span(1, 2, "Z"), Span(3, 4, "X"))
    assert result.sentences[0].tags == ("B-X", "I-X", "E-X", "S-X")
    assert sorted(remarks(result)) == ["mentions given twice", "mentions that overlap a longer one"]


@pytest.mark.parametrize(("content", "line_no"), [("conll-2012", 11), ("germeval", 10)])
def test_nested_mentions_of_column_files_are_refused_where_asked(tmp_path, content, line_no):
    path = write(tmp_path, {"conll-2012": CONLL_2012, "germeval": GERMEVAL}[content])
    assert len(read_sentences(path, ColumnFormat(overlaps="longest")).sentences) in (2, 3)
    with pytest.raises(ValueError, match=rf"f.conll:{line_no}: entities .* overlap, .*data.overlaps=longest"):
        read_sentences(path, ColumnFormat(overlaps="refuse"))
    untagged = ColumnFormat(overlaps="refuse", tag_column=None)
    assert all(own.tags is None and own.text is None for own in read_sentences(path, untagged).sentences)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("(A* *", r": the bracket \(A is not closed at the end of the sentence"),
        ("* *)", r": '\*\)' closes a bracket that is not open"),
        ("(A* B)", r": 'B\)' is not a bracketed tag; wanted \*, \(TYPE\*, \*\) or \(TYPE\)"),
    ],
)
def test_broken_brackets_are_refused_by_line(tmp_path, cells, message):
    first, second = cells.split()
    head = "c\t*\nd\t(A)\n\n" * 500  # it decides what the cells are
    with pytest.raises(ValueError, match=rf"f.conll:1502{message}"):
        read_sentences(write(tmp_path, f"{head}a\t{first}\nb\t{second}\n"))


def test_the_second_tag_column_of_germeval_is_of_nested_mentions_and_can_be_read_alone(tmp_path):
    path = write(tmp_path, GERMEVAL, "f.tsv")
    result = read_sentences(path)
    assert [mentions(own) for own in result.sentences] == [
        [("Rostocker", "LOCderiv")],
        [("FC Kickers Darmstadt", "ORG"), ("Darmstadt", "LOC")],
    ]
    assert result.sentences[1].tags == ("B-ORG", "I-ORG", "E-ORG")
    told = "nested mentions in column 3 (--set data.tag_column=3 reads it alone, 2 the outer ones alone)"
    assert remarks(result) == {
        told: ["10"],
        "mentions that overlap a longer one": ["10: [11, 20, 'LOC'] 'Darmstadt'"],
    }
    for column, wanted in ((2, [("FC Kickers Darmstadt", "ORG")]), (3, [("Darmstadt", "LOC")])):
        format = load_config(None, [f"data.tag_column={column}", "data.overlaps=refuse"]).data.column_format()
        alone = read_sentences(path, format)
        assert (mentions(alone.sentences[1]), alone.remarks) == (wanted, {})


def test_a_nested_column_may_have_mentions_outside_of_others_and_longer_ones(tmp_path):
    rows = ["1\ta\tO\tB-X", "2\tb\tB-Y\tB-Z", "3\tc\tO\tI-Z", "4\td\tB-Y\tB-Y"]
    (sentence,) = read_sentences(write(tmp_path, "\n".join(rows) + "\n")).sentences
    assert gold_spans(sentence) == (Span(0, 1, "X"), Span(1, 2, "Y"), Span(1, 3, "Z"), Span(3, 4, "Y"))
    assert sentence.tags == ("S-X", "B-Z", "E-Z", "S-Y")


def test_words_of_piped_lines_may_hold_the_separator(tmp_path):
    one, two = read_sentences(write(tmp_path, WIKINER)).sentences
    assert one.words == ("The", "Oxford", "Companion", "is", "a|b", "book")
    assert mentions(two) == [("Paris", "LOC"), ("France", "LOC")]


def test_one_piped_word_per_line_and_blank_lines_are_read_too(tmp_path):
    one, two = read_sentences(write(tmp_path, "Ann|B-PER\nsings|O\n\nBo|B-PER\n")).sentences
    assert (one.words, one.tags, two.words) == (("Ann", "sings"), ("S-PER", "O"), ("Bo",))
