"""The sentences of dev that are scored after each epoch: few enough that scoring takes little of an epoch's time."""

from __future__ import annotations

from collections.abc import Sequence

from ctxner.schema import Example
from ctxner.training.data.training_set import TrainingSet

SHARE = 0.15  # largest share of an epoch's time, training and scoring together
_STEP_COST = 3  # a training step costs about three forward passes: one forward, and twice as much backward


def dev_part(dev: Sequence[Example], data: TrainingSet) -> list[Example]:
    """The sentences of dev that are scored after each epoch: evenly spaced, in their order, the same in all epochs.

    All of them are, unless `data.dev_sentences` is `auto` and scoring would take more than `SHARE` of an epoch. The
    sentences of dev are assumed to be as long as those of train, and a view that is scored but not trained as long as
    `model.max_pieces`.

    Args:
        dev: Sentences of dev.
        data: Sentences of train, with the settings of the run.
    """
    config = data.config
    if config.data.dev_sentences != "auto":
        return list(dev)
    num_train, num_pieces = sum(len(batch) for step in data.steps(0) for batch in step), data.num_pieces()
    longest = config.model.max_pieces * num_train
    per_sentence = sum(num_pieces.get(view, longest) for view in config.dev_views()) / num_train
    most = SHARE / (1 - SHARE) * _STEP_COST * sum(num_pieces.values()) / per_sentence
    number = min(len(dev), max(1, int(most)))
    return [dev[place * len(dev) // number] for place in range(number)]
