"""Coverage counts what a reader could find, and nothing that merely repeats the sentence."""

import random
import re

import pytest

from ctxner.retrieval.measure.coverage import (
    Tally,
    ceiling,
    locate_mentions,
    mention_coverage,
    shares_most_words,
    surfaces,
    word_coverage,
)
from ctxner.retrieval.text import normalised_words
from ctxner.schema import Example, Passage, ScoredPassage, Sentence, Span
from ctxner.schemes import spans_to_tags


def sentence(text: str, *spans: Span, id: str = "s") -> Sentence:
    words = tuple(text.split())
    return Sentence(id, words, spans_to_tags(spans, len(words)))


def kept(*texts: str, title: str = "") -> tuple[ScoredPassage, ...]:
    return tuple(ScoredPassage(Passage(str(n), "test", text, title), 1.0, n + 1) for n, text in enumerate(texts))


BARE = sentence(
    "we met Kim Lee-Roy at O'Hara 's in #Rome", Span(2, 4, "person"), Span(5, 7, "shop"), Span(8, 9, "town")
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't @ me, NEW_York!", ["don", "t", "me", "new", "york"]),
        ("ﬁne Straße Ｒｏｍｅ", ["fine", "strasse", "rome"]),
        ("東京へ go", ["東", "京", "へ", "go"]),
        ("... 😀 –", []),
    ],
)
def test_words_are_runs_of_letters_and_digits_in_lower_case(text, words):
    assert normalised_words(text) == words


def test_a_mention_is_found_as_a_run_of_words_whatever_the_tokens_and_the_case():
    example = Example(BARE, kept("kim leeroy, ROME's", "KIM LEE ROY was here", "Romeo saw o'hara's bar"))
    located = locate_mentions([example])
    assert [(one.span, one.rank) for one in located] == [
        (Span(2, 4, "person"), 2),
        (Span(5, 7, "shop"), 3),
        (Span(8, 9, "town"), 1),
    ]
    assert [one.surface[0] for one in located] == [("kim", "lee", "roy"), ("o", "hara", "s"), ("rome",)]


def test_a_title_counts_but_no_mention_spans_title_and_text():
    example = Example(BARE, kept("Roy says that Rome is old", title="Kim Lee"))
    assert [one.rank for one in locate_mentions([example])] == [None, None, 1]


def test_dropped_passages_and_those_that_share_most_words_take_no_rank():
    copy = "RT we met kim lee roy at o'hara's in Rome!"
    dropped = ScoredPassage(Passage("d", "test", "Rome is old"), 1.0, 1, dropped="below_depth")
    example = Example(BARE, (*kept(copy, "of Kim Lee-Roy"), dropped))
    found = mention_coverage([example], [1, 2])
    assert found[1].by_type == {"person": Tally(1, 1), "shop": Tally(0, 1), "town": Tally(0, 1)}
    assert found[1].all == found[2].all == Tally(1, 3)


def test_coverage_grows_with_k_and_splits_into_seen_and_unseen():
    example = Example(BARE, kept("nothing at all", "Rome is old", "with Kim Lee Roy"))
    seen = surfaces([sentence("in ROME", Span(1, 2, "town")), sentence("kim lee roy", Span(0, 3, "ship"))])
    found = mention_coverage([example], [1, 2, 3], seen=seen)
    assert [found[k].all for k in (1, 2, 3)] == [Tally(0, 3), Tally(1, 3), Tally(2, 3)]
    assert [found[k].seen for k in (1, 2, 3)] == [Tally(0, 1), Tally(1, 1), Tally(1, 1)]
    assert [found[k].unseen for k in (1, 2, 3)] == [Tally(0, 2), Tally(0, 2), Tally(1, 2)]


def test_a_mention_without_letters_and_an_empty_example_are_never_found():
    smile = sentence("I love :)", Span(2, 3, "art"))
    found = mention_coverage([Example(smile, kept("so :) nice")), Example(BARE)], [1])
    assert found[1].all == Tally(0, 4)
    assert mention_coverage([], [1])[1].all.share is None


def test_untagged_sentences_have_no_mentions_but_words():
    example = Example(Sentence("s", ("red", "Red", "boat", "!")), kept("a red car and more", "the boat of many people"))
    assert mention_coverage([example], [1])[1].all == Tally(0, 0)
    assert word_coverage([example], [1, 2]) == {1: Tally(2, 3), 2: Tally(3, 3)}


def test_a_k_below_one_is_refused():
    with pytest.raises(ValueError, match="k is 0; wanted"):
        mention_coverage([], [3, 0])


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("a b c d e", "a b c d x", False),  # exactly 0.8
        ("a b c d e f", "a b c d e x", True),
        ("a", "x a y z", True),
        ("", "a", False),
        ("", "", False),
    ],
)
def test_more_than_eight_tenths_of_the_shorter_text_is_most(first, second, same):
    assert shares_most_words(set(first.split()), set(second.split())) == same
    assert shares_most_words(set(second.split()), set(first.split())) == same


def test_the_ceiling_is_what_looking_at_every_pair_finds():
    choose = random.Random(0)
    letters = ["a", "b", "c", "d", "e", "f", "g", "h", "-", "É"]

    def text(most: int) -> str:
        return " ".join(choose.choice(letters) for _ in range(choose.randint(1, most)))

    found_some = missed_some = False
    for _ in range(60):
        own = []
        for n in range(4):
            words = text(9).split()
            start = choose.randrange(len(words))
            end = choose.randint(start + 1, min(len(words), start + 3))
            own.append(sentence(" ".join(words), Span(start, end, choose.choice("XY")), id=str(n)))
        corpus = [Passage(str(n), "test", text(8), text(3)) for n in range(3)]
        by_hand = sum(_stands_somewhere(one, corpus) for one in own)
        assert ceiling(iter(corpus), own).all == Tally(by_hand, 4)
        found_some |= by_hand > 0
        missed_some |= by_hand < 4
    assert found_some
    assert missed_some


def _stands_somewhere(own: Sentence, corpus: list[Passage]) -> bool:
    """By a regular expression over every passage."""

    def words(text: str) -> list[str]:
        return [word for word in text.lower().split() if word != "-"]

    start, *_, end = [n for n, tag in enumerate(own.tags) if tag != "O"] * 2
    mention = words(" ".join(own.words[start : end + 1]))
    sentence_words = set(words(" ".join(own.words)))
    for passage in corpus:
        text = set(words(passage.text))
        is_copy = len(text & sentence_words) > 0.8 * min(len(text), len(sentence_words))
        for part in (passage.title, passage.text):
            if mention and not is_copy and re.search(rf"(^| ){' '.join(mention)}( |$)", " ".join(words(part))):
                return True
    return False


def test_a_long_passage_that_has_a_sentence_s_characters_is_no_copy_of_it():
    sentence = Sentence("a", tuple("我在上海"), ("O", "O", "B-town", "E-town"))
    passage = Passage("p", "s", "上海是中国的一座城市，在长江口。我们都知道它的历史。")
    hit = ScoredPassage(passage, 1.0, 1)
    assert [mention.rank for mention in locate_mentions([Example(sentence, (hit,))])] == [1]
    copy = ScoredPassage(Passage("c", "s", "我在上海！"), 1.0, 1)
    assert [mention.rank for mention in locate_mentions([Example(sentence, (copy,))])] == [None]
