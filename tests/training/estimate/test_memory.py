"""Computed bytes against tensors that are there: parameters, gradients, moments, and what autograd keeps of a step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import nn
from transformers import AutoModel, BertConfig, XLMRobertaConfig, XLMRobertaModel

from ctxner.labels import LabelSet
from ctxner.model.losses import PRESETS
from ctxner.model.tagger import EncoderCRF
from ctxner.training.estimate.memory import (
    XLM_R_LARGE,
    EncoderShape,
    Precision,
    ViewSize,
    activation_bytes,
    state_bytes,
)
from ctxner.training.step import CooperativeStep, parameter_groups
from ctxner.views.view import ViewBatch

TYPES = ("person", "place")
Make, Kept = Callable[..., EncoderCRF], Callable[..., int]
NUM_TAGS = len(LabelSet(TYPES))
PLAIN, CONTEXT = ViewSize(8, 24, 8 * 20), ViewSize(8, 96, 8 * 20)


def batch(size: ViewSize) -> ViewBatch:
    """Random rows, the first of them shorter, as in any batch with padding."""
    num_words = size.words // size.rows
    attention_RP = torch.ones(size.rows, size.pieces, dtype=torch.long)
    attention_RP[0, -1] = 0
    first_B1 = torch.arange(size.rows).unsqueeze(1) * size.pieces
    return ViewBatch(
        torch.randint(5, 1000, (size.rows, size.pieces)),
        attention_RP,
        torch.arange(num_words).repeat(size.rows, 1) + 1 + first_B1,
        torch.ones(size.rows, num_words, dtype=torch.bool),
        torch.zeros(size.rows, num_words, dtype=torch.long),
    )


def cooperative_step(model: EncoderCRF, mode: str, bfloat16: bool) -> CooperativeStep:
    return CooperativeStep(model, mode=mode, weights=PRESETS["paper"], bfloat16=bfloat16)


@pytest.fixture
def kept(saved_bytes: Callable[..., int]) -> Callable[[CooperativeStep, Iterable[ViewSize]], int]:
    """What autograd keeps of a step over random batches of these sizes."""

    def measure(step: CooperativeStep, views: Iterable[ViewSize]) -> int:
        batches = [batch(view) for view in views]
        context = batches[1] if len(batches) > 1 else None
        return saved_bytes(step, batches[0], context, torch.ones(len(batches[0].mask_BT)))

    return measure


@pytest.mark.parametrize(
    ("precision", "dropout", "views"),
    [
        ("float32", 0.0, (PLAIN,)),
        ("float32", 0.0, (PLAIN, CONTEXT)),
        ("float32", 0.1, (PLAIN, CONTEXT)),
        ("autocast", 0.0, (PLAIN, CONTEXT)),
        ("autocast", 0.1, (PLAIN, CONTEXT)),
    ],
    ids=str,
)
def test_activations_are_within_a_tenth_of_what_autograd_keeps(
    small_model: Make, kept: Kept, precision: Precision, dropout: float, views: tuple[ViewSize, ...]
) -> None:
    model = small_model(dropout)
    step = cooperative_step(model, "cl-kl" if len(views) > 1 else "plain", precision == "autocast")
    computed = activation_bytes(
        EncoderShape.of(model.encoder.config),
        views,
        num_tags=NUM_TAGS,
        precision=precision,
        dropout=dropout > 0,
        on_gpu=False,
        checkpointing=False,
    )
    assert computed == pytest.approx(kept(step, views), rel=0.1)


def test_a_checkpointed_step_keeps_the_layers_inputs_and_computes_one_layer_again(
    small_model: Make, kept: Kept
) -> None:
    model, views = small_model(), (PLAIN, CONTEXT)
    shape, settings = EncoderShape.of(model.encoder.config), {"num_tags": NUM_TAGS, "precision": "float32"}
    settings |= {"dropout": False, "on_gpu": False}
    whole = kept(cooperative_step(model, "cl-kl", False), views)
    model.encoder.gradient_checkpointing_enable()
    inputs = kept(cooperative_step(model, "cl-kl", False), views)
    one_layer = activation_bytes(shape, (CONTEXT,), checkpointing=False, **settings) / shape.layers
    computed = activation_bytes(shape, views, checkpointing=True, **settings)
    assert computed == pytest.approx(inputs + one_layer, rel=0.1)
    assert computed < 0.5 * whole


def test_nothing_is_kept_of_frozen_embeddings_and_layers(small_model: Make, kept: Kept) -> None:
    model = small_model()
    model.encoder.embeddings.requires_grad_(False)
    model.encoder.encoder.layer[:3].requires_grad_(False)
    computed = activation_bytes(
        EncoderShape.of(model.encoder.config),
        (PLAIN, CONTEXT),
        num_tags=NUM_TAGS,
        precision="float32",
        dropout=False,
        on_gpu=False,
        checkpointing=False,
        frozen_layers=3,
    )
    assert computed == pytest.approx(kept(cooperative_step(model, "cl-kl", False), (PLAIN, CONTEXT)), rel=0.1)


@pytest.mark.parametrize("pieces", [128, 512])
def test_half_precision_on_a_gpu_is_korthikantis_formula_with_fused_attention(pieces: int) -> None:
    """Where each piece is a word, so that the last layer is like the others."""
    shape, views = XLM_R_LARGE, [ViewSize(3, pieces, 3 * pieces)]
    found = activation_bytes(
        shape, views, num_tags=1, precision="bfloat16", dropout=True, on_gpu=True, checkpointing=False, frozen_layers=0
    )
    s, b, h, a = pieces, 3, shape.width, shape.heads
    selective = 34 * s * b * h * shape.layers  # equation 1 without the attention that fusing does not keep
    fused = (4 * a + 2 * s + 16) * s * b * shape.layers
    words = s * b * (2 * h + 4 * 8)  # the head's input and the CRF's messages
    assert found == selective + fused + words


def test_states_without_zero_are_the_tensors_of_adamw(small_model: Make, num_bytes: Callable[..., int]) -> None:
    model = small_model()
    model.encoder.embeddings.requires_grad_(False)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, encoder_lr=1e-4, head_lr=1e-3, crf_lr=1e-3, weight_decay=0.01), fused=True
    )
    step = cooperative_step(model, "plain", False)
    step(batch(PLAIN), None, torch.ones(PLAIN.rows))["loss"].backward()
    optimizer.step()
    parameters = list(model.parameters())
    sizes = [own.numel() for own in parameters], [own.numel() for own in parameters if own.requires_grad]
    found = state_bytes(sum(sizes[0]), sum(sizes[1]), stage=0, workers=4, precision="float32")
    moments = [own for state in optimizer.state.values() for name, own in state.items() if name.startswith("exp_avg")]
    assert found.parameters == num_bytes(parameters)
    assert found.gradients == num_bytes(own.grad for own in parameters)
    assert found.optimizer == num_bytes(moments)
    assert (found.master_weights, found.buffers) == (0, 0)
    assert found.total == found.parameters + found.gradients + found.optimizer


@pytest.mark.parametrize(("stage", "expected"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_states_are_those_of_the_zero_papers_figure(stage: int, expected: float) -> None:
    """Figure 1: 7.5 billion parameters, mixed precision, 64 workers, in GB; without DeepSpeed's buffers."""
    found = state_bytes(
        7_500_000_000,
        7_500_000_000,
        stage=stage,
        workers=64,
        precision="bfloat16",
        accumulates=True,
        bucket_elements=0,
        live_elements=0,
    )
    assert found.total / 1e9 == pytest.approx(expected, abs=0.06)


