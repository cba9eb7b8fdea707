"""Kinds of errors part the mentions, groups add up to the whole, and forms are counted as WNUT-17 counts them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxner.evaluation.errors import (
    KINDS,
    Buckets,
    change,
    confusion,
    count_buckets,
    count_kinds,
    length_buckets,
    match_mentions,
    quantile_buckets,
    surface_scores,
)
from ctxner.evaluation.scores import Score, count_spans, score_spans
from ctxner.schema import Sentence, Span
from ctxner.schemes import lenient_spans

TAGS = ["O", "B-X", "I-X", "B-Y", "I-Y"]
WORDS = ["Kim", "kim", "Oslo", "the"]


@st.composite
def pairs(draw):
    """Sentences' words, gold and predicted mentions; half of the predicted tags are the gold ones."""
    sentences, gold, predicted = [], [], []
    for number in range(draw(st.integers(1, 4))):
        tags = draw(st.lists(st.sampled_from(TAGS), min_size=1, max_size=9))
        guess = [draw(st.sampled_from(TAGS)) if draw(st.booleans()) else tag for tag in tags]
        words = draw(st.lists(st.sampled_from(WORDS), min_size=len(tags), max_size=len(tags)))
        sentences.append(Sentence(str(number), tuple(words)))
        gold.append(lenient_spans(tags))
        predicted.append(lenient_spans(guess))
    return sentences, gold, predicted


def matches_of(gold, predicted):
    return [match for pair in zip(gold, predicted, strict=True) for match in match_mentions(*pair)]


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        ([Span(2, 6, "X")], [("correct", 2, 2)]),
        ([Span(2, 6, "Y")], [("wrong_type", 2, 2)]),
        ([Span(1, 6, "X")], [("wrong_boundary", 2, 1)]),
        ([Span(5, 8, "Y")], [("wrong_both", 2, 5)]),
        ([Span(6, 8, "X")], [("missed", 2, None), ("spurious", None, 6)]),
        ([], [("missed", 2, None)]),
        # The closest belongs to it, the others are spurious: by type first, then by shared words, then the left one.
        ([Span(2, 5, "Y"), Span(5, 6, "X")], [("wrong_boundary", 2, 5), ("spurious", None, 2)]),
        ([Span(2, 3, "X"), Span(4, 6, "X")], [("wrong_boundary", 2, 4), ("spurious", None, 2)]),
        ([Span(2, 3, "X"), Span(5, 6, "X")], [("wrong_boundary", 2, 2), ("spurious", None, 5)]),
    ],
)
def test_each_kind_of_error_is_told_by_its_words_and_type(predicted, expected):
    found = match_mentions([Span(2, 6, "X")], predicted)
    assert [(own.kind, own.gold and own.gold.start, own.predicted and own.predicted.start) for own in found] == expected


@settings(deadline=None)
@given(pairs())
def test_kinds_part_the_mentions_and_no_pair_would_rather_be_together(pair):
    for gold, predicted in zip(*pair[1:], strict=True):
        matches = match_mentions(gold, predicted)
        assert sorted(own.gold for own in matches if own.gold) == sorted(gold)
        assert sorted(own.predicted for own in matches if own.predicted) == sorted(predicted)

        def distance(one, other):
            shared = len({*range(one.start, one.end)} & {*range(other.start, other.end)})
            same_words = (one.start, one.end) == (other.start, other.end)
            return (2 * (not same_words) + (one.type != other.type), -shared) if shared else (9, 0)

        distances = {
            own: distance(own.gold, own.predicted) if own.gold and own.predicted else (9, 0) for own in matches
        }
        assert all(KINDS.index(own.kind) == far for own, (far, _) in distances.items() if far < 9)
        of_gold = {own.gold: far for own, far in distances.items()}
        of_predicted = {own.predicted: far for own, far in distances.items()}
        for one in gold:
            for other in predicted:
                assert min(of_gold[one], of_predicted[other]) <= distance(one, other)


@settings(deadline=None)
@given(pairs())
def test_kinds_and_the_confusion_of_types_add_up_to_the_scores(pair):
    _, gold, predicted = pair
    matches = matches_of(gold, predicted)
    scores = count_spans(gold, predicted).per_type
    kinds, cells = count_kinds(matches), confusion(matches)
    assert sum(sum(own.values()) for own in kinds.values()) == len(matches)
    for type in ("X", "Y"):
        score = scores.get(type, Score())
        own = kinds.get(type, dict.fromkeys(KINDS, 0))
        assert (own["correct"], sum(own.values()) - own["spurious"]) == (score.num_correct, score.num_gold)
        assert cells.get((type, type), 0) == score.num_correct
        assert sum(count for (row, _), count in cells.items() if row == type) == score.num_gold
        assert sum(count for (_, column), count in cells.items() if column == type) == score.num_predicted
    for row, column in (("X", "Y"), ("Y", "X")):
        assert cells.get((row, column), 0) == sum(
            Span(span.start, span.end, column) in found
            for wanted, found in zip(gold, predicted, strict=True)
            for span in wanted
            if span.type == row
        )


