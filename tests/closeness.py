"""Equality as ctxner promises it: everything the same, but for floating-point numbers, which may differ by rounding.

Kernels are chosen by the processor and by the shape of a batch, so no test compares computed numbers to the last bit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from ctxner.schema import ScoredPassage

TOLERANCE = 1e-4  # of probabilities, entropies and losses in float32


def assert_close(value: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    """Fail unless two structures are equal, with numbers of type float, arrays and tensors within a tolerance.

    Args:
        value: Any nesting of dataclasses, mappings, sequences, arrays, tensors and plain values.
        expected: The same nesting.
        tolerance: Largest difference of two floats: absolute, and relative to the expected one where that is above 1.
    """
    problems = list(_differences("", value, expected, tolerance))
    assert not problems, "; ".join(problems[:5])


def assert_same_ranking(
    ranked: Sequence[ScoredPassage], expected: Sequence[ScoredPassage], tolerance: float = 1e-3
) -> None:
    """Fail unless two rankings hold the same passages, with scores that are close and an order that they explain.

    Two passages may change places (and so one may be kept in place of the other) only where their scores are within
    twice the tolerance.
    """
    scores = {hit.passage.id: hit.rerank_score for hit in expected}
    assert sorted(hit.passage.id for hit in ranked) == sorted(scores)
    assert_close({hit.passage.id: hit.rerank_score for hit in ranked}, scores, tolerance)
    assert len([hit for hit in ranked if hit.dropped is None]) == len([hit for hit in expected if hit.dropped is None])
    kept = [scores[hit.passage.id] for hit in ranked if hit.dropped is None]
    assert all(first >= second - 2 * tolerance for first, second in pairwise(kept)), kept
    was_kept = {hit.passage.id: scores[hit.passage.id] for hit in expected if hit.dropped is None}
    changed = [hit for hit in ranked if (hit.dropped is None) != (hit.passage.id in was_kept)]
    limit = min(was_kept.values(), default=0.0)
    for hit in changed:
        assert hit.dropped == "near_duplicate" or abs(scores[hit.passage.id] - limit) <= 2 * tolerance, hit


def _differences(place: str, value: Any, expected: Any, tolerance: float) -> Iterator[str]:
    if isinstance(expected, torch.Tensor | np.ndarray):
        value, expected = (torch.as_tensor(array).double() for array in (value, expected))
        if value.shape != expected.shape:
            yield f"{place}: shape {tuple(value.shape)}, wanted {tuple(expected.shape)}"
        elif not torch.allclose(value, expected, rtol=tolerance, atol=tolerance, equal_nan=True):
            yield f"{place}: differs by {(value - expected).abs().max().item():.2g}"
    elif isinstance(expected, float) and isinstance(value, int | float):
        same = value == expected or abs(value - expected) <= tolerance * max(1.0, abs(expected))
        if not same and not (math.isnan(value) and math.isnan(expected)):
            yield f"{place}: {value!r}, wanted {expected!r}"
    elif dataclasses.is_dataclass(expected) and type(value) is type(expected):
        for field in dataclasses.fields(expected):
            pair = getattr(value, field.name), getattr(expected, field.name)
            yield from _differences(f"{place}.{field.name}", *pair, tolerance)
    elif isinstance(expected, Mapping) and isinstance(value, Mapping):
        if value.keys() != expected.keys():
            yield f"{place}: keys {sorted(map(str, value))}, wanted {sorted(map(str, expected))}"
        else:
            for key in expected:
                yield from _differences(f"{place}[{key!r}]", value[key], expected[key], tolerance)
    elif isinstance(expected, list | tuple) and type(value) is type(expected):
        if len(value) != len(expected):
            yield f"{place}: {len(value)} items, wanted {len(expected)}"
        else:
            for number, pair in enumerate(zip(value, expected, strict=True)):
                yield from _differences(f"{place}[{number}]", *pair, tolerance)
    elif value != expected:
        yield f"{place}: {value!r:.80}, wanted {expected!r:.80}"
