"""Word and sentence splitting: offsets, coverage, and time on hostile text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxner.files.words import split_sentences, split_words
from tests.cpu_time import assert_linear

# printable to Python, but never in a word
IGNORED = dict.fromkeys([*range(0xFE00, 0xFE10), *range(0xFFF0, 0x10000), *range(0xE0100, 0xE01F0)])
TEXT = st.text(max_size=60) | st.text(alphabet="aZ9 .,'’-_@#:/&;s\n\t\ud800\u200d\u200b\u0301日👍🏽ि", max_size=60)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("@paulwalk It's the view, I don't", "@paulwalk It 's the view , I don't"),
        ("see http://bit.ly/a0F3dO. (www.x.org/a_(b))!", "see http://bit.ly/a0F3dO . ( www.x.org/a_(b )) !"),
        ("#NowPlaying 10:30 30,000 $5.50 100% 1/2", "#NowPlaying 10:30 30,000 $5.50 100% 1/2"),
        ("Sci-fi AT&T x&amp;y p.m. U.S. O’Neil’s", "Sci-fi AT&T x &amp; y p.m. U.S. O’Neil ’s"),
        ("great :) :D <3 ... !!! -_-", "great :) :D <3 ... !!! -_-"),
        ("Amazon.com me@x.co.uk end.Start", "Amazon.com me@x.co.uk end . Start"),
        ("👍🏽👍🏽❤️ 👩‍👩‍👧 🇩🇪🇫🇷", "👍🏽 👍🏽 ❤️ 👩‍👩‍👧 🇩🇪 🇫🇷"),
        ("हिन्दी में e\u0301a 東京 か\u3099", "हिन्दी में e\u0301a 東 京 か\u3099"),
        ("ไปเที่ยวเกาะสมุย", "ไป เที่ ย ว เกาะ ส มุ ย"),  # Thai clusters; a vowel written first stays with its consonant
        ("ຢູ່ວຽງຈັນ", "ຢູ່ ວຽ ງ ຈັ ນ"),
        ("នៅភ្នំពេញ", "នៅ ភ្នំ ពេ ញ"),  # a subscript stays with what it is written under
        ("ရန်ကုန်မြို့ ဗုဒ္ဓ", "ရန် ကုန် မြို့ ဗုဒ္ဓ"),  # a killed consonant ends a syllable
        ("รถBMWคันที่๑๒", "ร ถ BMW คั น ที่ ๑๒"),
        ("\ufeffa\u200bb\x00c \ud800d\ufffd", "a b c d"),
        ("", ""),
    ],
)
def test_social_text_is_split_into_sensible_words(text, words):
    assert [text[a:b] for a, b in split_words(text)] == words.split()


@settings(deadline=None)
@given(TEXT)
def test_words_are_in_order_and_cover_everything_visible(text):
    position = 0
    for start, end in [*split_words(text), (len(text), len(text) + 1)]:
        assert position <= start < end
        gap = text[position:start]
        assert not any(character.isprintable() and not character.isspace() for character in gap.translate(IGNORED))
        position = end


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ('Mr. J. Smith left. He said "Go." Then', ["Mr. J. Smith left.", 'He said "Go."', "Then"]),
        ("one\ntwo\r\n\r\n three\u2028four", ["one", "two", "three", "four"]),
        ("so... what? Yes! v1.5 e.g. this", ["so... what?", "Yes! v1.5 e.g. this"]),
        ("東京。大阪", ["東京。", "大阪"]),
        (" \n", []),
    ],
)
def test_sentences_end_where_they_should(text, sentences):
    assert [text[a:b] for a, b in split_sentences(text)] == sentences


@settings(deadline=None)
@given(TEXT, st.integers(1, 5))
def test_sentences_hold_every_word_once_and_no_more_than_allowed(text, max_words):
    sentences = split_sentences(text, max_words=max_words)
    words = [(a, b) for a, b in split_words(text)]
    for start, end in sentences:
        inside = [word for word in words if start <= word[0] and word[1] <= end]
        assert 1 <= len(inside) <= max_words
        assert (inside[0][0], inside[-1][1]) == (start, end)
        assert "\n" not in text[start:end]
    assert sum(start <= a < end for a, _ in words for start, end in sentences) == len(words)


def test_sentences_of_no_words_cannot_be_asked_for():
    with pytest.raises(ValueError, match="max_words is 0"):
        split_sentences("a", max_words=0)


HOSTILE = (
    "a|a.|A.B.|http://|www.|.|a-|1:|a@|&amp|@|don't |👍🏽|\u200d|x\u200d|-_|日|'s|a.com.|1.1.|<|a'|$1|a/|a.aa|a@a."
    "|ก|เ|ะ|กั|က|က်|က္|ំ|ក្|្|か\u3099"
)


@pytest.mark.parametrize("unit", HOSTILE.split("|"))
def test_splitting_takes_linear_time_on_hostile_text(unit):
    assert_linear(lambda size: split_sentences((unit * size)[:size]), 10_000)
