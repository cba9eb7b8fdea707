"""Whether two systems' scores differ, and how sure a score is: randomisation and bootstrap over documents or sentences.

`ctxner.evaluation.units` finds the documents of sentences; the counts are `ctxner.evaluation.scores`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ctxner.evaluation.scores import Spans, sentence_counts

_MOST_SIGNS = 20  # 2^20 changes of sign
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
    counts = [unit_counts(gold, predicted, groups)[None] for predicted in (predictions_a, predictions_b)]
    return compare_counts(*counts, num_rounds=num_rounds, seed=seed)


def compare_counts(
    counts_a: np.ndarray, counts_b: np.ndarray, *, num_rounds: int = 10_000, seed: int = 0
) -> Significance:
    """`paired_significance` of counts, also of several runs of two systems, such as seeds.

    What is compared is the mean of the runs' F1. A round swaps the outputs of a unit in all runs together: the runs are
    of the same sentences, so they are not independent. p speaks of these runs; how far further seeds would differ is
    seen in the spread of the differences.

    Args:
        counts_a: Counts of the first system from `unit_counts`, [runs, units, 3].
        counts_b: Counts of the second system for the same units; run by run, they are pairs.
        num_rounds: Number of rounds.
        seed: Seed of the swaps.

    Raises:
        ValueError: The two are of other runs or units, or there are no rounds.
    """
    _check_rounds(num_rounds)
    _check_pairs(counts_a, counts_b)
    total_a, total_b = counts_a.sum(1), counts_b.sum(1)
    delta = (counts_a - counts_b)[:, (counts_a != counts_b).any((0, 2))]
    observed = (_f1(total_a) - _f1(total_b)).mean()
    num_extreme = 0

    def count_extreme(rng: np.random.Generator, rounds: int) -> None:
        nonlocal num_extreme
        swaps = rng.integers(0, 2, (rounds, delta.shape[1]), dtype=np.int8).astype(float)
        swapped = swaps @ delta  # [runs, rounds, 3]; exact; runs in BLAS
        difference = (_f1(total_a[:, None] - swapped) - _f1(total_b[:, None] + swapped)).mean(0)
        num_extreme += int((np.abs(difference) >= abs(observed) - 1e-12).sum())

    _in_chunks(count_extreme, num_rounds, delta.shape[1], seed)
    p_value = (1 + num_extreme) / (1 + num_rounds)
    return Significance(float(_f1(total_a).mean()), float(_f1(total_b).mean()), float(observed), p_value, num_rounds)


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p of paired differences, such as one per seed, under all changes of their signs.

    It is the share of the 2^n changes of sign whose mean is at least as far from 0; so it is at least 2 / 2^n.

    Args:
        differences: One difference per pair, 1 to 20 of them.

    Raises:
        ValueError: There are none, or more than 20.

    Source: Fisher, "The Design of Experiments" (1935), section 21.
    """
    if not 1 <= len(differences) <= _MOST_SIGNS:
        raise ValueError(f"{len(differences)} differences; wanted 1 to {_MOST_SIGNS}")
    values = np.asarray(differences, dtype=float)
    signs = 1 - 2 * (np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1)
    return float((np.abs(signs @ values) >= abs(values.sum()) - 1e-9).mean())


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
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; wanted a number between 0 and 1, e.g. 0.95")
    if not gold:
        raise ValueError("no sentences to draw from; a bootstrap needs at least one")
    counts = unit_counts(gold, predicted, groups)[None]
    other = None if baseline is None else unit_counts(gold, baseline, groups)[None]
    return interval_of_counts(counts, other, confidence=confidence, num_rounds=num_rounds, seed=seed)


def interval_of_counts(
    counts: np.ndarray,
    baseline: np.ndarray | None = None,
    *,
    confidence: float = 0.95,
    num_rounds: int = 1_000,
    seed: int = 0,
) -> tuple[float, float]:
    """`bootstrap_interval` of counts: of the mean F1 of several runs, or of its difference to a baseline's.

    Args:
        counts: Counts from `unit_counts`, [runs, units, 3].
        baseline: Counts of another system for the same runs and units.
        confidence: Share of the draws that lie inside the interval.
        num_rounds: Number of draws.
        seed: Seed of the draws.

    Raises:
        ValueError: The two are of other runs or units, or there are no rounds.
    """
    _check_rounds(num_rounds)
    if baseline is not None:
        _check_pairs(counts, baseline)
    num_units, f1s = counts.shape[1], list[np.ndarray]()

    def drawn_f1(of: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        runs = [_f1(np.stack([column[chosen].sum(1) for column in run.T], axis=1)) for run in of]
        return np.mean(runs, axis=0)

    def draw(rng: np.random.Generator, rounds: int) -> None:
        chosen = rng.integers(0, num_units, (rounds, num_units))
        f1 = drawn_f1(counts, chosen)
        f1s.append(f1 if baseline is None else f1 - drawn_f1(baseline, chosen))

    _in_chunks(draw, num_rounds, num_units, seed)
    low, high = np.quantile(np.concatenate(f1s), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _check_pairs(counts_a: np.ndarray, counts_b: np.ndarray) -> None:
    if counts_a.shape != counts_b.shape or counts_a.ndim != 3 or not counts_a.size:
        raise ValueError(f"counts of shapes {counts_a.shape} and {counts_b.shape}; wanted [runs, units, 3] of the same")
    if not np.array_equal(counts_a[..., 2], counts_b[..., 2]):
        raise ValueError("the two have other numbers of gold mentions in their units: they are not of the same data")


def _check_rounds(num_rounds: int) -> None:
    if num_rounds < 1:
        raise ValueError(f"num_rounds is {num_rounds}; wanted at least 1")


def unit_counts(gold: Spans, predicted: Spans, groups: Sequence[int] | None) -> np.ndarray:
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
