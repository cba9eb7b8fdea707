"""What a training run will do, before any worker starts: data, model, steps, and how a batch is shared out.

Nothing here depends on Ray, and only `TrainingSet.share` on a rank; `ctxner train --dry-run` prints `plan`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from ctxner.config import Config, DataConfig, packaged_encoder
from ctxner.contexts import load_examples
from ctxner.labels import LabelSet
from ctxner.model.losses import PRESETS
from ctxner.model.tagger import EncoderCRF, encoder_layers, load_tokenizer
from ctxner.schema import Example
from ctxner.training.sizing import sizing
from ctxner.training.step import CooperativeStep
from ctxner.views import View, ViewBatch, ViewBuilder, epoch_batches, padding_share


class TrainingSet:
    """Both views of the training sentences and the plan of every epoch; nothing here depends on the rank."""

    def __init__(self, examples: Sequence[Example], labels: LabelSet, views: ViewBuilder, config: Config) -> None:
        self.config, self.builder = config, views
        if untagged := [example.sentence.id for example in examples if example.sentence.tags is None]:
            raise ValueError(
                f"{len(untagged)} training sentences have no tags, first {untagged[0]!r}; give data.tag_column"
            )
        self.tags = [labels.encode(example.sentence.tags or (), source=example.sentence.id) for example in examples]
        self.plain = [views.plain(example.sentence) for example in examples] if config.loss.mode != "context" else None
        self.context = [views.context(example) for example in examples] if config.loss.mode != "plain" else None
        used = [own for own in (self.plain, self.context) if own is not None]
        self.shapes = [
            (max(view.num_rows for view in both), *(view.longest_row for view in both))
            for both in zip(*used, strict=True)
        ]

    def steps(self, epoch: int) -> list[list[list[int]]]:
        """The optimizer steps of an epoch, each a list of micro-batches of sentence indices."""
        optim = self.config.optim
        batches = epoch_batches(
            self.shapes,
            max_pieces=optim.batch_pieces,
            max_sentences=optim.batch_sentences,
            seed=self.config.run.seed,
            epoch=epoch,
        )
        return [batches[first : first + optim.accumulate] for first in range(0, len(batches), optim.accumulate)]

    def num_steps(self) -> int:
        """Optimizer steps of all epochs."""
        return sum(len(self.steps(epoch)) for epoch in range(self.config.optim.epochs))

    def num_pieces(self) -> dict[str, int]:
        """Pieces of each view in an epoch, padding not counted."""
        return {name: sum(view.num_pieces for view in own) for name, own in self.views().items()}

    def padding(self) -> dict[str, float]:
        """Share of padding in each view's batches of the first epoch."""
        batches = [batch for step in self.steps(0) for batch in step]
        return {name: padding_share(own, batches) for name, own in self.views().items()}

    def views(self) -> dict[str, list[View]]:
        """The views that the mode trains on, by name."""
        return {name: own for name, own in (("plain", self.plain), ("context", self.context)) if own is not None}

    def share(
        self, batch: Sequence[int], rank: int, world_size: int, device: torch.device
    ) -> tuple[ViewBatch | None, ViewBatch | None, torch.Tensor]:
        """A rank's part of a micro-batch; a rank without a sentence gets one of weight zero, so that all take part."""
        mine = list(batch[rank::world_size])
        weight_B = torch.ones(max(1, len(mine)), device=device)
        if not mine:
            mine, weight_B = [batch[0]], weight_B * 0
        return self._collate(self.plain, mine, device), self._collate(self.context, mine, device), weight_B

    def _collate(self, views: list[View] | None, indices: list[int], device: torch.device) -> ViewBatch | None:
        if views is None:
            return None
        return self.builder.collate([views[index] for index in indices], [self.tags[index] for index in indices]).to(
            device
        )


def load_split(data: DataConfig, split: str) -> list[Example]:
    """A configured split joined to its contexts; ValueError for whatever is wrong with its files."""
    return load_examples(data.path(split), data.column_format(), contexts=data.contexts_path(split))


def build_model(config: Config, labels: LabelSet) -> EncoderCRF:
    """A new tagger as the config describes it."""
    settings = config.model
    model = EncoderCRF.from_encoder(
        settings.encoder or packaged_encoder(),
        labels,
        dropout=settings.dropout,
        encoder_dropout=settings.encoder_dropout,
        word_dropout=settings.word_dropout,
        legal_transitions=settings.legal_transitions,
        max_pieces=settings.max_pieces,
        max_passages=settings.max_passages,
    )
    embeddings = getattr(model.encoder, "embeddings", model.encoder.get_input_embeddings())
    embeddings.requires_grad_(not settings.freeze_embeddings)
    if settings.gradient_checkpointing:
        model.encoder.gradient_checkpointing_enable({"use_reentrant": False})
    layers = encoder_layers(model.encoder)
    if settings.freeze_layers > len(layers):
        raise ValueError(f"model.freeze_layers={settings.freeze_layers}, but the encoder has {len(layers)} layers")
    layers[: settings.freeze_layers].requires_grad_(False)
    return model


def build_step(model: EncoderCRF, config: Config) -> CooperativeStep:
    """The config's losses around a model."""
    chosen = {
        name: getattr(config.loss, name) for name in ("kl", "temperature") if getattr(config.loss, name) is not None
    }
    weights = dataclasses.replace(PRESETS[config.loss.preset], **chosen)
    return CooperativeStep(model, mode=config.loss.mode, weights=weights, bfloat16=config.run.precision == "bfloat16")


def plan(config: Config) -> dict[str, Any]:
    """The arithmetic of a run: sentences, pieces, steps, padding, and what `sizing` says of memory and traffic.

    Raises:
        ValueError: Whatever is wrong with the data, the contexts or the encoder.
    """
    examples, dev = load_split(config.data, "train"), load_split(config.data, "dev")
    labels = LabelSet.from_sentences(example.sentence for example in examples)
    model = build_model(config, labels)
    views = ViewBuilder(
        load_tokenizer(config.model.encoder or packaged_encoder()),
        max_pieces=model.config.max_pieces,
        max_passages=model.config.max_passages,
    )
    data = TrainingSet(examples, labels, views, config)
    return {
        "sentences": {"train": len(examples), "dev": len(dev)},
        "types": list(labels.types),
        "pieces_an_epoch": data.num_pieces(),
        "padding": {name: round(share, 4) for name, share in data.padding().items()},
        "steps_an_epoch": len(data.steps(0)),
        "steps": data.num_steps(),
        "batch": {"sentences": config.optim.batch_sentences, "accumulate": config.optim.accumulate},
        "workers": config.run.workers,
        "max_pieces": model.config.max_pieces,
        **sizing(model, data.views(), data.steps(0), config),
    }