def test_more_workers_or_a_higher_stage_never_need_more_but_for_buffers() -> None:
    bare = {"accumulates": True, "bucket_elements": 0, "live_elements": 0}
    for precision, stage in itertools.product(("float32", "autocast", "bfloat16"), (1, 2, 3)):
        totals = [
            state_bytes(1000, 900, stage=stage, workers=workers, precision=precision, **bare).total
            for workers in (1, 2, 8)
        ]
        assert totals == sorted(totals, reverse=True)
        lower = state_bytes(1000, 900, stage=stage - 1, workers=8, precision=precision, **bare).total
        assert totals[-1] < lower


@pytest.mark.parametrize("kind", [XLMRobertaConfig, BertConfig])
def test_parameters_of_an_encoder_are_counted_exactly(kind: type[XLMRobertaConfig | BertConfig]) -> None:
    config = kind(
        vocab_size=311,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=40,
        max_position_embeddings=50,
        type_vocab_size=1,
    )
    model: nn.Module = AutoModel.from_config(config, add_pooling_layer=False)
    assert EncoderShape.of(config).num_parameters == sum(own.numel() for own in model.parameters())


def test_the_large_encoder_has_its_published_size() -> None:
    with torch.device("meta"):
        model = XLMRobertaModel(
            XLMRobertaConfig(
                vocab_size=250_002,
                hidden_size=1024,
                num_hidden_layers=24,
                num_attention_heads=16,
                intermediate_size=4096,
                max_position_embeddings=514,
                type_vocab_size=1,
            ),
            add_pooling_layer=False,
        )
    assert XLM_R_LARGE.num_parameters == sum(own.numel() for own in model.parameters()) == 558_840_832
