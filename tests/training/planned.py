"""A small world, configs of it, its views and its training set."""

from __future__ import annotations

import pytest

from ctxner.config import Config, parse_config
from ctxner.demo import make_world
from ctxner.labels import LabelSet
from ctxner.schema import Example, Passage, ScoredPassage
from ctxner.training.data.training_set import TrainingSet
from ctxner.views.builder import ViewBuilder

pytestmark = pytest.mark.numeric


WORLD = make_world(num_train=37, num_dev=6, num_test=0)


def config_of(**sections: dict) -> Config:
    return parse_config(sections)


def training_set(views: ViewBuilder, config: Config) -> TrainingSet:
    """Every third sentence has a passage, so that the views' lengths differ."""
    passage = ScoredPassage(Passage("p", "x", "A small village that few people remember."), 1.0, 1)
    examples = [Example(own, (passage,) if place % 3 == 0 else ()) for place, own in enumerate(WORLD.train)]
    return TrainingSet(examples, LabelSet(WORLD.types), views, config)
