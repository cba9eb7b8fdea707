"""Holds the data of a run: both views of its sentences, the batches of every epoch, and each rank's part of a batch.

Only `TrainingSet.share` depends on a rank: every worker packs the same batches from (seed, epoch). No code uses Ray.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ctxner.config import Config, DataConfig
from ctxner.files.contexts import load_examples, unlabelled_examples
from ctxner.files.sentences import refuse_untagged
from ctxner.labels import LabelSet, training_tags
from ctxner.schema import Example
from ctxner.training.data.epoch_views import ShownViews, build_views
from ctxner.training.step import UNLABELLED
from ctxner.views.batches import epoch_batches, padding_share
from ctxner.views.builder import ViewBuilder
from ctxner.views.view import View, ViewBatch


class TrainingSet:
    """Both views of the training sentences and the plan of every epoch; its state is the same on all ranks.

    Args:
        examples: Sentences with tags.
        labels: Labels of the model.
        views: Builder of the views.
        config: Settings of the run; the data, model, loss, optim and run sections are read.
        unlabelled: Sentences whose tags, if any, are ignored; their indices follow those of the examples.
        cache: Folder that keeps the views for the next run and for all workers of a node; None: views stay in memory.

    Raises:
        ValueError: A sentence has no tags or no words, or a tag that is not among the labels.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        labels: LabelSet,
        views: ViewBuilder,
        config: Config,
        unlabelled: Sequence[Example] = (),
        *,
        cache: Path | None = None,
    ) -> None:
        self.config, self.builder, self.num_labelled = config, views, len(examples)
        if untagged := [example.sentence.id for example in examples if example.sentence.tags is None]:
            raise ValueError(
                f"{len(untagged)} training sentences have no tags, first {untagged[0]!r}; give --set data.tag_column=N"
            )
        self.tags = [labels.encode(training_tags(example.sentence), source=example.sentence.id) for example in examples]
        self.tags += [[UNLABELLED] * len(example.sentence.words) for example in unlabelled]
        every, mode = [*examples, *unlabelled], config.loss.mode
        self.plain = None if mode == "context" else ShownViews(build_views(every, views, "plain", cache))
        self.context = None if mode == "plain" else build_views(every, views, "context", cache)
        self._shown: tuple[int, ShownViews | None] = (-1, None)  # epoch and its context views
        self._packed: tuple[int, list[list[list[int]]]] = (-1, [])  # epoch and its steps
        self._order = list(range(self.num_labelled, len(every)))
        random.Random(config.run.seed).shuffle(self._order)  # noqa: S311 - the same again, not a secret

    def steps(self, epoch: int) -> list[list[list[int]]]:
        """Optimizer steps of an epoch, each a list of micro-batches of sentence indices."""
        if self._packed[0] != epoch:
            self._packed = (epoch, self._pack(epoch))
        return self._packed[1]

    def _pack(self, epoch: int) -> list[list[list[int]]]:
        optim = self.config.optim
        assert optim.batch_pieces != "auto", "see ctxner.training.automatic"
        chosen = [*range(self.num_labelled), *self._unlabelled(epoch)]
        rows, longest = zip(*(view.shape() for view in self.views(epoch).values()), strict=True)
        shapes = list(
            zip(
                np.maximum.reduce(rows)[chosen].tolist(),
                *(lengths[chosen].tolist() for lengths in longest),
                strict=True,
            )
        )
        batches = epoch_batches(
            shapes,
            max_pieces=optim.batch_pieces,
            max_sentences=optim.batch_sentences,
            seed=self.config.run.seed,
            epoch=epoch,
        )
        batches = [[chosen[place] for place in batch] for batch in batches]
        return [batches[first : first + optim.accumulate] for first in range(0, len(batches), optim.accumulate)]

    def steps_by_epoch(self) -> list[int]:
        """Number of optimizer steps of each epoch."""
        return [len(self.steps(epoch)) for epoch in range(self.config.optim.epochs)]

    @property
    def sentences_an_epoch(self) -> int:
        """Number of sentences in an epoch, those without tags too."""
        return self.num_labelled + len(self._unlabelled(0))

    def num_pieces(self) -> dict[str, int]:
        """Number of pieces of each view in the first epoch, without padding."""
        indices = [index for step in self.steps(0) for batch in step for index in batch]
        return {name: sum(view[index].num_pieces for index in indices) for name, view in self.views().items()}

    def padding(self) -> dict[str, float]:
        """Share of padding in each view's batches of the first epoch."""
        batches = [batch for step in self.steps(0) for batch in step]
        return {name: padding_share(view, batches) for name, view in self.views().items()}

    def views(self, epoch: int = 0) -> dict[str, ShownViews]:
        """Views that the mode trains on in an epoch, by name."""
        shown = {"plain": self.plain, "context": self._context(epoch)}
        return {name: views for name, views in shown.items() if views is not None}

    def share(
        self, batch: Sequence[int], rank: int, world_size: int, device: torch.device, *, epoch: int = 0
    ) -> tuple[ViewBatch | None, ViewBatch | None, torch.Tensor]:
        """A rank's part of a micro-batch; a rank without sentences gets one of weight 0, so that every rank works."""
        mine = list(batch[rank::world_size])
        weight_B = torch.ones(max(1, len(mine)), device=device)
        if not mine:
            mine, weight_B = [batch[0]], weight_B * 0
        return self._collate(self.plain, mine, device), self._collate(self._context(epoch), mine, device), weight_B

    def _unlabelled(self, epoch: int) -> list[int]:
        """Indices of an epoch's unlabelled sentences: the next ones in a shuffled order that is repeated endlessly."""
        order = self._order
        number = min(len(order), round(self.num_labelled * self.config.data.unlabelled_ratio))
        return [order[(epoch * number + place) % len(order)] for place in range(number)]

    def _context(self, epoch: int) -> ShownViews | None:
        """Context views of an epoch; the passages that it shows are drawn at random from (seed, epoch)."""
        settings = self.config.model
        if self.context is None:
            return None
        if self._shown[0] != epoch:
            kept = None
            if settings.context_dropout or settings.random_passages:
                seed = self.config.run.seed % 2**64  # NumPy takes no negative seeds
                chance, kept = np.random.default_rng((seed, epoch)), self.context.num_passages
                if settings.random_passages:
                    kept = chance.integers(np.minimum(kept, 1), kept, endpoint=True)
                kept = np.where(chance.random(len(kept)) < settings.context_dropout, 0, kept)
            self._shown = (epoch, ShownViews(self.context, kept))
        return self._shown[1]

    def _collate(self, views: Sequence[View] | None, indices: list[int], device: torch.device) -> ViewBatch | None:
        if views is None:
            return None
        return self.builder.collate([views[index] for index in indices], [self.tags[index] for index in indices]).to(
            device
        )


