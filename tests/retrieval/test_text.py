"""What texts are compared by: folded characters, and words of scripts with and without blanks."""

import unicodedata

import pytest

from ctxner.files.words import split_words
from ctxner.retrieval.text import analyzed_form, folded, name_words, normalised_words, overlapping_words


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Besançon", unicodedata.normalize("NFD", "Besançon")),
        ("Straße", "STRASSE"),
        ("ﬁne", "FINE"),
        ("ΑΓΙΟΣ", "αγιος"),  # the final sigma
        ("İZMİR", "izmir"),
        ("ＡＢＣ１２", "abc12"),
        ("ｶﾞｽ", "ガス"),
        ("5 µg", "5 μg"),  # the micro sign and the Greek letter
        ("नि", unicodedata.normalize("NFD", "नि")),
    ],
)
def test_two_spellings_of_the_same_characters_are_the_same_words(first, second):
    assert normalised_words(first) == normalised_words(second)


def test_marks_belong_to_words():
    assert normalised_words("राम और रोम") == ["राम", "और", "रोम"]
    assert name_words("राम", "hi") != name_words("रोम", "hi")
    assert name_words("مُحَمَّد", "ar") == name_words("محمد", "ar")


def test_text_that_is_indexed_keeps_its_case_its_symbols_and_its_fractions():
    assert analyzed_form("Aspirin™ 2½ m² in Köln") == "Aspirin™ 2½ m² in Köln"
    assert folded("Groß İzmir") == "Gross İzmir"  # Lucene's Turkish and English lower cases differ


@pytest.mark.parametrize(
    "name", ["東京タワー", "กรุงเทพ", "น้ำ", "ວຽງຈັນ", "ន ភ្នំពេញ", "သင်္ဘော", "か\u3099す", "𠮷野家", "H₂O-3", "d'Orléans"]
)
def test_a_name_has_the_words_of_the_words_that_a_sentence_is_split_into(name):
    for form in ("NFC", "NFD"):
        text = unicodedata.normalize(form, name)
        words = [text[start:end] for start, end in split_words(text)]
        assert [part for word in words for part in name_words(word, "th")] == name_words(name, "th")


@pytest.mark.parametrize("name", ["서울", "제주도", "이순신", "한국"])
@pytest.mark.parametrize("particle", ["", "에", "에서", "은", "이다"])
def test_a_korean_name_begins_the_word_in_which_particles_follow_it(name, particle):
    names, words = name_words(name, "ko"), name_words(name + particle, "ko")
    assert words[: len(names)] == names
    assert len(words) == len(names) + bool(particle)


def test_pairs_stand_for_characters_where_there_are_no_blanks():
    assert overlapping_words("我住在上海。Nice 東 京") == ["我住", "住在", "在上", "上海", "nice", "東京"]
    assert overlapping_words("we met") == ["we", "met"]
