"""The sentences of dev that are scored after each epoch: few enough that scoring takes little of an epoch's time."""

from __future__ import annotations

from collections.abc import Sequence

from ctxner.config import Config
from ctxner.schema import Example
from ctxner.training.estimate.capacity import PLAIN_PIECES

SHARE = 0.15  # largest share of an epoch's time, training and scoring together
STEP_COST = 3  # a training step costs about three forward passes: one forward, and twice as much backward


def dev_part(dev: Sequence[Example], config: Config, num_train: int) -> list[Example]:
    """The sentences of dev that are scored after each epoch: evenly spaced, in their order, the same in all epochs.

    All of them are, unless `data.dev_sentences` is `auto` and scoring would take more than `SHARE` of an epoch. The
    sentences of dev are assumed to be as long as those of train. Only where other views are scored than trained their
    lengths matter: `PLAIN_PIECES` and `model.max_pieces` are assumed.

    Args:
        dev: Sentences of dev.
        config: Settings of the run.
        num_train: Number of sentences in an epoch.
    """
    if config.data.dev_sentences != "auto":
        return list(dev)
    pieces = {"plain": PLAIN_PIECES, "context": config.model.max_pieces}
    trained, scored = (sum(pieces[view] for view in views) for views in (config.trained_views(), config.dev_views()))
    most = SHARE / (1 - SHARE) * STEP_COST * num_train * trained / scored
    number = min(len(dev), max(1, int(most)))
    return [dev[place * len(dev) // number] for place in range(number)]
