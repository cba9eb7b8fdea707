"""Builds the model and the training step from the config; the data are in `ctxner.training.data.training_set`."""

from __future__ import annotations

import dataclasses
import logging

import torch
from transformers import AutoModel, PreTrainedModel

from ctxner.config import Config
from ctxner.encoders import EncoderDropout, drop_pooler, encoder_config, encoder_layers, load_encoder, packaged_encoder
from ctxner.files.node_copies import local
from ctxner.labels import LabelSet
from ctxner.model.losses import PRESETS
from ctxner.model.tagger import EncoderCRF, load_tagger, saved_encoder_config
from ctxner.training.step import CooperativeStep

logger = logging.getLogger(__name__)


def start_path(config: Config) -> str:
    """Source of the encoder and the tokenizer: a folder of this node, or a hub id."""
    return local(config.model.warm_start or config.model.encoder or packaged_encoder())


def encoder_dropout(config: Config) -> EncoderDropout:
    """The dropout rates of the encoder that the config asks for."""
    layers, attention = config.model.encoder_dropout, config.model.attention_dropout
    if attention == "auto":
        attention = None if config.run.gpus else 0.0
    return EncoderDropout(layers, layers if attention is None else attention)


def build_model(config: Config, labels: LabelSet) -> EncoderCRF:
    """Build a tagger as the config describes it, with its initial weights."""
    settings, dropout = config.model, encoder_dropout(config)
    if settings.warm_start is None:
        return _on_encoder(load_encoder(start_path(config), dropout=dropout), config, labels)
    former = load_tagger(settings.warm_start, dropout=dropout)
    model = _on_encoder(former.encoder, config, labels)
    known = model.take_tags(former)
    logger.info("%s: its encoder, and its scores of %s", settings.warm_start, ", ".join(("O", *known)))
    return model


def planned_model(config: Config, labels: LabelSet) -> EncoderCRF:
    """Build the same tagger on PyTorch's meta device, for plans: it has all shapes but no weights."""
    settings = config.model
    if settings.warm_start is None:
        encoder = encoder_config(start_path(config), dropout=encoder_dropout(config))
    else:
        encoder = saved_encoder_config(settings.warm_start, dropout=encoder_dropout(config))
    with torch.device("meta"):
        model = AutoModel.from_config(encoder)
        drop_pooler(model)
        return _on_encoder(model, config, labels)


def _on_encoder(encoder: PreTrainedModel, config: Config, labels: LabelSet) -> EncoderCRF:
    settings = config.model
    model = EncoderCRF.on_encoder(
        encoder,
        labels,
        dropout=settings.dropout,
        word_dropout=settings.word_dropout,
        legal_transitions=settings.legal_transitions,
        max_pieces=settings.max_pieces,
        max_passages=settings.max_passages,
        mark_entries=settings.mark_entries,
        word_shapes=settings.word_shapes,
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
    """Wrap a model in the training step that computes the config's losses."""
    chosen = {
        name: getattr(config.loss, name) for name in ("kl", "temperature") if getattr(config.loss, name) is not None
    }
    weights = dataclasses.replace(PRESETS[config.loss.preset], **chosen)
    return CooperativeStep(model, mode=config.loss.mode, weights=weights, bfloat16=config.run.precision == "bfloat16")
