"""What is shown is about a mention or not; every number is counted by hand."""

from __future__ import annotations

import pytest

from ctxner.retrieval.measure.coverage import MentionTally, Tally, surfaces
from ctxner.retrieval.measure.entries import (
    PiecesSpent,
    SeenTally,
    corresponding_types,
    measure_links,
    pieces_spent,
)
from ctxner.schema import Example, Passage, ScoredPassage, Sentence, Span
from ctxner.schemes import spans_to_tags

NOTHING = Tally(0, 0)


def sentence(text: str, *spans: Span) -> Sentence:
    words = tuple(text.split())
    return Sentence("s", words, spans_to_tags(spans, len(words)))


def entry(
    title: str,
    *named: tuple[int, int],
    aliases: tuple[str, ...] = (),
    type: str = "",
    text: str = "",
    dropped: str | None = None,
    num_pieces: int | None = None,
) -> ScoredPassage:
    passage = Passage(title, "wiki", text, title, aliases=aliases, type=type)
    return ScoredPassage(passage, 0.0, 1, named=named, dropped=dropped, num_pieces=num_pieces)


def text(contents: str, *, dropped: str | None = None, num_pieces: int | None = None) -> ScoredPassage:
    return ScoredPassage(Passage(contents, "news", contents), 1.0, 1, dropped=dropped, num_pieces=num_pieces)


KIM = sentence("tonight Kim Lee plays in Oslo", Span(1, 3, "person"), Span(5, 6, "town"))


def own_entries(*passages: ScoredPassage, of: Sentence = KIM) -> int:
    return measure_links([Example(of, passages)]).own_entry.all.found


@pytest.mark.parametrize(
    ("passage", "number"),
    [
        (entry("Kim S. Lee", (1, 3)), 1),  # an exact run, whatever the title
        (entry("Kim", (1, 2)), 0),  # a part of the mention
        (entry("Oslo Opera", (4, 6)), 0),  # more than the mention
        (entry("K. Lee", (0, 1), aliases=("Ki", "KIM LEE")), 1),  # an alias, named by other words
        (entry("Ósló"), 1),  # a title, found by its text: accents and case do not count
        (entry("Lake Kim Lee"), 0),
        (entry("Rain", (0, 1)), 0),  # an entry about nothing
        (entry("Kim Lee", (1, 3), dropped="below_depth"), 0),  # not shown
        (text("Kim Lee"), 0),  # a text is no entry
    ],
)
def test_an_entry_is_about_a_mention_by_its_run_or_by_a_name(passage, number):
    assert own_entries(passage) == number


def test_plurals_are_the_same_name():
    ills = sentence("seizures and bodies", Span(0, 1, "disease"), Span(2, 3, "part"))
    assert own_entries(entry("Seizure"), of=ills) == 1
    assert own_entries(entry("corpse", aliases=("Body",)), of=ills) == 1


def test_a_mention_without_letters_equals_no_title_without_letters():
    smile = sentence("a :-) here", Span(1, 2, "sign"))
    assert own_entries(entry("!?"), of=smile) == 0
    assert own_entries(entry("!?", (1, 2)), of=smile) == 1


def test_a_mention_with_two_entries_is_one_link_and_both_entries_are_about_it():
    measures = measure_links([Example(KIM, (entry("Oslo", (5, 6)), entry("Oslo (film)", (5, 6))))])
    assert measures.own_entry.all == Tally(1, 2)
    assert measures.about_entries.all == Tally(2, 2)
    assert (measures.num_links, measures.num_entries) == (1, 2)
    assert measures.precision.all == Tally(1, 1)
    assert measures.recall.all == Tally(1, 2)


def test_a_repeated_mention_counts_each_time_and_its_entry_once():
    twice = sentence("Oslo , OSLO and oslo", Span(0, 1, "town"), Span(2, 3, "town"), Span(4, 5, "town"))
    measures = measure_links([Example(twice, (entry("Oslo", (0, 1), (2, 3)),))])
    assert measures.own_entry.all == Tally(3, 3)  # the third by its name
    assert measures.about_entries.all == measures.about_passages.all == Tally(1, 1)
    assert measures.precision.all == Tally(2, 2)
    assert measures.recall.all == Tally(2, 3)


def test_a_text_is_about_a_mention_whose_words_it_contains_unless_it_repeats_the_sentence():
    passages = (
        text("the fjord at OSLO is long"),
        text("tonight Kim Lee plays in Oslo !"),  # a copy
        text("Kim and Lee"),
        text("Oslo again", dropped="near_duplicate"),
        entry("Norway", text="its capital is Oslo and it has many fjords"),  # found by its text
        entry("Norway", (0, 1), text="its capital is Oslo and it has many fjords"),  # named by the sentence
    )
    measures = measure_links([Example(KIM, passages)])
    assert measures.about_passages.all == Tally(2, 5)
    assert measures.about_entries.all == Tally(0, 2)


