"""How many sentences of dev are scored after each epoch, and which."""

from __future__ import annotations

import itertools

from ctxner.config import Config, parse_config
from ctxner.schema import Example, Sentence
from ctxner.training.data.dev_part import dev_part

DEV = [Example(Sentence(f"s-{number}", ("Velmora", "sank", "."))) for number in range(1000)]


def _config(**settings: object) -> Config:
    return parse_config({"loss": {"mode": "cl-kl"}, **settings})


def test_dev_is_scored_whole_where_that_takes_little() -> None:
    assert dev_part(DEV[:52], _config(), 100) == DEV[:52]


def test_of_a_large_dev_set_evenly_spaced_sentences_take_15_percent() -> None:
    """At three forward passes per training step: n / (n + 3 * 100) <= 0.15."""
    for mode in ("cl-kl", "plain", "context"):
        scored = dev_part(DEV, _config(loss={"mode": mode}), 100)
        assert len(scored) == 52
        assert len(scored) / (len(scored) + 3 * 100) <= 0.15
        gaps = {DEV.index(after) - DEV.index(before) for before, after in itertools.pairwise(scored)}
        assert gaps == {19, 20}


def test_a_number_and_all_of_dev_are_what_was_asked_for() -> None:
    for asked in (None, 1000):
        assert dev_part(DEV, _config(data={"dev_sentences": asked}), 100) == DEV


def test_a_view_that_is_only_scored_counts_with_its_length() -> None:
    """64 pieces are trained per sentence, and 64 and 256 scored: a fifth of the sentences."""
    settings = {"loss": {"mode": "plain"}, "run": {"dev_views": "both"}, "model": {"max_pieces": 256}}
    assert len(dev_part(DEV, _config(**settings), 100)) == 52 // 5
    assert dev_part(DEV[:3], _config(**settings), 1)
