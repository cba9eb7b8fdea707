"""What this machine can do: its memory, and the speed of a matrix product, measured; for the dry run's minutes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch

_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container on Linux: bytes, or max
_SIZE = 768  # rows and columns of the matrices: those of a base model's layers
_SECONDS = 0.3
USED = 0.5  # share of a matrix product's speed that a training step reaches on a CPU; a rough figure


def memory_bytes() -> int:
    """Main memory of this machine, or as much of it as its container may use, in bytes."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = _LIMIT.read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdecimal() else total


def minutes_of(flops: float, *, bfloat16: bool = False) -> float:
    """Rough minutes that training's operations take on this machine's CPU when it is idle."""
    return round(flops / (USED * measured_flops(bfloat16=bfloat16)) / 60, 2)


def measured_flops(*, bfloat16: bool = False) -> float:
    """Floating-point operations per second of a matrix product, on the CPU with all threads of this process."""
    left = torch.rand(_SIZE, _SIZE, dtype=torch.bfloat16 if bfloat16 else torch.float32)
    torch.mm(left, left)
    number, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < _SECONDS:
        torch.mm(left, left)
        number += 1
    return 2 * _SIZE**3 * number / seconds
