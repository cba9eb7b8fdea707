"""Which units are exchanged and drawn, and that sentences of one document do not pass for independent ones."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from statistics import mean

import numpy as np
import pytest

from ctxner.evaluation.scores import Spans, score_spans
from ctxner.evaluation.significance import bootstrap_interval, paired_significance
from ctxner.evaluation.units import Units, units_of
from ctxner.schema import Sentence, Span

pytestmark = pytest.mark.numeric

MENTION = (Span(0, 1, "a"),)
GROUPS = (7, 2, 2, 7, 5, 5, 5, 3, 3, 7)  # the documents of ten sentences, in no order


def sentences(*documents: str | None) -> list[Sentence]:
    return [Sentence(str(number), ("x",), document=document) for number, document in enumerate(documents)]


def test_units_are_documents_if_every_sentence_names_one_and_there_are_two():
    assert units_of(sentences("b", "b", "a", "b")) == Units("document", 2, (0, 0, 1, 0))


@pytest.mark.parametrize(
    ("documents", "reason"),
    [
        ((None, None), "the data name no documents"),
        ((None, "a", "b"), "1 of 3 sentences name no document"),
        (("a", "a"), "all sentences are of one document"),
        (("a", "b", "c"), "no document has more than one sentence"),
    ],
)
def test_units_are_sentences_otherwise_and_the_reason_is_told(documents, reason):
    assert units_of(sentences(*documents)) == Units("sentence", len(documents), None, reason)


def by_whole_documents(seed: int, groups: Sequence[int]) -> list[tuple[Span, ...]]:
    """A system that finds all mentions of a document or none, each with probability 1/2."""
    finds = np.random.default_rng(seed).integers(0, 2, max(groups) + 1)
    return [MENTION if finds[group] else () for group in groups]


def test_systems_right_by_whole_documents_seldom_differ_by_document_and_often_by_sentence():
    """200 pairs of systems that do not differ: 20 documents of 10 sentences, found or missed whole."""
    groups = np.repeat(np.arange(20), 10).tolist()
    gold = [MENTION] * len(groups)
    p_values = np.array(
        [
            [
                paired_significance(gold, *pair, groups=units, num_rounds=200, seed=seed).p_value
                for units in (groups, None)
            ]
            for seed in range(200)
            for pair in [[by_whole_documents(2 * seed + system, groups) for system in (0, 1)]]
        ]
    )
    by_document, by_sentence = (p_values < 0.05).mean(axis=0)
    assert by_document < 0.1
    assert by_sentence > 0.3


def test_intervals_hold_the_expected_f1_by_document_and_miss_it_by_sentence():
    """95% intervals of the same systems: of the first one's F1, about 2/3 on average, and of the difference, 0."""
    groups = np.repeat(np.arange(20), 10).tolist()
    gold = [MENTION] * len(groups)
    held: dict[tuple[bool, bool], list[bool]] = {key: [] for key in itertools.product((True, False), repeat=2)}
    for seed in range(200):
        first, second = (by_whole_documents(2 * seed + system, groups) for system in (0, 1))
        for by_document, paired in held:
            low, high = bootstrap_interval(
                gold,
                first,
                baseline=second if paired else None,
                groups=groups if by_document else None,
                num_rounds=200,
                seed=seed,
            )
            held[by_document, paired].append(low <= (0 if paired else 2 / 3) <= high)
    for paired in (True, False):
        assert mean(held[True, paired]) > 0.85
        assert mean(held[False, paired]) < 0.7


def random_case(seed: int) -> tuple[Spans, Spans, Spans]:
    """Gold mentions of the sentences of `GROUPS`, and what two systems of different quality predict."""
    rng = random.Random(seed)

    def spans() -> list[Span]:
        return [Span(place, place + 1, rng.choice("ab")) for place in range(rng.randint(1, 4))]

    gold = [spans() for _ in GROUPS]
    return gold, *([right if rng.random() < share else spans() for right in gold] for share in (0.8, 0.3))


def of_documents(spans: Spans, documents: Sequence[int]) -> list[Span]:
    """The mentions of some documents in a single list, at words of their own."""
    chosen = [
        (draw, place) for draw, wanted in enumerate(documents) for place, group in enumerate(GROUPS) if group == wanted
    ]
    return [
        Span(1000 * draw + 10 * place + span.start, 1000 * draw + 10 * place + span.end, span.type)
        for draw, place in chosen
        for span in spans[place]
    ]


def f1_of_documents(gold: Spans, predicted: Spans, documents: Sequence[int]) -> float:
    return score_spans([of_documents(gold, documents)], [of_documents(predicted, documents)]).f1


@pytest.mark.parametrize("seed", range(5))
def test_randomisation_by_document_approaches_the_p_value_of_all_swaps(seed):
    gold, first, second = random_case(seed)
    observed = abs(score_spans(gold, first).f1 - score_spans(gold, second).f1)
    num_extreme = 0
    for swaps in itertools.product((False, True), repeat=4):
        swapped = {document for document, swap in zip(sorted(set(GROUPS)), swaps, strict=True) if swap}
        pairs = [
            (b, a) if document in swapped else (a, b) for a, b, document in zip(first, second, GROUPS, strict=True)
        ]
        f1_a, f1_b = (score_spans(gold, [pair[side] for pair in pairs]).f1 for side in (0, 1))
        num_extreme += abs(f1_a - f1_b) >= observed - 1e-12
    p_value = paired_significance(gold, first, second, groups=GROUPS, num_rounds=20_000).p_value
    assert p_value == pytest.approx(num_extreme / 16, abs=0.015)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_interval_by_document_approaches_that_of_all_draws(seed, paired):
    gold, first, second = random_case(seed)
    f1s = sorted(
        f1_of_documents(gold, first, drawn) - (f1_of_documents(gold, second, drawn) if paired else 0)
        for drawn in itertools.product(sorted(set(GROUPS)), repeat=4)
    )
    low, high = bootstrap_interval(
        gold, first, baseline=second if paired else None, groups=GROUPS, confidence=0.8, num_rounds=20_000
    )
    for bound, share in ((low, 0.1), (high, 0.9)):  # the bound lies where this share of all 256 draws is below it
        assert mean(f1 < bound - 1e-9 for f1 in f1s) <= share + 0.015
        assert mean(f1 <= bound + 1e-9 for f1 in f1s) >= share - 0.015


def test_a_document_counts_as_one_long_sentence():
    gold, first, second = random_case(0)
    merged = [[of_documents(spans, [unit]) for unit in sorted(set(GROUPS))] for spans in (gold, first, second)]
    options = {"num_rounds": 500, "seed": 3}
    assert paired_significance(gold, first, second, groups=GROUPS, **options) == paired_significance(*merged, **options)
    assert bootstrap_interval(gold, first, baseline=second, groups=GROUPS, **options) == bootstrap_interval(
        *merged[:2], baseline=merged[2], **options
    )


def test_documents_of_one_sentence_are_sentences():
    gold, first, second = random_case(1)
    groups = range(len(gold))
    assert paired_significance(gold, first, second, groups=groups) == paired_significance(gold, first, second)
    assert bootstrap_interval(gold, first, groups=groups) == bootstrap_interval(gold, first)


def test_groups_of_other_sentences_are_refused():
    gold, first, second = random_case(0)
    with pytest.raises(ValueError, match="9 groups for 10 sentences; wanted the unit of each"):
        paired_significance(gold, first, second, groups=GROUPS[:-1])
    with pytest.raises(ValueError, match="11 groups for 10 sentences"):
        bootstrap_interval(gold, first, groups=(*GROUPS, 0))
