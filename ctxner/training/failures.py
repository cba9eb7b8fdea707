"""Explains worker failures so that a user knows what to do, and decides whether a restart can help."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from ctxner.config import Config

_MENDABLE = (ValueError, FloatingPointError, MemoryError, OSError)
_LOST_PEER = (ConnectionError, TimeoutError)  # OSErrors that mean another worker is gone; no setting repairs that


@contextmanager
def memory_explained(config: Config, where: str) -> Iterator[None]:
    """Turn an out-of-memory error, on a GPU or in main memory, into one that says which settings to lower.

    Raises:
        MemoryError: Memory ran out in the block.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # PyTorch has a separate class for GPUs only
        ran_out = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if not ran_out:
            raise
        raise MemoryError(f"{where}: out of memory ({str(error).splitlines()[0]}); {memory_advice(config)}") from error


def memory_advice(config: Config) -> str:
    """Settings that lower a worker's memory, with their present values; the cheapest change first."""
    advice = [f"lower optim.batch_pieces ({config.optim.batch_pieces}) or model.max_pieces ({config.model.max_pieces})"]
    if not config.model.gradient_checkpointing:
        advice.append("--set model.gradient_checkpointing=true")
    if config.run.zero_stage < 3:
        advice.append(f"raise run.zero_stage ({config.run.zero_stage}) with several workers")
    if config.run.gpus and not config.run.offload:
        advice.append("--set run.offload=true")
    return ", ".join(advice)


def check_finite(sums: Sequence[Mapping[str, float]], num_skipped: int, where: str) -> None:
    """Stop before a loss or a gradient that is not finite reaches a checkpoint.

    Args:
        sums: Loss sums of every worker; all workers pass the same, so that all of them stop.
        num_skipped: Number of steps that DeepSpeed skipped because of their gradients.
        where: Place in the run, for the error.

    Raises:
        FloatingPointError: A loss or a gradient is not finite; the error names the workers.
    """
    bad = {
        rank: names
        for rank, rank_sums in enumerate(sums)
        if (names := [name for name, value in rank_sums.items() if not math.isfinite(value)])
    }
    if not bad and not num_skipped:
        return
    who = f"worker {', '.join(map(str, bad))}" if bad else "all workers"
    what = ", ".join(sorted({name for names in bad.values() for name in names})) if bad else "a gradient"
    raise FloatingPointError(
        f"{who}: {where}: {what} not finite; lower optim.*_lr or optim.clip, or use float32; the last checkpoint is "
        "from before"
    )


def mendable(failures: Mapping[int, BaseException]) -> Exception | None:
    """First worker's error that a user can repair, with the worker's number in its text; None if there is none."""
    for rank, error in sorted(failures.items()):
        if isinstance(error, _MENDABLE) and not isinstance(error, _LOST_PEER):
            kind = next(kind for kind in _MENDABLE if isinstance(error, kind))
            names_its_worker = isinstance(error, FloatingPointError) and "worker" in str(error).split(":", 1)[0]
            return kind(str(error) if names_its_worker else f"worker {rank}: {error}")
    return None


def is_loss(failures: Mapping[int, BaseException]) -> bool:
    """Whether workers died, or failed because another worker died; then a restart may help."""
    own_fault = (TypeError, LookupError, AttributeError, AssertionError, ImportError, ArithmeticError)
    return not any(isinstance(error, own_fault) for error in failures.values())
