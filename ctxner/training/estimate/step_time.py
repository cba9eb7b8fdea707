"""Expected time of an optimizer step on 1 to 64 GPUs: by formula, nothing is measured.

Assumed: `SENTENCES` a GPU and step, each `PLAIN_PIECES` and `CONTEXT_PIECES` long; `UTILIZATION` of the GPU's peak; one
micro-batch; communication beside no computation (DeepSpeed hides a part of it), at the full rate of the slowest link of
a ring through all GPUs; reading, the CRF, AdamW and what a collective takes to start cost nothing. So the share of
communication is too high rather than too low, and with small encoders, where the rest counts, all is too fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctxner.training.estimate.capacity import CONTEXT_PIECES, PLAIN_PIECES, sent_bytes
from ctxner.training.estimate.memory import STAGES, EncoderShape, ViewSize

NUM_GPUS = (1, 2, 4, 8, 16, 32, 64)
SENTENCES = 32
UTILIZATION = 0.4


@dataclass(frozen=True, slots=True)
class Gpu:
    """A kind of GPU in nodes of some.

    Attributes:
        name: Name of the kind of GPU.
        flops: Dense bfloat16 operations a second, at most.
        within: Bytes per second that one sends to another of its node.
        across: Bytes per second that one sends to another node.
        a_node: GPUs of a node.
    """

    name: str
    flops: float
    within: float
    across: float
    a_node: int


# NVIDIA's data sheet of the H100 SXM: 989 TFLOPS, NVLink 900 GB/s both ways together; a port of 400 Gb/s for each GPU.
H100 = Gpu("H100 SXM", 989e12, 450e9, 50e9, 8)


def step_flops(shape: EncoderShape, views: Sequence[ViewSize], *, checkpointing: bool) -> float:
    """Floating-point operations of the encoder in a step: forward, and twice as many backward.

    All pieces are counted in all layers, though the last layer's feed-forward part sees words only.

    A piece costs 2 operations a weight of the layers' matrices, and 4 H a piece of its row for attention's two
    products; with checkpointing, the forward pass is done twice.

    Source: Narayanan et al. (2021), "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM",
    appendix.
    """
    each = (2 * shape.layer_weights + 4 * shape.width * view.pieces for view in views)
    forward = sum(view.num_pieces * shape.layers * cost for view, cost in zip(views, each, strict=True))
    return forward * (4 if checkpointing else 3)


def step_times(
    shape: EncoderShape,
    *,
    num_parameters: int,
    num_trainable: int,
    checkpointing: bool,
    num_views: int = 2,
    gpu: Gpu = H100,
) -> list[dict[str, float | list[float]]]:
    """One row for each number of GPUs of `NUM_GPUS`: `gpus`, and by ZeRO stage `seconds` and `sentences_per_second`."""
    row = (PLAIN_PIECES, CONTEXT_PIECES)[-num_views:]
    views = [ViewSize(SENTENCES, pieces, 0) for pieces in row]
    computing = step_flops(shape, views, checkpointing=checkpointing) / (gpu.flops * UTILIZATION)
    rows: list[dict[str, float | list[float]]] = []
    for num_gpus in NUM_GPUS:
        rate = gpu.within if num_gpus <= gpu.a_node else gpu.across
        seconds = [
            computing
            + sent_bytes(
                num_parameters,
                num_trainable,
                stage=stage,
                workers=num_gpus,
                precision="autocast",
                views=num_views,
                micro_batches=1,
                looked_up=shape.largest_parameter,
            )
            / rate
            for stage in STAGES
        ]
        speeds = [num_gpus * SENTENCES / second for second in seconds]
        rows.append({"gpus": num_gpus, "seconds": seconds, "sentences_per_second": speeds})
    return rows
