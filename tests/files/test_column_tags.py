"""Tags of column files: a scheme and a spelling that make the whole file legal, and the way out where none does.

BILOU: https://spacy.io/api/doc (`biluo_tags_to_offsets`); BMES: https://github.com/jiesutd/LatticeLSTM
"""

from __future__ import annotations

import pytest

from ctxner.config import load_config
from ctxner.files.sentences import read_sentences
from tests.files.column_samples import CONLL_2003, remarks, write


@pytest.mark.parametrize(
    ("tags", "recognised", "bioes"),
    [
        ("I-a I-a B-a I-b O", "IOB1", "B-a E-a S-a S-b O"),
        ("B-a I-a B-a B-b O", "IOB2", "B-a E-a S-a S-b O"),
        ("B-a E-a S-a S-b O", "BIOES", "B-a E-a S-a S-b O"),
        ("B-a I-a L-a U-b O", "BILOU", "B-a I-a E-a S-b O"),
        ("B-a M-a E-a W-b O", "BMEWO", "B-a I-a E-a S-b O"),
        ("B-a M-a E-a S-b O", "BMES", "B-a I-a E-a S-b O"),
        ("b-PER i-PER o", "IOB2, lower-case prefixes", "B-PER E-PER O"),
        ("u-per o b-loc l-loc", "BILOU, lower-case prefixes", "S-per O B-loc E-loc"),
        ("PER-B PER-I O", "IOB2, suffixes", "B-PER E-PER O"),
        ("creative-work-S O", "BIOES, suffixes", "S-creative-work O"),
        ("O O", "IOB2", "O O"),
    ],
)
def test_scheme_and_spelling_are_those_that_make_all_sentences_legal(tmp_path, tags, recognised, bioes):
    lines = "".join(f"w\t{tag}\n" for tag in tags.split())
    path = write(tmp_path, f"{lines}\n{lines}")
    result = read_sentences(path)
    assert [" ".join(own.tags) for own in result.sentences] == [bioes] * 2
    assert result.recognised == {str(path): f"columns, {recognised}"}
    assert not result.remarks


def test_a_scheme_is_that_of_the_last_sentence_too(tmp_path):
    """The first sentences of an IOB1 file are legal IOB2 as well; the whole file is not."""
    path = write(tmp_path, "a\tO\n\n" * 3000 + "b\tI-x\n")
    result = read_sentences(path)
    assert result.sentences[-1].tags == ("S-x",)
    assert result.recognised == {str(path): "columns, IOB1"}


def test_neighbouring_equal_tags_without_prefix_are_one_mention_and_that_is_said(tmp_path):
    path = write(tmp_path, "a\tPER\nb\tPER\nc\tLOC\nd\tO\n\ne\tO\n\nf\tO\ng\tLOC\n")
    result = read_sentences(path)
    assert [own.tags for own in result.sentences] == [("B-PER", "E-PER", "S-LOC", "O"), ("O",), ("O", "S-LOC")]
    assert remarks(result) == {"tags without prefix (neighbouring equal tags are one mention)": ["1", "9"]}


def test_tags_without_a_type_have_the_type_entity(tmp_path):
    result = read_sentences(write(tmp_path, "a\tB\nb\tI\nc\tO\n"))
    assert result.sentences[0].tags == ("B-entity", "E-entity", "O")
    assert remarks(result) == {"tags without type (read as 'entity')": ["1"]}


@pytest.mark.parametrize("tags", [["NN", "VB"], ["O", "^", "N"], ["O", "PER", "B-PER"], ["O", "3", "1"], ["O", ""]])
def test_other_columns_are_not_taken_for_tags(tmp_path, tags):
    with pytest.raises(ValueError, match=r"is not a tag .* is this the tag column\? --set data\.tag_column=N"):
        read_sentences(write(tmp_path, "".join(f"w\t{tag}\n" for tag in tags)))


def test_a_column_of_many_words_is_not_one_of_types(tmp_path):
    with pytest.raises(ValueError, match=r"f.conll:2: 'word0' is not a tag"):
        read_sentences(write(tmp_path, "w\tO\n" + "".join(f"w\tword{n}\n\n" for n in range(200))))


ILLEGAL = "a\tO\nb\tB-x\n\nc\tO\nd\tI-x\n\ne\tB-x\nf\tI-x\ng\tB-x\n\nh\tO\ni\tI-x\n"  # IOB1: 2 illegal, IOB2: 2


def test_a_file_that_no_scheme_allows_says_how_many_sentences_and_the_way_out(tmp_path):
    path = write(tmp_path, ILLEGAL)
    message = (
        r":5: tag 'I-x' after 'O' is not legal IOB2; wanted B-x; no scheme allows the whole file: 2 of 4 sentences are "
        r"illegal under the best, IOB2; --set data\.repair=true reads them by conlleval's rules and counts the changes"
    )
    with pytest.raises(ValueError, match=message):
        read_sentences(path)
    result = read_sentences(path, load_config(None, ["data.repair=true"]).data.column_format())
    assert [own.tags[-1] for own in result.sentences] == ["S-x"] * 4
    assert result.num_repaired_tags == 2


@pytest.mark.parametrize(
    ("content", "scheme"),
    [(ILLEGAL, "IOB1"), (ILLEGAL, "BILOU"), (CONLL_2003, "IOB2"), (CONLL_2003, "BIOES"), ("a\tB-x\nb\tL-x\n", "BMEWO")],
)
def test_following_the_hints_leads_to_a_reading_and_never_in_a_circle(tmp_path, content, scheme):
    path, options = write(tmp_path, content), [f"data.scheme={scheme}"]
    with pytest.raises(ValueError, match="--set ") as refused:
        read_sentences(path, load_config(None, options).data.column_format())
    options += [word for word in str(refused.value).split() if word.startswith("data.")]
    assert read_sentences(path, load_config(None, options).data.column_format()).sentences


def test_an_explicit_scheme_is_a_check_and_its_hint_speaks_of_the_whole_file(tmp_path):
    path = write(tmp_path, CONLL_2003)
    with pytest.raises(ValueError, match=r":3: tag 'I-ORG' at the start .*whole file is legal as IOB1: --set data.sch"):
        read_sentences(path, load_config(None, ["data.scheme=IOB2"]).data.column_format())
    result = read_sentences(path, load_config(None, ["data.scheme=iob1"]).data.column_format())
    assert (len(result.sentences), result.recognised) == (2, {})
