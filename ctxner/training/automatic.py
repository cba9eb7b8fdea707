"""Settings that are `auto`: what they are on the machine where a run starts.

`data.dev_sentences=auto` depends on the data and is decided in `ctxner.training.data.dev_part`.
"""

from __future__ import annotations

import logging

import torch

from ctxner.config import Config
from ctxner.encoders import attention_dropout, native_dtype
from ctxner.labels import LabelSet
from ctxner.training.build import planned_model
from ctxner.training.estimate.capacity import GIB, PLAIN_PIECES, Machine, largest_batch_pieces
from ctxner.training.estimate.machine import memory_bytes
from ctxner.training.estimate.memory import EncoderShape
from ctxner.training.estimate.report import count_parameters

logger = logging.getLogger(__name__)

_FREE = 0.6  # share of a machine's main memory for its workers; Ray's objects and other programs need the rest
_TYPES = LabelSet(("a", "b", "c", "d"))  # of unread data; the CRF's part of the memory is small
_WITHOUT_GPU_HERE = 8192  # pieces: the default, where the workers' GPUs are on other machines


def resolved(config: Config, *, saved: Config | None = None) -> Config:
    """The config without `auto` in `run.precision` and `optim.batch_pieces`.

    Args:
        config: Settings of a run.
        saved: Settings with which the run was started, if it goes on: what was `auto` then stays as it was.

    Raises:
        ValueError: Not even one sentence fits into memory, or there is no such encoder.
    """
    precision, batch_pieces = config.run.precision, config.optim.batch_pieces
    if precision == "auto":
        precision = saved.run.precision if saved else native_dtype("cuda" if config.run.gpus else "cpu")
        config = config.model_copy(update={"run": config.run.model_copy(update={"precision": precision})})
    if batch_pieces == "auto":
        batch_pieces = saved.optim.batch_pieces if saved else _fitting(config)
        config = config.model_copy(update={"optim": config.optim.model_copy(update={"batch_pieces": batch_pieces})})
    return config


def _fitting(config: Config) -> int:
    """The largest number of pieces in a micro-batch that fits, and not more than a full batch can have."""
    run, model, num_views = config.run, planned_model(config, _TYPES), len(config.trained_views())
    largest = config.model.max_pieces + (PLAIN_PIECES if num_views > 1 else 0)
    most = config.optim.batch_sentences * largest
    if run.gpus and not torch.cuda.is_available():
        return min(most, _WITHOUT_GPU_HERE)
    total = torch.cuda.get_device_properties(0).total_memory if run.gpus else _FREE * memory_bytes() / run.workers
    shape, parameters = EncoderShape.of(model.encoder.config), count_parameters(model)
    fits = largest_batch_pieces(
        shape,
        num_parameters=parameters["all"],
        num_trainable=parameters["trainable"],
        machine=Machine(run.workers, total / GIB),
        stage=run.zero_stage,
        precision="autocast" if run.precision == "bfloat16" else "float32",
        checkpointing=config.model.gradient_checkpointing,
        num_tags=len(model.labels),
        dropout=True,
        num_views=num_views,
        context_pieces=config.model.max_pieces,
        on_gpu=run.gpus > 0,
        attention_dropout=attention_dropout(model.encoder.config) > 0,
    )
    if fits is None:
        raise ValueError(
            f"optim.batch_pieces=auto: not one sentence of {largest} pieces fits into {total / GIB:.1f} GiB per "
            "worker; set a smaller model.max_pieces, fewer run.workers, or model.gradient_checkpointing=true"
        )
    logger.info("optim.batch_pieces=auto: %d pieces fit, %d are used", fits, min(fits, most))
    return min(fits, most)
