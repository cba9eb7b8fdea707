"""Expected step times: operations as PyTorch counts them, and what more GPUs must do to them."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel

from ctxner.training.estimate.memory import XLM_R_LARGE, EncoderShape, ViewSize
from ctxner.training.estimate.step_time import H100, NUM_GPUS, UTILIZATION, step_flops, step_times
from tests.tiny_bert import tiny_bert

LARGE = {"num_parameters": XLM_R_LARGE.num_parameters, "num_trainable": XLM_R_LARGE.num_parameters}


def test_operations_are_those_that_pytorch_counts() -> None:
    config = tiny_bert(attn_implementation="eager")
    encoder, view = AutoModel.from_config(config, add_pooling_layer=False), ViewSize(3, 50, 0)
    with FlopCounterMode(display=False) as counter:
        ids = torch.randint(5, 100, (view.rows, view.pieces))
        encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.sum().backward()
    found = step_flops(EncoderShape.of(config), [view], checkpointing=False)
    assert found == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_checkpointing_adds_a_forward_pass() -> None:
    views = [ViewSize(2, 64, 0), ViewSize(2, 512, 0)]
    without, with_it = (step_flops(XLM_R_LARGE, views, checkpointing=own) for own in (False, True))
    assert with_it == pytest.approx(4 / 3 * without)


def test_one_gpu_only_computes_and_more_of_them_never_take_less_a_step() -> None:
    rows = step_times(XLM_R_LARGE, **LARGE, checkpointing=False)
    assert [row["gpus"] for row in rows] == list(NUM_GPUS)
    alone = 6 * 32 * 576 * 24 * XLM_R_LARGE.layer_weights / (H100.flops * UTILIZATION)  # attention apart
    for stage in range(4):
        seconds = [row["seconds"][stage] for row in rows]
        assert seconds == sorted(seconds)
        assert alone < seconds[0] < 1.2 * alone
    speeds = [row["sentences_per_second"][0] for row in rows]
    assert speeds == sorted(speeds), "without ZeRO"


def test_a_stage_that_sends_more_takes_longer_across_nodes() -> None:
    seconds = step_times(XLM_R_LARGE, **LARGE, checkpointing=False)[-1]["seconds"]
    assert seconds[0] < seconds[1] == seconds[2] < seconds[3]
