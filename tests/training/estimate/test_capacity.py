"""What is said to fit fits, and one sentence more does not; traffic is that of the ZeRO paper and of DeepSpeed."""

from __future__ import annotations

import pytest

from ctxner.training.estimate.capacity import (
    CONTEXT_PIECES,
    GIB,
    PLAIN_PIECES,
    USABLE,
    WORDS,
    Machine,
    largest_batch_pieces,
    sent_bytes,
)
from ctxner.training.estimate.memory import STAGES, XLM_R_LARGE, ViewSize, activation_bytes, state_bytes

NUM_PARAMETERS = XLM_R_LARGE.num_parameters


def fits(machine: Machine, *, stage: int, checkpointing: bool) -> int | None:
    return largest_batch_pieces(
        XLM_R_LARGE,
        num_parameters=NUM_PARAMETERS,
        num_trainable=NUM_PARAMETERS,
        machine=machine,
        stage=stage,
        precision="autocast",
        checkpointing=checkpointing,
        num_tags=25,
        dropout=True,
    )


def bytes_needed(machine: Machine, *, stage: int, checkpointing: bool, batch_pieces: int) -> int:
    sentences = batch_pieces // machine.gpus // (PLAIN_PIECES + CONTEXT_PIECES)
    views = [ViewSize(sentences, pieces, sentences * WORDS) for pieces in (PLAIN_PIECES, CONTEXT_PIECES)]
    settings = {"num_tags": 25, "precision": "autocast", "dropout": True, "on_gpu": True}
    sizes = {"precision": "autocast", "largest_parameter": XLM_R_LARGE.largest_parameter}
    states = state_bytes(NUM_PARAMETERS, NUM_PARAMETERS, stage=stage, workers=machine.gpus, **sizes)
    return states.total + activation_bytes(XLM_R_LARGE, views, checkpointing=checkpointing, **settings)


@pytest.mark.parametrize("machine", [Machine(1, 24), Machine(8, 80)], ids=str)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_largest_batch_fits_and_one_sentence_more_a_worker_does_not(
    machine: Machine, stage: int, checkpointing: bool
) -> None:
    found = fits(machine, stage=stage, checkpointing=checkpointing)
    assert found is not None
    room, more = USABLE * machine.gib * GIB, machine.gpus * (PLAIN_PIECES + CONTEXT_PIECES)
    settings = {"stage": stage, "checkpointing": checkpointing}
    assert found % more == 0
    assert bytes_needed(machine, batch_pieces=found, **settings) <= room
    assert bytes_needed(machine, batch_pieces=found + more, **settings) > room


def test_nothing_fits_where_the_states_alone_do_not() -> None:
    assert fits(Machine(1, 8), stage=0, checkpointing=True) is None


def test_sixteen_gigabytes_are_enough_for_the_large_encoder_only_with_checkpointing() -> None:
    without, with_it = (fits(Machine(1, 16), stage=0, checkpointing=own) for own in (False, True))
    assert with_it is not None
    assert (without or 0) < 0.2 * with_it


@pytest.mark.parametrize(("stage", "volume"), [(0, 2), (1, 3), (2, 3), (3, 3)])
def test_one_view_and_many_workers_send_what_the_zero_paper_says(stage: int, volume: int) -> None:
    """Section 7: 2 Psi, and 3 Psi in stage 3; DeepSpeed's all-reduce makes 3 of the paper's 2 in stages 1 and 2."""
    found = sent_bytes(1000, 1000, stage=stage, workers=10**6, precision="bfloat16", views=1, micro_batches=1)
    assert found == pytest.approx(2 * volume * 1000, rel=1e-5)


def test_only_stages_that_share_gradients_send_them_every_micro_batch() -> None:
    def sent(stage: int, micro_batches: int) -> int:
        return sent_bytes(1000, 1000, stage=stage, workers=2, precision="float32", views=2, micro_batches=micro_batches)

    assert [sent(stage, 4) / sent(stage, 1) for stage in STAGES] == [1, 1, 3, 4]
    assert [
        sent_bytes(9, 9, stage=stage, workers=1, precision="float32", views=2, micro_batches=1) for stage in STAGES
    ] == [0] * 4
