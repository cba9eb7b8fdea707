"""Estimates a run's memory and traffic per worker for each ZeRO stage, and the batches that fit other machines.

`ctxner train --dry-run` prints the result; the formulas are in `ctxner.training.estimate.memory` and `capacity`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import nn

from ctxner.encoders import attention_dropout, encoder_layers
from ctxner.model.tagger import EncoderCRF
from ctxner.training.estimate.capacity import MACHINES, largest_batch_pieces, sent_bytes
from ctxner.training.estimate.memory import (
    BUCKET_ELEMENTS,
    STAGES,
    XLM_R_LARGE,
    EncoderShape,
    Precision,
    ViewSize,
    activation_bytes,
    state_bytes,
)
from ctxner.training.estimate.step_time import step_flops, step_times
from ctxner.views.view import View


def sizing(
    model: EncoderCRF,
    views: Mapping[str, Sequence[View]],
    steps: Sequence[Sequence[Sequence[int]]],
    *,
    workers: int,
    on_gpu: bool,
    precision: Precision,
    accumulate: int,
) -> dict[str, Any]:
    """Estimate the memory, traffic and step times of a run.

    Args:
        model: Model that training would build, with frozen parameters marked so; it needs no weights.
        views: Views of every sentence, by name of the view.
        steps: Optimizer steps of an epoch, each a list of micro-batches of indices into the views.
        workers: Number of workers.
        on_gpu: Whether each worker has a GPU.
        precision: Precision of the encoder's arithmetic.
        accumulate: Number of micro-batches per step.

    Returns:
        `encoder`, its sizes; `parameters` by part; `global_batch` (means over the steps); `largest_micro_batch` of a
        worker; `zero_stages`, one row per stage, in bytes: a worker's memory with and without gradient checkpointing,
        and what it sends per step; `flops_an_epoch` of all workers together; `fits`, the largest `optim.batch_pieces`
        by encoder, machine, checkpointing and ZeRO stage (None: nothing fits); `step_times` by encoder (see
        `ctxner.training.estimate.step_time`).
    """
    shape = EncoderShape.of(model.encoder.config)
    parameters = count_parameters(model)
    dropout = any(module.p > 0 for module in model.encoder.modules() if isinstance(module, nn.Dropout))
    settings: dict[str, Any] = {"num_tags": len(model.labels), "dropout": dropout, "frozen_layers": _frozen(model)}
    drops_attention = attention_dropout(model.encoder.config) > 0

    def kept(sizes: Sequence[ViewSize], checkpointing: bool) -> int:
        return activation_bytes(
            shape,
            sizes,
            precision=precision,
            on_gpu=on_gpu,
            checkpointing=checkpointing,
            attention_dropout=drops_attention,
            **settings,
        )

    shares = [
        [share for share in (batch[rank::workers] for rank in range(workers)) if share]
        for step in steps
        for batch in step
    ]
    sizes = [_sizes(views, share) for batch in shares for share in batch]
    largest = max(sizes, key=lambda size: kept(size, False))
    activations, checkpointed = kept(largest, False), kept(largest, True)
    states = {
        stage: state_bytes(
            parameters["all"],
            parameters["trainable"],
            stage=stage,
            workers=workers,
            precision=precision,
            accumulates=accumulate > 1,
            # Main memory is used only once it is written, a GPU's as soon as it is allocated.
            bucket_elements=BUCKET_ELEMENTS if on_gpu else min(BUCKET_ELEMENTS, parameters["trainable"]),
            largest_parameter=shape.largest_parameter,
        )
        for stage in STAGES
    }
    return {
        "encoder": asdict(shape),
        "parameters": parameters,
        "global_batch": {
            "sentences": sum(len(batch) for step in steps for batch in step) / len(steps),
            "pieces": sum(view.num_pieces for size in sizes for view in size) / len(steps),
        },
        "largest_micro_batch": {
            name: {"rows": size.rows, "pieces": size.pieces} for name, size in zip(views, largest, strict=True)
        },
        "zero_stages": [
            {
                "zero_stage": stage,
                "parameters": state.parameters,
                "gradients": state.gradients,
                "optimizer": state.optimizer,
                "master_weights": state.master_weights,
                "buffers": state.buffers,
                "activations": activations,
                "total": state.total + activations,
                "activations_checkpointed": checkpointed,
                "total_checkpointed": state.total + checkpointed,
                "sent_a_step": sent_bytes(
                    parameters["all"],
                    parameters["trainable"],
                    stage=stage,
                    workers=workers,
                    precision=precision,
                    views=len(views),
                    micro_batches=accumulate,
                    looked_up=shape.largest_parameter,
                ),
            }
            for stage, state in states.items()
        ],
        "flops_an_epoch": sum(step_flops(shape, size, checkpointing=False) for size in sizes),
        "fits": _fits(shape, parameters, settings, num_views=len(views)),
        "step_times": _step_times(shape, parameters, num_views=len(views)),
    }


def count_parameters(model: EncoderCRF) -> dict[str, int]:
    """Number of parameters of `encoder`, `head`, `crf` and `all`, and of those that are `trainable`."""
    counts = dict.fromkeys(("encoder", "head", "crf"), 0)
    for name, parameter in model.named_parameters():
        counts[name.split(".", 1)[0]] += parameter.numel()
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return {**counts, "all": sum(counts.values()), "trainable": trainable}


def _sizes(views: Mapping[str, Sequence[View]], share: Sequence[int]) -> list[ViewSize]:
    """Padded sizes of a worker's part of a micro-batch, one per view."""
    sizes = []
    for view in views.values():
        chosen = [view[index] for index in share]
        num_words = max(len(view.word_places) for view in chosen)
        rows = sum(view.num_rows for view in chosen)
        sizes.append(ViewSize(rows, max(view.longest_row for view in chosen), len(chosen) * num_words))
    return sizes


