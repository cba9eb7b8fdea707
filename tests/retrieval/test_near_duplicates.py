"""The near-duplicate rule, by examples of what must and must not be recognised."""

import pytest

from ctxner.retrieval.near_duplicates import character_runs, is_near_duplicate, repeats_sentence

SENTENCE = "All I ' ve been doing is BINGE watching Rick and Morty 😂"


@pytest.mark.parametrize(
    "passage",
    [
        SENTENCE,
        "All I've been doing is BINGE watching Rick and Morty",
        "RT @someone: all i've been doing is binge watching rick and morty http://t.co/x1",
        "So true: all I've been doing is BINGE watching Rick and Morty, and nobody can stop me from that today",
        "I've been doing is BINGE watching Rick and",
    ],
)
def test_a_copy_whole_extended_or_cut_repeats_the_sentence(passage):
    assert repeats_sentence(character_runs(passage), character_runs(SENTENCE))


@pytest.mark.parametrize(
    "passage",
    ["Rick and Morty", "I'm watching Rick and Morty because of you!", "Rick and Morty is a series.", "😂", ""],
)
def test_a_passage_about_the_same_things_does_not(passage):
    assert not repeats_sentence(character_runs(passage), character_runs(SENTENCE))


def test_a_short_sentence_is_repeated_by_its_equals_only():
    sentence = character_runs("Visit Baroka !")
    assert repeats_sentence(character_runs("visit Baroka"), sentence)
    assert not repeats_sentence(character_runs("You can visit Baroka, a city in the north, by train."), sentence)


def test_passages_are_near_duplicates_both_ways_or_not_at_all():
    short, long = "Baroka is a city in the north", "Baroka is a city in the north of Welandia with two ports and a fair"
    assert not is_near_duplicate(character_runs(short), character_runs(long))
    assert is_near_duplicate(character_runs(short), character_runs("Baroka is a city in the north!!"))


def test_texts_without_letters_are_never_duplicates():
    assert not is_near_duplicate(character_runs("😀"), character_runs("😀"))


def test_texts_that_differ_in_vowel_signs_only_are_no_duplicates():
    for first, second in (("राम और सीता नदी पर", "रोम और सैते नदे पर"), ("ไปกินข้าวที่บ้าน", "ไปก่นข่าวท้าบึน")):
        assert not is_near_duplicate(character_runs(first), character_runs(second))
        assert is_near_duplicate(character_runs(first), character_runs(f"{first}!"))
