"""What the tests of training share: a small tagger, what tensors weigh, and a small world on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import BertConfig

from ctxner.config import parse_config
from ctxner.demo import write_world
from ctxner.encoders import load_tokenizer
from ctxner.files.contexts import Context
from ctxner.model.tagger import EncoderCRF, EncoderCRFConfig
from ctxner.schema import Passage, ScoredPassage
from ctxner.training.data.training_set import load_split
from ctxner.training.step import CooperativeStep
from ctxner.views.builder import ViewBuilder
from ctxner.views.view import ViewBatch
from tests.contexts_files import write_contexts
from tests.training.planned import WORLD


@pytest.fixture(scope="session")
def small_model() -> Callable[..., EncoderCRF]:
    """A new tagger with random weights: four layers, 128 wide."""

    def make(
        dropout: float = 0.0, *, vocabulary: int = 1000, types: tuple[str, ...] = ("person", "place")
    ) -> EncoderCRF:
        torch.manual_seed(0)
        encoder = BertConfig(
            vocab_size=vocabulary,
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=512,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
        return EncoderCRF(EncoderCRFConfig(encoder=encoder.to_dict(), types=list(types), dropout=dropout)).train()

    return make


@pytest.fixture(scope="session")
def saved_bytes() -> Callable[[CooperativeStep, ViewBatch | None, ViewBatch | None, Tensor], int]:
    """Bytes of the distinct storages that autograd keeps of a step's forward pass, the parameters' own left out."""

    def measure(step: CooperativeStep, plain: ViewBatch | None, context: ViewBatch | None, weight_B: Tensor) -> int:
        own = {parameter.untyped_storage().data_ptr() for parameter in step.parameters()}
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            losses = step(plain, context, weight_B)
        assert losses["loss"].requires_grad
        return sum(kept.values())

    return measure


@pytest.fixture(scope="session")
def num_bytes() -> Callable[[Iterable[Tensor | None]], int]:
    """Bytes of tensors."""
    return lambda tensors: sum(own.numel() * own.element_size() for own in tensors if own is not None)


@pytest.fixture(scope="module")
def views(minilm: str) -> ViewBuilder:
    return ViewBuilder(load_tokenizer(minilm))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, dict]:
    """Config sections of the demo world on disk, with contexts for training and dev."""
    write_world(WORLD, tmp_path)
    for split in ("train", "dev"):
        sentences = load_split(parse_config({"data": {split: str(tmp_path / f"{split}.conll")}}).data, split)
        passage = ScoredPassage(Passage("p", "x", "A small village that few people remember."), 1.0, 1)
        found = {own.sentence.id: Context(own.sentence.words, "q", (passage,)) for own in sentences}
        write_contexts(found, tmp_path / "contexts" / f"{split}.parquet")
    paths = {split: str(tmp_path / f"{split}.conll") for split in ("train", "dev")}
    folders = {"contexts": str(tmp_path / "contexts"), "cache": str(tmp_path / "views")}
    return {"data": {**paths, **folders}, "optim": {"batch_sentences": 4, "epochs": 2}}
