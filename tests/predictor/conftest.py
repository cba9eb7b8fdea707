"""Sentences to predict for, and what two predictions must have in common."""

import random

import pytest

from ctxner.predictions import Prediction
from ctxner.schema import Example, Sentence
from ctxner.texts import as_scored

pytestmark = pytest.mark.numeric


WORDS = [
    "Paris", "Hilton", "sings", "in", "London", ",", "don't", "@you", "#think", "so", "?", "Müller", "日", "👍🏽",
    "http://t.co/x", "10:30", "loooong",
]  # fmt: skip


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    """Sentences of 1 to 70 words (the longest in windows), most with passages."""
    rng = random.Random(0)
    found = []
    for number in range(64):
        words = tuple(rng.choices(WORDS, k=rng.choice([1, 2, 5, 9, 14, 70])))
        texts = [" ".join(rng.choices(WORDS, k=rng.randint(3, 40))) for _ in range(rng.randint(0, 4))]
        found.append(Example(Sentence(f"s-{number}", words), as_scored(texts)))
    return found


def reasons(predictions: list[Prediction]) -> set[str | None]:
    return {prediction.reason for prediction in predictions}


def assert_same(found: list[Prediction], wanted: list[Prediction]) -> None:
    assert [(own.sentence_id, own.tags, own.spans, own.passages) for own in found] == [
        (own.sentence_id, own.tags, own.spans, own.passages) for own in wanted
    ]
    for first, second in zip(found, wanted, strict=True):
        assert first.entropy == pytest.approx(second.entropy, abs=1e-3)
        assert [e.confidence for e in first.entities] == pytest.approx(
            [e.confidence for e in second.entities], abs=1e-4
        )
