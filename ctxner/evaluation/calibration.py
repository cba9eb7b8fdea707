"""Measures and corrects the confidences of a model, and chooses which sentences `auto` looks up.

Platt scaling turns a confidence into the probability that the entity is right; a threshold on the plain view's entropy
decides which sentences `auto` looks up. `ctxner calibrate` fits both on dev data, `ctxner.model.calibration_file`
stores them, and `ctxner.predictor` applies them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctxner.evaluation.scores import Spans, sentence_counts
from ctxner.schema import Entity, Span

_LEAST = 10  # fewest right and fewest wrong entities with which two parameters are fitted
_CLIP = 1e-6  # a logit needs a probability inside (0, 1)


@dataclass(frozen=True, slots=True)
class Bin:
    """Entities with a confidence in `[low, high)` (the last bin includes 1.0): mean confidence, and share right."""

    low: float
    high: float
    num: int
    confidence: float
    accuracy: float


def outcomes(gold: Spans, predicted: Sequence[Sequence[Entity]]) -> tuple[list[float], list[bool], list[int]]:
    """The confidence of each predicted entity, whether span and type are right, and the number of its sentence."""
    if len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} gold sentences but {len(predicted)} predicted; give one list per sentence")
    results = [
        (entity.confidence, Span(entity.first_word, entity.last_word, entity.type) in wanted, number)
        for number, (wanted, entities) in enumerate(zip(map(set, gold), predicted, strict=True))
        for entity in entities
    ]
    return [result[0] for result in results], [result[1] for result in results], [result[2] for result in results]


def reliability_bins(confidences: Sequence[float], correct: Sequence[bool], *, num_bins: int = 15) -> list[Bin]:
    """The bins of equal width over [0, 1] that are not empty, ascending.

    Raises:
        ValueError: `num_bins` is below 1, the lengths differ, or a confidence is outside [0, 1].
    """
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}; wanted at least 1")
    p_N, right_N = _checked(confidences, correct)
    place_N = np.minimum((p_N * num_bins).astype(int), num_bins - 1)
    bins = []
    for place in np.unique(place_N):
        in_bin_N = place_N == place
        bins.append(
            Bin(
                float(place / num_bins),
                float((place + 1) / num_bins),
                int(in_bin_N.sum()),
                float(p_N[in_bin_N].mean()),
                float(right_N[in_bin_N].mean()),
            )
        )
    return bins


def expected_calibration_error(confidences: Sequence[float], correct: Sequence[bool], *, num_bins: int = 15) -> float:
    """Mean over entities of |confidence - accuracy| of their bin, in [0, 1]; 0.0 without entities.

    Arguments and errors are those of `reliability_bins`.

    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017).
    """
    bins = reliability_bins(confidences, correct, num_bins=num_bins)
    return sum(bin.num * abs(bin.confidence - bin.accuracy) for bin in bins) / max(1, len(confidences))


@dataclass(frozen=True, slots=True)
class PlattScaling:
    """`sigmoid(slope * logit(confidence) + intercept)`; the identity is slope 1, intercept 0."""

    slope: float
    intercept: float

    def __call__(self, confidence: float) -> float:
        """The calibrated confidence; a positive slope keeps the order of confidences."""
        p = min(max(confidence, _CLIP), 1 - _CLIP)
        z = self.slope * math.log(p / (1 - p)) + self.intercept
        small = math.exp(-abs(z))
        return (1.0 if z >= 0 else small) / (1.0 + small)


def fit_platt(confidences: Sequence[float], correct: Sequence[bool]) -> PlattScaling | None:
    """Fit the scaling by maximum likelihood, with Newton's method, to Platt's smoothed targets.

    Returns:
        None when there are fewer than 10 right or 10 wrong entities, when all confidences are equal, or when more
        confident entities are not more often right.

    Raises:
        ValueError: The lengths differ, or a confidence is outside [0, 1].

    Source: Platt (1999); Lin, Lin and Weng, "A note on Platt's probabilistic outputs" (2007).
    """
    p_N, right_N = _checked(confidences, correct)
    num_right = int(right_N.sum())
    num_wrong = len(right_N) - num_right
    if min(num_right, num_wrong) < _LEAST:
        return None
    p_N = p_N.clip(_CLIP, 1 - _CLIP)
    x_N2 = np.stack((np.log(p_N / (1 - p_N)), np.ones_like(p_N)), axis=1)
    if np.ptp(x_N2[:, 0]) == 0:
        return None
    target_N = np.where(right_N, (num_right + 1) / (num_right + 2), 1 / (num_wrong + 2))

    def loss(weights: np.ndarray) -> float:
        z_N = x_N2 @ weights
        return float((np.logaddexp(0, z_N) - target_N * z_N).sum())

    weights = np.array([0.0, math.log((num_right + 1) / (num_wrong + 1))])
    for _ in range(100):
        q_N = 0.5 * (1 + np.tanh(0.5 * (x_N2 @ weights)))
        gradient = x_N2.T @ (q_N - target_N)
        if np.abs(gradient).max() < 1e-9 * len(q_N):
            break
        hessian = (x_N2 * (q_N * (1 - q_N))[:, None]).T @ x_N2 + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        before, size = loss(weights), 1.0
        while size > 1e-9 and loss(weights - size * step) > before - 1e-4 * size * float(gradient @ step):
            size /= 2
        weights = weights - size * step
    slope, intercept = map(float, weights)
    return PlattScaling(slope, intercept) if slope > 0 else None


def cross_fitted(
    confidences: Sequence[float], correct: Sequence[bool], groups: Sequence[int], *, num_folds: int = 5
) -> list[float]:
    """Each confidence scaled by a fit to the other folds, so that no confidence is scaled by a fit that saw it.

    Args:
        confidences: Confidences before scaling.
        correct: Whether each prediction is right.
        groups: Group of each prediction, e.g. the number of its sentence; predictions of one group share a fold.
        num_folds: Number of folds, at least 2. A fold is not scaled if the other folds allow no fit.
    """
    scaled = list(map(float, confidences))
    for fold in range(num_folds):
        others = [index for index, group in enumerate(groups) if group % num_folds != fold]
        scaling = fit_platt([confidences[index] for index in others], [correct[index] for index in others])
        if scaling:
            for index, group in enumerate(groups):
                scaled[index] = scaling(scaled[index]) if group % num_folds == fold else scaled[index]
    return scaled


@dataclass(frozen=True, slots=True)
class AutoPoint:
    """Result of `auto` at one threshold.

    Attributes:
        threshold: Threshold in nats; `auto` looks up sentences whose plain entropy is above it. -1: all sentences.
        share: Share of the sentences that are looked up.
        f1: Micro F1 in [0, 1] of the answers: context view for looked-up sentences, else plain view.
    """

    threshold: float
    share: float
    f1: float


def auto_curve(gold: Spans, plain: Spans, context: Spans, entropies: Sequence[float]) -> list[AutoPoint]:
    """Exact F1 of `auto` for every share that a threshold can give, from none to all sentences.

    Args:
        gold: Gold mentions of each sentence.
        plain: Mentions that the plain view finds in each sentence.
        context: Mentions that the context view finds in each sentence.
        entropies: Entropies of the plain view, in nats. A threshold lies halfway between two different entropies, so
            that rounding changes no choice; the threshold of share 0 is the largest entropy.

    Raises:
        ValueError: No sentences, different numbers of sentences, or an entropy that is negative or not finite.
    """
    if not gold:
        raise ValueError("no sentences; a threshold is chosen on at least one")
    entropy_N = np.asarray(entropies, dtype=float)
    if len(entropy_N) != len(gold) or not (np.isfinite(entropy_N).all() and (entropy_N >= 0).all()):
        raise ValueError(f"{len(entropy_N)} entropies of {len(gold)} sentences; wanted one per sentence, finite, >= 0")
    plain_N3 = sentence_counts(gold, plain)
    delta_N3 = sentence_counts(gold, context) - plain_N3
    order_N = np.argsort(-entropy_N, kind="stable")
    counts_M3 = plain_N3.sum(0) + np.concatenate((np.zeros((1, 3), dtype=int), delta_N3[order_N].cumsum(0)))
    f1_M = 2 * counts_M3[:, 0] / np.maximum(counts_M3[:, 1] + counts_M3[:, 2], 1)
    sorted_N = entropy_N[order_N]
    halves = (sorted_N[:-1] + sorted_N[1:]) / 2
    between = np.where(halves < sorted_N[:-1], halves, sorted_N[1:])
    threshold_M = np.concatenate((sorted_N[:1], between, [-1.0]))
    distinct_M = np.concatenate(([True], sorted_N[:-1] > sorted_N[1:], [True]))
    return [
        AutoPoint(float(threshold_M[number]), number / len(gold), float(f1_M[number]))
        for number in np.flatnonzero(distinct_M).tolist()
    ]


def choose_threshold(
    curve: Sequence[AutoPoint], *, share: float | None = None, f1: float | None = None, gain: float | None = None
) -> AutoPoint:
    """The point whose share is nearest to the wanted one, or the point with the smallest share that reaches F1 or gain.

    Sentences with equal entropies are looked up together, so a threshold cannot give every share.

    Args:
        curve: Points from `auto_curve`.
        share: Share of the sentences to look up, in [0, 1]; of two equally near shares the larger is chosen.
        f1: F1 to reach, in [0, 1].
        gain: Part of the F1 gain of the context view over the plain view to keep, e.g. 0.9.

    Raises:
        ValueError: Not exactly one target is given, it is outside [0, 1], no point reaches it (the message names the
            best F1), or the context view has no gain.
    """
    wanted = {name: value for name, value in (("share", share), ("f1", f1), ("gain", gain)) if value is not None}
    if len(wanted) != 1:
        raise ValueError(f"wanted exactly one of share, f1 and gain, found {', '.join(wanted) or 'none'}")
    [(name, value)] = wanted.items()
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; wanted a number from 0 to 1")
    if name == "share":
        return min(curve, key=lambda point: (round(abs(point.share - value), 12), -point.share))
    plain, context = curve[0].f1, curve[-1].f1
    if name == "gain" and context <= plain:
        raise ValueError(
            f"the context view's F1 ({context:.4f}) is not above the plain view's ({plain:.4f}): no gain to keep; "
            "choose the threshold by share or f1"
        )
    least = value if name == "f1" else plain + value * (context - plain)
    reached = next((point for point in curve if point.f1 >= least - 1e-12), None)
    if reached is None:
        best = max(curve, key=lambda point: point.f1)
        raise ValueError(
            f"no threshold reaches F1 {least:.4f}; the best is {best.f1:.4f}, with {best.share:.0%} of the sentences "
            "looked up"
        )
    return reached


def _checked(confidences: Sequence[float], correct: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    p_N, right_N = np.asarray(confidences, dtype=float), np.asarray(correct, dtype=bool)
    if p_N.shape != right_N.shape:
        raise ValueError(f"{len(p_N)} confidences but {len(right_N)} outcomes; wanted one of each an entity")
    if not ((p_N >= -_CLIP) & (p_N <= 1 + _CLIP)).all():  # a float32 probability may be a bit above 1
        raise ValueError("a confidence is outside [0, 1], or not a number")
    return p_N.clip(0, 1), right_N
