"""The model is built as the config says, from an encoder or from another model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ctxner.config import parse_config
from ctxner.encoders import load_tokenizer
from ctxner.labels import LabelSet
from ctxner.training.build import build_model, build_step, encoder_dropout, start_path
from ctxner.views.builder import ViewBuilder
from tests.training.planned import WORLD, config_of, training_set

pytestmark = pytest.mark.numeric


def test_encoder_dropout_and_frozen_embeddings_are_what_the_config_says() -> None:
    settings = {"encoder_dropout": 0.0, "freeze_embeddings": True, "dropout": 0.3}
    model = build_model(parse_config({"model": settings}), LabelSet(WORLD.types))
    assert {own.p for own in model.encoder.modules() if isinstance(own, torch.nn.Dropout)} == {0.0}
    assert model.dropout.p == 0.3
    frozen = [name for name, own in model.named_parameters() if not own.requires_grad]
    assert frozen == [name for name, _ in model.named_parameters() if name.startswith("encoder.embeddings.")]


def test_attention_has_a_dropout_of_its_own_and_without_it_is_fused(views: ViewBuilder) -> None:
    """What is not fused keeps each layer's probabilities [heads, pieces, pieces] for the backward pass."""
    whole = {"attention_dropout": None}
    for settings, rates in ((whole, {0.1}), ({}, {0.0, 0.1}), ({**whole, "encoder_dropout": 0.2}, {0.2})):
        config = parse_config({"model": settings})
        model = build_model(config, LabelSet(WORLD.types)).train()
        assert {own.p for own in model.encoder.modules() if isinstance(own, torch.nn.Dropout)} == rates
        data, step, kept = training_set(views, config), build_step(model, config), list[torch.Size]()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda own, kept=kept: kept.append(own.shape) or own, lambda own: own
        ):
            step(*data.share(range(4), 0, 1, torch.device("cpu")))
        squares = [shape for shape in kept if len(shape) == 4 and shape[1] > 1 and shape[2] == shape[3]]
        assert bool(squares) == ("attention_dropout" in settings)
    on_gpus = parse_config({"run": {"gpus": 1}, "model": {"encoder_dropout": 0.2}})
    assert encoder_dropout(on_gpus) == (0.2, 0.2)


def test_gradient_checkpointing_keeps_less_and_gives_the_same_losses_and_gradients(
    views: ViewBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the last layer whole in both: where it sees words only, it draws fewer random numbers for its dropout."""
    monkeypatch.setattr("ctxner.model.tagger._PLAIN_LAYERS", ())
    found = {}
    for on in (False, True):
        config = parse_config({"model": {"gradient_checkpointing": on}})  # with the encoder's own dropout
        torch.manual_seed(0)
        model = build_model(config, LabelSet(WORLD.types)).train()
        data, step, kept = training_set(views, config), build_step(model, config), []
        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda own, kept=kept: kept.append(own.numel()) or own, lambda own: own
        ):
            losses = step(*data.share(range(4), 0, 1, torch.device("cpu")))
        losses["loss"].backward()
        gradients = [own.grad for own in model.parameters() if own.grad is not None]
        found[on] = (losses["loss"].item(), gradients, sum(kept))
    assert found[True][0] == found[False][0]
    torch.testing.assert_close(found[True][1], found[False][1], atol=1e-6, rtol=1e-4)
    assert found[True][2] < 0.7 * found[False][2]


def test_a_warm_start_keeps_the_encoder_and_the_scores_of_shared_tags(minilm: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    former = build_model(config_of(model={"max_pieces": 64}), LabelSet(("person", "ship")))
    torch.nn.init.normal_(former.crf.transitions)
    former.save_pretrained(tmp_path / "former")
    load_tokenizer(minilm).save_pretrained(tmp_path / "former")
    config = config_of(model={"warm_start": str(tmp_path / "former")})
    assert start_path(config) == str(tmp_path / "former")
    model = build_model(config, LabelSet(("ship", "town")))
    for name, tensor in former.encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], tensor)
    shared = ["O", "B-ship", "I-ship", "E-ship", "S-ship"]
    mine, theirs = model.labels.encode(shared), former.labels.encode(shared)
    assert torch.equal(model.head.weight[mine], former.head.weight[theirs])
    assert torch.equal(model.crf.transitions[mine][:, mine], former.crf.transitions[theirs][:, theirs])
    other = build_model(config, LabelSet(("gene",)))
    assert torch.equal(other.head.weight[0], former.head.weight[0]), "O"
    assert other.config.max_pieces == 512


def test_two_starts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.encoder and model\.warm_start each say where to begin; set one"):
        config_of(model={"encoder": "a", "warm_start": "b"})
