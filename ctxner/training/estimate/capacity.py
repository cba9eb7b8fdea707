"""Estimates which batch fits on a machine, and what its workers send: by formula, nothing is measured."""

from __future__ import annotations

from dataclasses import dataclass

from ctxner.training.estimate.memory import EncoderShape, Precision, ViewSize, activation_bytes, state_bytes

GIB = 2**30
USABLE = 0.9  # share of a GPU's memory; CUDA's context, NCCL's buffers, temporary copies and fragments need the rest


@dataclass(frozen=True, slots=True)
class Machine:
    """GPUs of one kind, each with one worker, or workers on a node's CPUs; `gib` is the memory per worker in GiB."""

    gpus: int
    gib: float

    def __str__(self) -> str:
        return f"{self.gpus} x {self.gib} GiB"


MACHINES = (Machine(1, 24), Machine(8, 80))
PLAIN_PIECES, CONTEXT_PIECES, WORDS = 64, 512, 40  # assumed sizes of a sentence, where no data are given


def largest_batch_pieces(
    shape: EncoderShape,
    *,
    num_parameters: int,
    num_trainable: int,
    machine: Machine,
    stage: int,
    precision: Precision,
    checkpointing: bool,
    num_tags: int,
    dropout: bool,
    frozen_layers: int | None = None,
    num_views: int = 2,
    context_pieces: int = CONTEXT_PIECES,
    on_gpu: bool = True,
    attention_dropout: bool | None = None,
) -> int | None:
    """The largest `optim.batch_pieces` (over all workers and both views) that fits, in whole sentences per worker.

    A sentence is assumed to have `PLAIN_PIECES` in the plain view, `context_pieces` in the context view and `WORDS`.

    Returns:
        Number of pieces; None if not even one sentence per worker fits.
    """
    states = state_bytes(
        num_parameters,
        num_trainable,
        stage=stage,
        workers=machine.gpus,
        precision=precision,
        largest_parameter=shape.largest_parameter,
    )
    room = USABLE * machine.gib * GIB - states.total
    row = (PLAIN_PIECES, context_pieces)[-num_views:]

    def kept(sentences: int) -> int:
        sizes = [ViewSize(sentences, pieces, sentences * WORDS) for pieces in row]
        return activation_bytes(
            shape,
            sizes,
            num_tags=num_tags,
            precision=precision,
            dropout=dropout,
            on_gpu=on_gpu,
            checkpointing=checkpointing,
            frozen_layers=frozen_layers,
            attention_dropout=attention_dropout,
        )

    fixed, each = 2 * kept(1) - kept(2), kept(2) - kept(1)  # memory is linear in the number of sentences
    sentences = int((room - fixed) // each)
    return sentences * sum(row) * machine.gpus if sentences > 0 else None


def sent_bytes(
    num_parameters: int,
    num_trainable: int,
    *,
    stage: int,
    workers: int,
    precision: Precision,
    views: int,
    micro_batches: int,
    looked_up: int = 0,
) -> int:
    """Bytes that a worker sends per optimizer step. A ring of N sends (N - 1) / N of a tensor, twice for an all-reduce.

    Stage 0 sums the gradients: 2 Psi_t. Stages 1 and 2 also sum them (DeepSpeed combines the owners' parts in one
    all-reduce; the paper's reduce-scatter would send half) and gather the new parameters: 3 Psi_t; stage 2 sums after
    every micro-batch. Stage 3 gathers the parameters for each of V views' forward and backward and scatters the
    gradients, in every micro-batch: 2 V Psi + Psi_t. All views look the piece embeddings (`looked_up` elements) up at
    once, so V is 1 for them. Stage 3's figure is an upper bound: parameters that stay gathered (`LIVE_ELEMENTS`; a
    small encoder's all do) are not gathered again.

    Source: Rajbhandari et al. (2020), section 7.
    """
    width = 2 if precision == "bfloat16" else 4
    elements = {
        0: 2 * num_trainable,
        1: 3 * num_trainable,
        2: (2 * micro_batches + 1) * num_trainable,
        3: micro_batches * (2 * views * (num_parameters - looked_up) + 2 * looked_up + num_trainable),
    }[stage]
    return round(width * elements * (workers - 1) / workers)