@settings(deadline=None)
@given(pairs())
def test_surface_scores_are_over_the_distinct_forms_of_what_is_right_found_and_wanted(pair):
    sentences, gold, predicted = pair
    wanted, found = (
        {
            f"{number} {span.start} {' '.join(own.words[span.start : span.end])}/{span.type}"
            for number, (own, spans) in enumerate(zip(sentences, side, strict=True))
            for span in spans
        }
        for side in (gold, predicted)
    )
    distinct = [len({row.split(" ", 2)[2] for row in side}) for side in (wanted & found, found, wanted)]
    scores = surface_scores(sentences, gold, predicted)
    assert scores.micro == Score(*distinct)
    assert sum(scores.per_type.values(), Score()) == scores.micro


def test_a_form_found_twice_counts_once_and_one_found_in_the_wrong_place_is_wrong():
    sentences = [
        Sentence(str(number), tuple(own.split())) for number, own in enumerate(("Kim met Kim", "the kim fund"))
    ]
    gold = [[Span(0, 1, "X"), Span(2, 3, "X")], []]
    assert surface_scores(sentences, gold, [[Span(0, 1, "X")], []]).micro == Score(1, 1, 1)
    assert surface_scores(sentences, gold, [[], [Span(1, 2, "X")]]).micro == Score(0, 1, 1)
    elsewhere = [Sentence("0", ("Kim", "met", "Kim")), Sentence("1", ("the", "Kim", "fund"))]
    assert surface_scores(elsewhere, gold, [[], [Span(1, 2, "X")]]).micro == Score(0, 1, 1)


@settings(deadline=None)
@given(pairs(), st.data())
def test_scores_of_groups_add_up_to_those_of_all_sentences(pair, data):
    sentences, gold, predicted = pair
    values = [data.draw(st.none() | st.sampled_from([0.1, 0.25, 0.3])) for _ in sentences]
    for buckets in (
        length_buckets([len(own.words) for own in sentences]),
        count_buckets([len(own.words) % 3 for own in sentences]),
        quantile_buckets(values),
    ):
        assert sum(buckets.scores(gold, predicted), Score()) == score_spans(gold, predicted).micro
        assert sum(buckets.sizes()) == len(sentences)
        assert min(buckets.sizes()) > 0


def test_sentences_are_grouped_by_their_words_ten_by_ten():
    assert length_buckets([41, 10, 11, 1, 500]) == Buckets(("1–10", "11–20", "over 40"), (2, 0, 1, 0, 2))
    assert count_buckets([3, 0, 3]) == Buckets(("0", "3"), (1, 0, 1))


@given(st.lists(st.none() | st.integers(0, 12).map(float), max_size=40), st.integers(1, 5))
def test_groups_by_value_are_in_order_and_never_part_equal_values(values, num_buckets):
    buckets = quantile_buckets(values, num_buckets=num_buckets)
    known = sorted((value, place) for value, place in zip(values, buckets.places, strict=True) if value is not None)
    assert [place for _, place in known] == sorted(place for _, place in known)
    assert len(set(known)) == len({value for value, _ in known})
    unknown = {place for value, place in zip(values, buckets.places, strict=True) if value is None}
    assert {buckets.names[place] for place in unknown} <= {"none"}
    assert unknown <= {0}
    assert len(buckets.names) <= num_buckets + len(unknown)


def test_groups_by_value_are_of_one_size_and_named_by_what_is_in_them():
    buckets = quantile_buckets([None, *(number / 100 for number in range(40, 0, -1))])
    assert buckets.names == ("none", "0.01–0.10", "0.11–0.20", "0.21–0.30", "0.31–0.40")
    assert buckets.sizes() == [1, 10, 10, 10, 10]


@settings(deadline=None)
@given(pairs())
def test_a_change_is_the_difference_of_the_errors_and_turns_around(pair):
    _, gold, predicted = pair
    for place, (wanted, old) in enumerate(zip(gold, predicted, strict=True)):
        new = predicted[place - 1]
        own, back = change(wanted, old, new), change(wanted, new, old)
        assert own.balance == len(set(wanted) ^ set(old)) - len(set(wanted) ^ set(new)) == -back.balance
        assert (own.outcome == "same") == (set(old) == set(new))
        assert own.outcome == {"gained": "lost", "lost": "gained"}.get(back.outcome, back.outcome)
        assert {*own.found, *own.lost} <= set(wanted)
        assert (own.found, own.withdrawn) == (back.lost, back.added)


def test_a_change_names_what_came_and_went():
    gold = [Span(0, 1, "X"), Span(3, 4, "X")]
    own = change(gold, [Span(0, 1, "X"), Span(5, 6, "Y")], [Span(3, 4, "X"), Span(7, 8, "Y")])
    assert own.found == (Span(3, 4, "X"),)
    assert own.lost == (Span(0, 1, "X"),)
    assert own.withdrawn == (Span(5, 6, "Y"),)
    assert own.added == (Span(7, 8, "Y"),)
    assert own.outcome == "even"
    assert change(gold, [], gold).outcome == "gained"
