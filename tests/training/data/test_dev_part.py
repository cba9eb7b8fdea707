"""How many sentences of dev are scored after each epoch, and which."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from ctxner.config import parse_config
from ctxner.encoders import load_tokenizer
from ctxner.labels import LabelSet
from ctxner.schema import Example, Sentence
from ctxner.training.data.dev_part import dev_part
from ctxner.training.data.training_set import TrainingSet
from ctxner.views.builder import ViewBuilder


@pytest.fixture
def train_on(minilm: str) -> Callable[..., TrainingSet]:
    views = ViewBuilder(load_tokenizer(minilm))

    def make(number: int, **settings: object) -> TrainingSet:
        config = parse_config({"loss": {"mode": "cl-kl"}, **settings})
        return TrainingSet([_example(place) for place in range(number)], LabelSet(("place",)), views, config)

    return make


def _example(number: int) -> Example:
    return Example(Sentence(f"s-{number}", ("Velmora", "sank", "."), ("S-place", "O", "O")))


def test_dev_is_scored_whole_where_that_takes_little(train_on: Callable[..., TrainingSet]) -> None:
    dev = [_example(number) for number in range(52)]
    assert dev_part(dev, train_on(100)) == dev


def test_of_a_large_dev_set_evenly_spaced_sentences_take_15_percent(train_on: Callable[..., TrainingSet]) -> None:
    """At three forward passes per training step: n / (n + 3 * 100) <= 0.15."""
    dev = [_example(number) for number in range(1000)]
    scored = dev_part(dev, train_on(100))
    assert len(scored) == 52
    assert len(scored) / (len(scored) + 3 * 100) <= 0.15
    gaps = {dev.index(after) - dev.index(before) for before, after in itertools.pairwise(scored)}
    assert gaps == {19, 20}
    assert scored == dev_part(dev, train_on(100)), "the same after each epoch and a resume"


def test_a_number_and_all_of_dev_are_what_was_asked_for(train_on: Callable[..., TrainingSet]) -> None:
    dev = [_example(number) for number in range(1000)]
    for asked in (None, 1000):
        assert dev_part(dev, train_on(100, data={"dev_sentences": asked})) == dev


def test_a_view_that_is_only_scored_counts_with_its_longest(train_on: Callable[..., TrainingSet]) -> None:
    dev = [_example(number) for number in range(1000)]
    both = train_on(100, loss={"mode": "plain"}, run={"dev_views": "both"}, model={"max_pieces": 128})
    one = train_on(100, loss={"mode": "plain"})
    assert len(dev_part(dev, both)) < len(dev_part(dev, one)) / 10
    assert dev_part(dev[:3], both)