def _frozen(model: EncoderCRF) -> int | None:
    """Number of lowest layers without a backward pass; None when the embeddings are trained."""
    encoder = model.encoder
    embeddings = getattr(encoder, "embeddings", encoder.get_input_embeddings())
    if any(parameter.requires_grad for parameter in embeddings.parameters()):
        return None
    trained = [any(parameter.requires_grad for parameter in layer.parameters()) for layer in encoder_layers(encoder)]
    return trained.index(True) if True in trained else len(trained)


def _fits(
    shape: EncoderShape, parameters: dict[str, int], settings: dict[str, Any], *, num_views: int
) -> list[dict[str, Any]]:
    """Table of the batches that fit, for the configured encoder and for XLM-R-large with all parameters trained."""
    added = parameters["head"] + parameters["crf"]
    large = XLM_R_LARGE.num_parameters + added
    encoders = {
        "configured": (shape, parameters["all"], parameters["trainable"], settings),
        "xlm-roberta-large": (XLM_R_LARGE, large, large, {**settings, "dropout": True, "frozen_layers": None}),
    }
    return [
        {
            "encoder": name,
            "machine": str(machine),
            "precision": "bfloat16",
            "checkpointing": checkpointing,
            "batch_pieces": [
                largest_batch_pieces(
                    shape_of_encoder,
                    num_parameters=num_parameters,
                    num_trainable=num_trainable,
                    machine=machine,
                    stage=stage,
                    precision="autocast",
                    checkpointing=checkpointing,
                    num_views=num_views,
                    **chosen,
                )
                for stage in STAGES
            ],
        }
        for name, (shape_of_encoder, num_parameters, num_trainable, chosen) in encoders.items()
        for machine in MACHINES
        for checkpointing in (False, True)
    ]


def _step_times(
    shape: EncoderShape, parameters: dict[str, int], *, num_views: int
) -> dict[str, list[dict[str, float | list[float]]]]:
    large = XLM_R_LARGE.num_parameters
    encoders = {
        "configured": (shape, parameters["all"], parameters["trainable"]),
        "xlm-roberta-large": (XLM_R_LARGE, large, large),
    }
    return {
        name: step_times(
            shape_of_encoder,
            num_parameters=num_all,
            num_trainable=num_trainable,
            checkpointing=False,
            num_views=num_views,
        )
        for name, (shape_of_encoder, num_all, num_trainable) in encoders.items()
    }
