"""Whether two systems' scores differ, and how sure a score is: randomisation and bootstrap over documents or sentences.

`ctxner.evaluation.units` finds the documents of sentences; the counts are `ctxner.evaluation.scores`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ctxner.evaluation.scores import Spans, sentence_counts

_CHUNK_CELLS = 4_000_000  # rounds x units held at once: 32 MB of int64


@dataclass(frozen=True)
class Significance:
    """Result of `paired_significance`.

    Attributes:
        difference: `f1_a - f1_b`.
        p_value: Two-sided probability of a difference at least this large if the systems' outputs are exchangeable.
    """

    f1_a: float
    f1_b: float
    difference: float
    p_value: float
    num_rounds: int


def paired_significance(
    gold: Spans,
    predictions_a: Spans,
    predictions_b: Spans,
    *,
    groups: Sequence[int] | None = None,
    num_rounds: int = 10_000,
    seed: int = 0,
) -> Significance:
    """Whether two systems' micro F1 differ, by approximate randomisation over documents or sentences.

    Each round swaps the two outputs of every unit with probability 1/2. p is (1 + rounds with at least the observed
    difference) / (1 + rounds), so it is never 0. It compares only these two outputs, not other training seeds.

    Args:
        gold: Gold mentions of each sentence.
        predictions_a: Mentions that the first system predicts.
        predictions_b: Mentions that the second system predicts.
        groups: Unit of each sentence, such as the index of its document; None: each sentence is a unit. If sentences of
            a document tend to be right or wrong together, p is too small with sentences as units.
        num_rounds: Number of rounds.
        seed: Seed of the swaps.

    Raises:
        ValueError: The numbers of sentences differ, or there are no rounds.

    Source: Noreen (1989); Yeh, "More accurate tests for the statistical significance of result differences" (2000).
    """
    _check_rounds(num_rounds)
    counts_a, counts_b = (_unit_counts(gold, predicted, groups) for predicted in (predictions_a, predictions_b))
    total_a, total_b = counts_a.sum(0), counts_b.sum(0)
    delta = (counts_a - counts_b)[(counts_a != counts_b).any(1)]
    observed = _f1(total_a) - _f1(total_b)
    num_extreme = 0

    def count_extreme(rng: np.random.Generator, rounds: int) -> None:
        nonlocal num_extreme
        swapped = rng.integers(0, 2, (rounds, len(delta)), dtype=np.int8).astype(float) @ delta  # exact; runs in BLAS
        difference = _f1(total_a - swapped) - _f1(total_b + swapped)
        num_extreme += int((np.abs(difference) >= abs(observed) - 1e-12).sum())

    _in_chunks(count_extreme, num_rounds, len(delta), seed)
    p_value = (1 + num_extreme) / (1 + num_rounds)
    return Significance(float(_f1(total_a)), float(_f1(total_b)), float(observed), p_value, num_rounds)


def bootstrap_interval(
    gold: Spans,
    predicted: Spans,
    *,
    baseline: Spans | None = None,
    groups: Sequence[int] | None = None,
    confidence: float = 0.95,
    num_rounds: int = 1_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the micro F1 over documents or sentences drawn with replacement.

    Args:
        gold: Gold mentions of each sentence.
        predicted: Mentions that a system predicts.
        baseline: Mentions that another system predicts; the interval is then of the F1 difference on the same draws.
        groups: Unit of each sentence, as in `paired_significance`; a unit is drawn whole.
        confidence: Share of the draws that lie inside the interval.
        num_rounds: Number of draws.
        seed: Seed of the draws.

    Raises:
        ValueError: No sentences, different numbers of sentences, no rounds, or `confidence` outside (0, 1).
    """
    _check_rounds(num_rounds)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; wanted a number between 0 and 1, e.g. 0.95")
    if not gold:
        raise ValueError("no sentences to draw from; a bootstrap needs at least one")
    counts = _unit_counts(gold, predicted, groups)
    other = None if baseline is None else _unit_counts(gold, baseline, groups)
    f1s: list[np.ndarray] = []

    def draw(rng: np.random.Generator, rounds: int) -> None:
        chosen = rng.integers(0, len(counts), (rounds, len(counts)))
        f1 = _f1(np.stack([column[chosen].sum(1) for column in counts.T], axis=1))
        if other is not None:
            f1 -= _f1(np.stack([column[chosen].sum(1) for column in other.T], axis=1))
        f1s.append(f1)

    _in_chunks(draw, num_rounds, len(counts), seed)
    low, high = np.quantile(np.concatenate(f1s), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _check_rounds(num_rounds: int) -> None:
    if num_rounds < 1:
        raise ValueError(f"num_rounds is {num_rounds}; wanted at least 1")


def _unit_counts(gold: Spans, predicted: Spans, groups: Sequence[int] | None) -> np.ndarray:
    """Counts of each unit, [units, (correct, predicted, gold)], int64; the units are in the order of their indices."""
    counts = sentence_counts(gold, predicted)
    if groups is None:
        return counts
    if len(groups) != len(counts):
        raise ValueError(f"{len(groups)} groups for {len(counts)} sentences; wanted the unit of each sentence")
    indices, places = np.unique(np.asarray(groups), return_inverse=True)
    totals = np.zeros((len(indices), 3), dtype=np.int64)
    np.add.at(totals, places, counts)
    return totals


def _f1(counts: np.ndarray) -> np.ndarray:
    """[..., (correct, predicted, gold)] -> [...]."""
    total = counts[..., 1] + counts[..., 2]
    return 2 * counts[..., 0] / np.maximum(total, 1)


def _in_chunks(step: Callable[[np.random.Generator, int], None], num_rounds: int, num_units: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_CELLS // max(1, num_units))
    for start in range(0, num_rounds, chunk):
        step(rng, min(chunk, num_rounds - start))
