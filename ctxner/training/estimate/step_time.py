"""Estimates the time of an optimizer step on 1 to 64 GPUs: by formula, nothing is measured.

Assumptions: `SENTENCES` per GPU and step, of `PLAIN_PIECES` and `CONTEXT_PIECES`; `UTILIZATION` of the GPU's peak; one
micro-batch; communication never overlaps computation (DeepSpeed hides a part) and runs at the full rate of the slowest
link of a ring through all GPUs; reading, the CRF, AdamW and the start of a collective cost no time. So communication is
overestimated rather than underestimated; for small encoders, where the omitted costs matter, the times are too short.
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
    """A kind of GPU, and the nodes that hold it.

    Attributes:
        name: Name of the kind of GPU.
        flops: Peak rate of dense bfloat16 operations, per second.
        within: Bytes per second that a GPU sends to another GPU in its node.
        across: Bytes per second that a GPU sends to another node.
        a_node: Number of GPUs per node.
    """

    name: str
    flops: float
    within: float
    across: float
    a_node: int


# NVIDIA's data sheet of the H100 SXM: 989 TFLOPS, NVLink 900 GB/s in both directions together; 400 Gb/s port per GPU.
H100 = Gpu("H100 SXM", 989e12, 450e9, 50e9, 8)


def step_flops(shape: EncoderShape, views: Sequence[ViewSize], *, checkpointing: bool) -> float:
    """Floating-point operations of the encoder in a step: the forward pass, and twice as many for the backward pass.

    All pieces are counted in all layers, although the last layer's feed-forward part runs on words only.

    In each layer, a piece costs 2 operations per weight of the matrices, and 4 H per piece of its row for attention's
    two products; with checkpointing, the forward pass is done twice.

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
    """One row per number of GPUs in `NUM_GPUS`: `gpus`, and by ZeRO stage `seconds` and `sentences_per_second`."""
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
