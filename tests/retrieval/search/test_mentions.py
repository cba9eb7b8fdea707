"""Candidate mentions and the choice of passages that cover them; Lucene's part is in test_bm25."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxner.retrieval.search.mentions import MAX_MENTION_TOKENS, candidate_mentions, choose, compared_words
from ctxner.retrieval.text import normalised_words
from ctxner.schema import Passage

CORPUS = (
    "the empire state building stands in new york",
    "new york state",
    "bank of america",
    "us",
    "東京 都 the tower",
)


def candidates(words, corpus=CORPUS, predicted=()):
    texts = [f" {' '.join(normalised_words(text))} " for text in corpus]
    search = candidate_mentions(
        words,
        document_frequency=lambda term: sum(f" {term} " in text for text in texts),
        num_documents=len(texts),
        predicted=predicted,
    )
    asked, occurs = [], None
    try:
        while True:
            asked += search.send(occurs)
            occurs = lambda run: any(f" {' '.join(run)} " in text for text in texts)  # noqa: E731
    except StopIteration as end:
        return end.value, asked


def test_every_run_that_stands_in_the_corpus_is_a_candidate():
    found, _ = candidates(["saw", "the", "Empire", "State", "Building", "in", "New", "York"])
    names = {" ".join(mention) for mention in found}
    assert names == {
        "empire", "state", "building", "york",
        "empire state", "state building", "empire state building", "new york",
    }  # fmt: skip


def test_a_stop_word_begins_a_name_only_in_capitals():
    assert ("new", "york") not in candidates(["in", "new", "York"])[0]
    assert ("new", "york") in candidates(["in", "New", "York"])[0]


def test_a_name_may_hold_a_stop_word_but_not_end_in_one():
    found, asked = candidates(["a", "Bank", "of", "America", "is", "in", "the"])
    assert ("bank", "of", "america") in found
    assert not [run for run in (*found, *asked) if {run[0], run[-1]} & {"a", "of", "is", "in", "the"}]


def test_only_runs_whose_parts_stand_there_are_looked_up():
    _, asked = candidates(["New", "America", "State", "York"])
    assert all(len(run) == 2 for run in asked)


def test_weights_are_idf_and_fourfold_for_what_looks_like_a_name():
    found, _ = candidates(["the", "tower", "of", "York"])
    idf = math.log(1 + 5 / 1) / math.log(1 + 5), math.log(1 + 5 / 2) / math.log(1 + 5)
    assert found == pytest.approx({("tower",): idf[0], ("york",): 4 * idf[1]})
    shouted, _ = candidates(["TOWER", "YORK"])
    assert shouted == pytest.approx({("tower",): idf[0], ("york",): idf[1]})


def test_stop_words_in_capitals_are_names_where_case_tells():
    assert ("us",) in candidates(["they", "left", "the", "US"])[0]
    assert ("us",) not in candidates(["they", "left", "us"])[0]


def test_predicted_mentions_weigh_fourfold_and_unknown_ones_are_left_out():
    words = ["in", "new", "york", "state", "xyzzy"]
    before, after = candidates(words)[0], candidates(words, predicted=[(2, 4), (4, 5), (7, 9)])[0]
    assert after == {**before, ("york", "state"): 4 * before["york", "state"]}


def test_no_run_passes_an_address_or_punctuation():
    assert ("new", "york") in candidates(["in", "New", "-", "York"])[0]
    for cut in ("https://new.york", ",", "🎉", "a@b.com"):
        assert ("new", "york") not in candidates(["in", "New", cut, "York"])[0]


def test_scripts_without_blanks_are_taken_character_by_character():
    assert ("東", "京") in candidates(["東京"])[0]


def chosen(mentions, texts, depth, refuse=lambda _: False):
    return chosen_of(mentions, {n: Passage(f"p{n}", "s", text) for n, text in enumerate(texts)}, depth, refuse)


def chosen_of(mentions, passages, depth, refuse=lambda _: False):
    found = {key: compared_words(passage) for key, passage in passages.items()}
    return list(itertools.islice(choose(mentions, found, refuse), depth))


def test_chosen_passages_cover_the_heaviest_mentions_first():
    mentions = {("new", "york"): 5.0, ("tower",): 3.0, ("fair",): 1.0}
    texts = ["new york", "New York, New York", "york new", "a Tower and a fair", "the fair"]
    assert chosen(mentions, texts, 3) == [0, 3, 1]  # equal gains: the first; then all covered


def test_a_refused_passage_covers_nothing():
    mentions = {("new", "york"): 5.0, ("tower",): 3.0}
    texts = ["New York tower", "new york", "tower", "x"]
    assert chosen(mentions, texts, 4) == [0, 1, 2, 3]
    assert chosen(mentions, texts, 4, refuse=lambda n: n in (0, 3)) == [1, 2]


def test_a_title_covers_but_no_run_spans_title_and_text():
    mentions = {("new", "york"): 1.0}
    found = {"split": Passage("a", "s", "York", title="New"), "titled": Passage("b", "s", "x", title="New York")}
    assert chosen_of(mentions, found, 2) == ["titled", "split"]


@pytest.mark.parametrize("n", range(20))
def test_equal_gains_are_equal_in_whatever_order_they_are_summed(n):
    words = [f"{letter}{n}" for letter in "abcd"]  # the order of a set of strings differs from process to process
    mentions = {(word,): weight for word, weight in zip(words, (0.1, 0.2, 0.3, 0.6), strict=True)}
    assert 0.1 + 0.2 + 0.3 > 0.6 == 0.3 + 0.2 + 0.1
    assert chosen(mentions, [words[3], " ".join(words[:3])], 1) == [0]


def test_the_passage_of_that_title_goes_before_others_that_hold_the_mention():
    mentions = {("snow", "blind"): 2.0, ("friend",): 1.0}
    about = Passage("b", "s", "a film", title="Snow Blind")
    found = {"song": Passage("a", "s", "Snow Blind Love", title="Snow Blind Love"), "film": about}
    assert chosen_of(mentions, found, 2) == ["film", "song"]
    both = {**found, "both": Passage("c", "s", "a Snow Blind friend")}
    assert chosen_of(mentions, both, 1) == ["both"]  # covering more mentions weighs more than a title


@given(st.lists(st.text("abc ", max_size=12), max_size=6), st.integers(1, 4))
def test_each_choice_adds_most_to_what_is_covered(texts, depth):
    mentions = {
        run: float(len(run) ** 2 + "abc".index(run[0])) for n in (1, 2) for run in itertools.product("abc", repeat=n)
    }
    taken = chosen(mentions, texts, depth)
    assert len(taken) == len(set(taken)) == min(depth, len(texts))

    def covered(numbers):
        own = [f" {' '.join(normalised_words(texts[n]))} " for n in numbers]
        times = {run: sum(f" {' '.join(run)} " in text for text in own) for run in mentions}
        return sum(weight * 0.2**n for run, weight in mentions.items() for n in range(times[run]))

    for n, best in enumerate(taken):
        others = set(range(len(texts))) - set(taken[:n])
        most = max(covered([*taken[:n], other]) for other in others)
        assert covered([*taken[:n], best]) == pytest.approx(most, abs=1e-9)


@given(st.lists(st.text(max_size=8), max_size=12))
def test_any_words_give_bounded_candidates(words):
    found, _ = candidates(words)
    assert all(1 <= len(run) <= MAX_MENTION_TOKENS and weight > 0 for run, weight in found.items())


def test_nothing_is_chosen_that_adds_less_than_the_least_gain():
    mentions, texts = {("york",): 4.0, ("tower",): 0.5}, ["york", "york tower", "tower", "york again"]
    words = {n: compared_words(Passage(f"p{n}", "s", text)) for n, text in enumerate(texts)}
    assert list(choose(mentions, words, lambda _: False, least_gain=0.0)) == [1, 0, 3, 2]
    assert list(choose(mentions, words, lambda _: False, least_gain=0.7)) == [1, 0]  # then 0.8 * 0.2, and 0.1
    assert list(choose(mentions, words, lambda _: False, least_gain=5.0)) == []
