"""Scores against seqeval and an own transcription of conlleval; significance against enumeration."""

from __future__ import annotations

import itertools
import random
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import classification_report

from ctxner.evaluation.scores import (
    Score,
    SpanCounts,
    count_spans,
    mention_forms,
    score_spans,
    scores_by_seen,
)
from ctxner.evaluation.significance import bootstrap_interval, paired_significance
from ctxner.schema import Sentence, Span
from ctxner.schemes import lenient_spans, spans_to_tags, tags_to_spans

pytestmark = pytest.mark.numeric

TAGS = {
    "IOB": ["O", *(f"{p}-{t}" for p in "BI" for t in "XY")],
    "BIOES": ["O", *(f"{p}-{t}" for p in "BIES" for t in "XY")],
}


def conlleval(pairs):
    """The counting loop of conlleval.pl, chunk by chunk as the Perl has it (with S as in its later versions)."""

    def end_of_chunk(prev_tag, tag, prev_type, type):
        end = (prev_tag, tag) in {("B", "B"), ("B", "O"), ("I", "B"), ("I", "O"), ("B", "S"), ("I", "S")}
        end = end or prev_tag in ("E", "S")
        return end or (prev_tag not in ("O", ".") and prev_type != type)

    def start_of_chunk(prev_tag, tag, prev_type, type):
        start = tag in ("B", "S") or (prev_tag in ("E", "S", "O") and tag in ("E", "I"))
        return start or (tag not in ("O", ".") and prev_type != type)

    def split(tag):
        return ("O", "") if tag == "O" else tuple(tag.split("-", 1))

    correct, found_correct, found_guessed = {}, {}, {}
    for gold, guess in pairs:
        in_correct, last_gold, last_guess = False, ("O", ""), ("O", "")
        for gold_tag, guess_tag in zip([*gold, "O"], [*guess, "O"], strict=True):  # the O is the sentence boundary
            (g, g_type), (p, p_type) = split(gold_tag), split(guess_tag)
            gold_ends = end_of_chunk(last_gold[0], g, last_gold[1], g_type)
            guess_ends = end_of_chunk(last_guess[0], p, last_guess[1], p_type)
            if in_correct:
                if gold_ends and guess_ends and last_gold[1] == last_guess[1]:
                    in_correct = False
                    correct[last_gold[1]] = correct.get(last_gold[1], 0) + 1
                elif gold_ends != guess_ends or g_type != p_type:
                    in_correct = False
            gold_starts = start_of_chunk(last_gold[0], g, last_gold[1], g_type)
            guess_starts = start_of_chunk(last_guess[0], p, last_guess[1], p_type)
            in_correct = in_correct or (gold_starts and guess_starts and g_type == p_type)
            if gold_starts:
                found_correct[g_type] = found_correct.get(g_type, 0) + 1
            if guess_starts:
                found_guessed[p_type] = found_guessed.get(p_type, 0) + 1
            last_gold, last_guess = (g, g_type), (p, p_type)
    types = {*found_correct, *found_guessed}
    return {t: Score(correct.get(t, 0), found_guessed.get(t, 0), found_correct.get(t, 0)) for t in types}


@st.composite
def tagged_pairs(draw):
    """Gold and guessed tags, legal or not; half of the guesses are the gold, so that mentions agree."""
    tags = st.sampled_from(TAGS[draw(st.sampled_from(sorted(TAGS)))])
    pairs = []
    for _ in range(draw(st.integers(1, 4))):
        gold = draw(st.lists(tags, min_size=1, max_size=10))
        pairs.append((gold, [draw(tags) if draw(st.booleans()) else tag for tag in gold]))
    return pairs


def spans_of(pairs):
    return [lenient_spans(gold) for gold, _ in pairs], [lenient_spans(guess) for _, guess in pairs]


@settings(deadline=None)
@given(tagged_pairs())
def test_counts_equal_conlleval_on_legal_and_illegal_sequences(pairs):
    assert count_spans(*spans_of(pairs)).per_type == conlleval(pairs)


