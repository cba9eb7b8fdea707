"""Queries: what is kept, what it weighs, and that no input breaks them. No JVM."""

import re
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from ctxner.retrieval.search.query import bag_of_words, weighted_query
from ctxner.retrieval.text import clean_text

FREQUENCY = {"the": 900, "in": 800, "good": 300, "paris": 20, "baroka": 2, "us": 90, "visited": 50, "o'neill": 3}


def weights(words, **settings):
    query = weighted_query(words, lambda term: FREQUENCY.get(term, 0), 1000, **settings)
    return {term: float(weight) for term, weight in (part.split("^") for part in query.split())}


def test_stop_words_addresses_and_unknown_words_are_left_out():
    words = ["The", "good", "zzyzx", "https://baroka.com", "me@paris.fr", "www.paris.fr", "in", "Baroka", "!", "😀"]
    assert set(weights(words)) == {"good", "baroka"}


def test_rarer_and_capitalised_words_weigh_more():
    found = weights(["visited", "good", "Paris", "paris", "Baroka"])
    assert found["baroka"] > found["paris"] > found["visited"] > found["good"]
    assert found["paris"] == weights(["visited", "Paris"])["paris"] > weights(["visited", "paris"])["paris"]


def test_capitals_count_for_nothing_where_all_words_have_them():
    assert weights(["GOOD", "PARIS"]) == weights(["good", "paris"])


def test_an_acronym_that_spells_a_stop_word_is_searched():
    assert "us" in weights(["visited", "the", "US"])
    assert "us" not in weights(["visited", "us"])


def test_marks_of_user_names_and_hash_tags_are_cut():
    assert set(weights(["@Paris", "#Baroka", "O'Neill"])) == {"paris", "baroka", "o'neill"}


def test_the_cap_keeps_the_heaviest_terms_in_order():
    found = list(weights(["the", "visited", "good", "paris", "Baroka"], max_terms=2))
    assert found == ["baroka", "paris"]


def test_nothing_to_search_for_gives_an_empty_query():
    for words in ([], [""], ["😀", "🎉🎉"], ["...", "!"], ["\ud800"], ["the"]):
        assert weights(words) == {}
    for words in ([], ["😀", "..."]):
        assert bag_of_words(words) == ""


def test_the_bag_is_the_sentence_up_to_its_cap():
    assert bag_of_words(["The", "good", "US", "😀", "end-of"]) == "The good US end-of"
    assert len(bag_of_words([f"w{n}" for n in range(10_000)], max_terms=512).split()) == 512


@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=80), max_size=20))
def test_any_text_gives_a_query_of_plain_terms(words):
    query = weighted_query(words, lambda term: 1, 10)
    bare = "".join(character for character in query if not unicodedata.category(character).startswith("M"))
    assert all(re.fullmatch(r"\w+(?:['’.]\w+)*\^\d\.\d\d", part) for part in bare.split(" ") if query)
    query.encode()
    bag_of_words(words).encode()


def test_cleaning_leaves_ordinary_text_alone():
    assert clean_text("Ünï\tcode\n😀 ok") == "Ünï\tcode\n😀 ok"
    assert clean_text("a\x00b\ud83dc\x85d") == "a b\ufffdc d"