def load_split(data: DataConfig, split: str) -> list[Example]:
    """Load a tagged split joined to its contexts, as much of it as is set; with `auto`, all of dev.

    Raises:
        ValueError: A file is unusable, or a sentence has no gold tags.
    """
    num_sentences = {"train": data.train_sentences, "dev": data.first_dev_sentences()}.get(split)
    contexts = data.contexts_path(split)
    examples = load_examples(data.path(split), data.column_format(), contexts=contexts, num_sentences=num_sentences)
    refuse_untagged((example.sentence for example in examples), data.path(split))
    return examples


def load_training(data: DataConfig) -> tuple[list[Example], list[Example]]:
    """Load the training sentences of all data sets of a run: those with tags, and the unlabelled ones.

    Raises:
        ValueError: A file cannot be used, a sentence with no tags is not in `data.unlabelled`, or a data set of
            `data.also` has no sentences.
    """
    examples = load_split(data, "train")
    for further in data.also:
        more = load_examples(further.train, further.column_format(), contexts=further.contexts)
        if not more:
            raise ValueError(f"{further.train}: no sentences; remove it from data.also")
        refuse_untagged((example.sentence for example in more), further.train)
        examples += more
    return examples, unlabelled_examples(data.unlabelled) if data.unlabelled is not None else []