@settings(deadline=None)
@given(tagged_pairs())
def test_scores_equal_seqeval(pairs):
    scores = score_spans(*spans_of(pairs))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        golds, guesses = [gold for gold, _ in pairs], [guess for _, guess in pairs]
        if not scores.per_type:  # seqeval fails when there is no mention at all
            assert scores.f1 == scores.macro_f1 == 0.0
            return
        report = classification_report(golds, guesses, output_dict=True, zero_division=0)
    for name, score in [("micro avg", scores.micro), *scores.per_type.items()]:
        expected = [report[name][key] for key in ("precision", "recall", "f1-score", "support")]
        assert [score.precision, score.recall, score.f1, score.num_gold] == pytest.approx(expected)
    assert scores.macro_f1 == pytest.approx(report["macro avg"]["f1-score"])


@pytest.mark.parametrize("scheme", ["IOB2", "BIOES"])
def test_scores_do_not_depend_on_the_scheme(scheme):
    gold, predicted = random_spans(0, 30), random_spans(1, 30)
    reread = [[tags_to_spans(spans_to_tags(row, 40, scheme), scheme) for row in spans] for spans in (gold, predicted)]
    assert score_spans(*reread) == score_spans(gold, predicted)


@settings(deadline=None)
@given(tagged_pairs(), st.integers(0, 4))
def test_counts_of_shards_add_up_to_those_of_the_whole(pairs, cut):
    gold, predicted = spans_of(pairs)
    parts = [count_spans(gold[:cut], predicted[:cut]), count_spans(gold[cut:], predicted[cut:])]
    assert sum(parts, SpanCounts()) == count_spans(gold, predicted)


def test_zero_denominators_give_zero():
    for gold, predicted in ([], []), ([[]], [[]]), ([[Span(0, 1, "a")]], [[]]), ([[]], [[Span(0, 1, "a")]]):
        scores = score_spans(gold, predicted)
        assert (scores.precision, scores.recall, scores.f1, scores.macro_f1) == (0.0, 0.0, 0.0, 0.0)


def test_scores_of_a_worked_example():
    gold = [[Span(0, 1, "a"), Span(2, 4, "b")], [Span(0, 1, "a")]]
    predicted = [[Span(0, 1, "a"), Span(2, 3, "b"), Span(0, 1, "a")], [Span(0, 1, "b")]]
    found = score_spans(gold, predicted).to_dict()
    counts = {"num_correct": 1, "num_predicted": 3, "num_gold": 3}
    assert found["micro"] == {"precision": 1 / 3, "recall": 1 / 3, "f1": 1 / 3, **counts}
    assert found["per_type"]["a"]["f1"] == pytest.approx(2 / 3)
    assert found["macro_f1"] == pytest.approx(1 / 3)


def test_different_numbers_of_sentences_are_refused():
    with pytest.raises(ValueError, match="2 gold sentences but 1 predicted"):
        score_spans([[], []], [[]])


def random_spans(seed, num_sentences):
    rng = random.Random(seed)
    return [[Span(i, i + 1, rng.choice("ab")) for i in range(0, rng.randint(0, 8), 2)] for _ in range(num_sentences)]


def blend(gold, other, seed, share):
    rng = random.Random(seed)
    return [a if rng.random() < share else b for a, b in zip(gold, other, strict=True)]


