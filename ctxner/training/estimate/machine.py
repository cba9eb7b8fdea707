"""What this machine can do: its memory, and the speed of an encoder layer, measured; for the dry run's minutes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import nn

from ctxner.training.estimate.memory import EncoderShape, ViewSize
from ctxner.training.estimate.step_time import step_flops

_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container on Linux: bytes, or max
_ROWS = ViewSize(8, 128, 0)  # 8 rows of 128 pieces: a small batch with passages
_SECONDS = 0.5
USED = 0.75  # share of a layer's speed that a step reaches: embeddings, head, CRF, AdamW and reading take the rest


def memory_bytes() -> int:
    """Main memory of this machine, or as much of it as its container may use, in bytes."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = _LIMIT.read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdecimal() else total


def minutes_of(flops: float, shape: EncoderShape, *, threads: int | None = None, bfloat16: bool = False) -> float:
    """Rough minutes that training's operations take on this machine's CPU when it is idle.

    Args:
        flops: Operations of all steps (see `ctxner.training.estimate.step_time.step_flops`).
        shape: Sizes of the encoder.
        threads: Number of threads of all workers together; None, or more than there are cores: all cores.
        bfloat16: Whether the encoder runs in bfloat16.
    """
    cores = os.cpu_count() or 1
    speed = measured_flops(replace(shape, layers=1), min(threads or cores, cores), bfloat16)
    return round(flops / (USED * speed) / 60, 2)


@cache
def measured_flops(shape: EncoderShape, threads: int, bfloat16: bool) -> float:
    """Operations per second of an encoder of these sizes, forward and backward, on the CPU; measured once a process.

    Products of large matrices alone would be too fast: a layer has softmax, GELU and norms, too.

    Args:
        shape: Sizes of one layer.
        threads: Number of threads.
        bfloat16: Whether it runs in bfloat16.
    """
    layer = nn.TransformerEncoderLayer(
        shape.width, shape.heads, shape.intermediate, activation="gelu", batch_first=True, dropout=0.0
    )
    pieces = torch.rand(_ROWS.rows, _ROWS.pieces, shape.width, requires_grad=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            left = layer(pieces)
        left.float().sum().backward()

    with _threads(threads):
        step()
        number, started = 0, time.perf_counter()
        while (seconds := time.perf_counter() - started) < _SECONDS:
            step()
            number += 1
    return step_flops(shape, [_ROWS], checkpointing=False) * number / seconds


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