def test_seen_and_unseen_split_the_mentions_and_say_which_of_them_an_entry_is_about():
    seen = surfaces([sentence("in OSLO", Span(1, 2, "town")), sentence("kim lee", Span(0, 2, "band"))])
    passages = (entry("Oslo", (5, 6)), entry("Kim Lee", (1, 3)), entry("Tonight", (0, 1)), text("Kim Lee of Oslo city"))
    measures = measure_links([Example(KIM, passages), Example(sentence("no names"), ())], seen=seen)
    every = {"person": Tally(1, 1), "town": Tally(1, 1)}
    assert measures.own_entry == MentionTally(Tally(2, 2), every, Tally(1, 1), Tally(1, 1))
    assert measures.recall == MentionTally(Tally(2, 2), every, Tally(1, 1), Tally(1, 1))
    assert measures.about_entries == SeenTally(Tally(2, 3), Tally(1, 3), Tally(1, 3))
    assert measures.precision == SeenTally(Tally(2, 3), Tally(1, 3), Tally(1, 3))
    assert measures.about_passages == SeenTally(Tally(3, 4), Tally(2, 4), Tally(2, 4))  # the text is about both


def test_sentences_without_gold_mentions_make_links_wrong():
    bare = Sentence("u", ("Rain", "today"))
    measures = measure_links([Example(sentence("Rain today"), (entry("Rain", (0, 1)),)), Example(bare, (text("x"),))])
    assert measures.own_entry == measures.recall == MentionTally(NOTHING, {}, NOTHING, NOTHING)
    assert measures.about_entries.all == measures.precision.all == Tally(0, 1)
    assert measures.about_passages.all == Tally(0, 2)


def test_without_entries_their_shares_are_none():
    measures = measure_links([Example(KIM, (text("a view of Oslo"),))], gold_types={"place": "town"})
    assert measures.own_entry.all.share == measures.recall.all.share == 0
    for share in (measures.about_entries, measures.precision, measures.right_type):
        assert share == SeenTally(NOTHING, NOTHING, NOTHING)
        assert share.all.share is None
    assert measures.about_passages.all == Tally(1, 1)
    assert measure_links([]).own_entry.all.share is None


def test_corpus_types_correspond_to_what_their_exact_links_are_most_often_in_training():
    training = [
        Example(
            KIM, (entry("Oslo", (5, 6), type="place"), entry("Kim Lee", (1, 3)), entry("Lee", (2, 3), type="name"))
        ),
        Example(KIM, (entry("Kim Lee", (1, 3), type="place"), entry("Oslo", (5, 6), type="place"))),
        Example(KIM, (entry("Kim Lee", (1, 3), type="film"), entry("Oslo", (5, 6), type="film"))),
        Example(KIM, (entry("Oslo", (5, 6), type="film", dropped="below_depth"), entry("Oslo", type="book"))),
        Example(Sentence("u", ("Oslo",)), (entry("Oslo", (0, 1), type="book"),)),
    ]
    assert corresponding_types(training) == {
        "film": "person",  # a tie: the first in the alphabet
        "place": "town",  # two of three
        "wiki": "person",  # no type: the source
    }


def test_an_entry_has_the_right_type_when_it_corresponds_to_that_of_a_mention_it_is_about():
    passages = (
        entry("Oslo", (5, 6), type="place"),  # right
        entry("Oslo (film)", (5, 6), type="film"),  # wrong
        entry("Kim Lee"),  # right by its source
        entry("Lee, Kim", (1, 3), type="band"),  # training does not link bands
        entry("Tonight", (0, 1), type="place"),  # about nothing
    )
    seen = surfaces([sentence("in Oslo", Span(1, 2, "town"))])
    gold_types = {"place": "town", "film": "work", "wiki": "person"}
    measures = measure_links([Example(KIM, passages)], seen=seen, gold_types=gold_types)
    assert measures.right_type == SeenTally(Tally(2, 3), Tally(1, 2), Tally(1, 1))
    assert measures.num_untyped == 1
    unknown = measure_links([Example(KIM, passages)], seen=seen)
    assert (unknown.right_type, unknown.num_untyped) == (None, 0)


def test_an_entry_about_two_mentions_needs_the_type_of_either():
    both = sentence("Oslo by Oslo", Span(0, 1, "work"), Span(2, 3, "town"))
    passages = (entry("Oslo", (0, 1), (2, 3), type="place"),)
    seen = surfaces([sentence("Oslo", Span(0, 1, "work"))])
    measures = measure_links([Example(both, passages)], seen=seen, gold_types={"place": "town"})
    assert measures.right_type == SeenTally(Tally(1, 1), Tally(0, 1), Tally(1, 1))


def test_pieces_are_those_of_shown_passages_per_sentence():
    views = [
        Example(
            KIM,
            (
                entry("Oslo", (5, 6), num_pieces=10),
                entry("Kim Lee", (1, 3), num_pieces=6),
                entry("Tonight", (0, 1), num_pieces=3),
                text("Oslo at night", num_pieces=8),
                entry("Lee", (2, 3), dropped="piece_budget"),
            ),
        ),
        Example(sentence("no names"), (text("none", num_pieces=1),)),
    ]
    seen = surfaces([sentence("in Oslo", Span(1, 2, "town"))])
    expected = PiecesSpent(entries=9.5, texts=4.5, about=8.0, about_seen=5.0, about_unseen=3.0)
    assert pieces_spent(views, seen=seen) == expected


def test_pieces_need_a_sentence_and_passages_of_a_view():
    with pytest.raises(ValueError, match="no sentence to count pieces for"):
        pieces_spent([])
    with pytest.raises(ValueError, match="'Oslo' has no number of pieces"):
        pieces_spent([Example(KIM, (entry("Oslo", (5, 6)),))])