def test_randomisation_approaches_the_p_value_of_all_swaps():
    gold = random_spans(0, 10)
    a, b = blend(gold, random_spans(1, 10), 2, 0.9), blend(gold, random_spans(3, 10), 4, 0.3)
    observed = abs(score_spans(gold, a).f1 - score_spans(gold, b).f1)
    differences = []
    for swaps in itertools.product([False, True], repeat=10):
        pair = [(y, x) if swap else (x, y) for x, y, swap in zip(a, b, swaps, strict=True)]
        f1_a, f1_b = (score_spans(gold, [one[side] for one in pair]).f1 for side in (0, 1))
        differences.append(abs(f1_a - f1_b))
    exact = sum(difference >= observed - 1e-12 for difference in differences) / len(differences)
    found = paired_significance(gold, a, b, num_rounds=20_000)
    assert 0.01 < exact < 0.9
    assert found.p_value == pytest.approx(exact, abs=0.015)
    assert found.difference == pytest.approx(score_spans(gold, a).f1 - score_spans(gold, b).f1)


def test_equal_systems_do_not_differ_and_a_clear_gap_does():
    gold, noise = random_spans(0, 300), random_spans(1, 300)
    assert paired_significance(gold, noise, noise, num_rounds=500).p_value == 1.0
    assert paired_significance(gold, gold, noise, num_rounds=500).p_value == pytest.approx(1 / 501)


def test_significance_is_symmetric_and_repeatable_for_a_seed():
    gold = random_spans(0, 50)
    a, b = blend(gold, random_spans(1, 50), 2, 0.6), blend(gold, random_spans(3, 50), 4, 0.5)
    one, other = paired_significance(gold, a, b, seed=5), paired_significance(gold, b, a, seed=5)
    assert one == paired_significance(gold, a, b, seed=5)
    assert (one.difference, one.p_value) == (-other.difference, pytest.approx(other.p_value, abs=0.02))


def test_the_bootstrap_interval_holds_the_score_and_narrows_with_more_sentences():
    widths = []
    for num_sentences in (50, 800):
        gold = random_spans(0, num_sentences)
        predicted = blend(gold, random_spans(1, num_sentences), 2, 0.6)
        low, high = bootstrap_interval(gold, predicted)
        assert low < score_spans(gold, predicted).f1 < high
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.4)  # 16 times the sentences
    assert bootstrap_interval(gold, gold) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"num_rounds": 0}, "num_rounds is 0"), ({"confidence": 95}, "between 0 and 1")],
)
def test_senseless_bootstrap_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval([[]], [[]], **options)
    with pytest.raises(ValueError, match="no sentences"):
        bootstrap_interval([], [])


def test_the_interval_of_a_difference_is_of_the_same_draws():
    gold = random_spans(0, 200)
    a, b = blend(gold, random_spans(1, 200), 2, 0.7), blend(gold, random_spans(1, 200), 2, 0.6)
    assert bootstrap_interval(gold, a, baseline=a) == (0.0, 0.0)
    assert bootstrap_interval(gold, a, baseline=[[]] * 200) == bootstrap_interval(gold, a)  # F1 of nothing is 0
    low, high = bootstrap_interval(gold, a, baseline=b)
    assert low < score_spans(gold, a).f1 - score_spans(gold, b).f1 < high
    alone = [bootstrap_interval(gold, own) for own in (a, b)]
    assert high - low < min(top - bottom for bottom, top in alone)  # a and b are wrong in the same sentences


def test_scores_are_told_apart_by_forms_seen_in_training():
    train = [Sentence("t", ("New", "York", "x"), ("B-loc", "E-loc", "O"))]
    gold = [Sentence("0", ("NEW", "york", "Bo"), ("B-loc", "E-loc", "S-per")), Sentence("1", ("Bo",), ("S-per",))]
    predicted = [[Span(0, 2, "loc"), Span(2, 3, "loc")], [Span(0, 1, "per")]]
    scores = scores_by_seen(gold, predicted, mention_forms(train))
    assert scores == {"seen": Score(1, 1, 1), "unseen": Score(1, 2, 2)}
    assert scores_by_seen(gold, [[Span(0, 1, "loc")], []], mention_forms(train))["unseen"] == Score(0, 1, 2)


def test_untagged_gold_is_refused():
    with pytest.raises(ValueError, match="'u' has no gold tags"):
        mention_forms([Sentence("u", ("x",))])
