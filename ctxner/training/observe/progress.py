"""What a person sees of a training run: a bar over its steps and a line an epoch, from rank 0."""

from __future__ import annotations

import logging
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from ray.experimental import tqdm_ray


def quiet_worker() -> None:
    """Warnings of all libraries and what ctxner says; Ray Train sets INFO, and tells every report."""
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("ctxner").setLevel(logging.INFO)


@contextmanager
def progress_bar(description: str, num_done: int, num_steps: int, *, shown: bool) -> Iterator[tqdm_ray.tqdm | None]:
    """A bar at the driver's terminal; closed whatever happens, so that an error has a line of its own."""
    if not shown:
        yield None
        return
    bar = tqdm_ray.tqdm(total=num_steps, desc=description, unit="step", flush_interval_s=5.0)
    try:
        bar.update(num_done)
        yield bar
    finally:
        bar.close()


def epoch_line(entry: Mapping[str, Any], num_epochs: int, seconds_left: float, *, num_bytes: int) -> str:
    """A history entry (see `ctxner.training.checkpoints.files.Progress`) on one line; the bar has the steps."""
    losses = " ".join(f"{name} {value:.3g}" for name, value in entry["losses"].items())
    f1 = " ".join(f"{view} {100 * value:.1f}" for view, value in entry["dev_f1"].items())
    total = sum(entry["seconds_by_phase"].values())
    split = " ".join(f"{phase} {100 * own / total:.0f}%" for phase, own in entry["seconds_by_phase"].items())
    speed = f"{entry['sentences_per_second']:.1f} sentences/s"
    return (
        f"epoch {entry['epoch']}/{num_epochs} | {losses} | dev F1 {f1} | {speed} | "
        f"{split} | {num_bytes / 2**30:.1f} GiB | {seconds_left / 60:.1f} min left"
    )


def peak_memory(device: torch.device) -> int:
    """Bytes that this process has had at most, on its device."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
