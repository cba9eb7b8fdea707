"""Computes what a training run will do, before any worker starts; `ctxner train --dry-run` prints it.

No weights are loaded. The model and the step are in `ctxner.training.build`, the data in `ctxner.training.data`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ctxner.config import Config
from ctxner.encoders import load_tokenizer
from ctxner.labels import LabelSet, gold_spans
from ctxner.schema import Example
from ctxner.training.automatic import resolved
from ctxner.training.build import planned_model, start_path
from ctxner.training.data.dev_part import dev_part
from ctxner.training.data.training_set import TrainingSet, load_split, load_training
from ctxner.training.data.warnings import check_passages, doubts
from ctxner.training.estimate.report import sizing

SCORED = "dev, scored after each epoch"  # in a plan's sentences


def plan(config: Config, *, retrieved: bool = True) -> dict[str, Any]:
    """Sizes of a run: sentences, pieces, steps, padding, and the memory and traffic that `sizing` estimates.

    Args:
        config: Settings of the run.
        retrieved: Whether the sentences have their passages; else the sizes are those of sentences without passages.

    Raises:
        ValueError: The data, the contexts or the encoder cannot be used.
    """
    config = resolved(config)
    (examples, unlabelled), dev = load_training(config.data), load_split(config.data, "dev")
    try:
        labels = LabelSet.from_sentences(example.sentence for example in examples)
    except ValueError as error:
        raise ValueError(f"{config.data.path('train')}: {error}") from None
    if retrieved:
        check_passages(config, [*examples, *unlabelled])
    model = planned_model(config, labels)
    views = model.view_builder(load_tokenizer(start_path(config)))
    data = TrainingSet(examples, labels, views, config, unlabelled, cache=config.data.views_cache())
    steps_by_epoch, scored = data.steps_by_epoch(), dev_part(dev, config, data.sentences_an_epoch)
    sizes = sizing(
        model,
        data.views(),
        data.steps(0),
        workers=config.run.workers,
        on_gpu=config.run.gpus > 0,
        precision="autocast" if config.run.precision == "bfloat16" else "float32",
        accumulate=config.optim.accumulate,
    )
    return {
        "sentences": {"train": len(examples), "dev": len(dev), SCORED: len(scored)}
        | ({"unlabelled": len(unlabelled)} if unlabelled else {}),
        "types": list(labels.types),
        "mentions": {"train": _mentions(examples), "dev": _mentions(dev)},
        "pieces_an_epoch": data.num_pieces(),
        "padding": {name: round(share, 4) for name, share in data.padding().items()},
        "sentences_an_epoch": data.sentences_an_epoch,
        "steps_an_epoch": len(data.steps(0)),
        "steps": sum(steps_by_epoch),
        "steps_by_epoch": steps_by_epoch,
        "batch": {"sentences": config.optim.batch_sentences, "accumulate": config.optim.accumulate},
        "workers": config.run.workers,
        "max_pieces": model.config.max_pieces,
        "doubts": doubts(config, examples, dev, labels),
        **sizes,
    }


def _mentions(examples: Sequence[Example]) -> dict[str, int]:
    counts = Counter(span.type for example in examples for span in gold_spans(example.sentence))
    return dict(sorted(counts.items()))
