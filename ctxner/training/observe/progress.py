"""Shows a person the progress of a training run: how many steps are done, and one line per epoch.

Rank 0 reports to a `Board`, an actor that the driver reads; the caller of `train` shows it (`jobs.train`: as a bar).
"""

from __future__ import annotations

import logging
import resource
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.exceptions import RayError

_SECONDS = 1.0  # between two reports of rank 0, and between two reads by the driver
_TIMEOUT = 10.0  # seconds that the driver waits for the board


@dataclass(frozen=True)
class Watcher:
    """Functions that the driver calls while workers train.

    Attributes:
        on_step: Function of the optimizer steps done so far and those of the whole run.
        on_epoch: Function of one line of text, called once per epoch.
    """

    on_step: Callable[[int, int], None] = lambda done, total: None
    on_epoch: Callable[[str], None] = lambda line: None


class Board:
    """Ray actor that holds the progress that the first worker reports."""

    def __init__(self) -> None:
        """Start with no steps and no lines."""
        self._steps, self._lines = (0, 0), list[str]()

    def steps(self, done: int, total: int) -> None:
        """Store how many steps of the run are done."""
        self._steps = (done, total)

    def line(self, text: str) -> None:
        """Add the line of an epoch that has ended."""
        self._lines.append(text)

    def read(self, num_seen: int) -> tuple[tuple[int, int], list[str]]:
        """Return the steps (done, total), and the lines after the first `num_seen`."""
        return self._steps, self._lines[num_seen:]


class StepReporter:
    """Reports to a board how many steps are done, about once per second; does nothing without a board.

    Args:
        board: Handle of the `Board`; None on all ranks but the first.
        num_done: Number of steps done before.
        num_steps: Number of steps of the whole run.
    """

    def __init__(self, board: Any | None, num_done: int, num_steps: int) -> None:
        self._board, self._done, self._total, self._told = board, num_done, num_steps, 0.0
        self._tell()

    def step(self) -> None:
        """Count one more step."""
        self._done += 1
        if time.monotonic() - self._told >= _SECONDS or self._done == self._total:
            self._tell()

    def line(self, text: str) -> None:
        """Send a line, such as that of `epoch_line`, to the board."""
        if self._board is not None:
            self._board.line.remote(text)

    def _tell(self) -> None:
        self._told = time.monotonic()
        if self._board is not None:
            self._board.steps.remote(self._done, self._total)


@contextmanager
def watched(watcher: Watcher) -> Iterator[Any]:
    """Yield a board for the workers; a thread passes what they report to `watcher` until the block ends."""
    board: Any = ray.remote(num_cpus=0)(Board).remote()
    ended, num_seen = threading.Event(), 0

    def look() -> None:
        nonlocal num_seen
        try:
            (done, total), lines = ray.get(board.read.remote(num_seen), timeout=_TIMEOUT)
        except RayError:  # the board's node is gone; training itself raises the error
            return
        num_seen += len(lines)
        if total:
            watcher.on_step(done, total)
        for text in lines:
            watcher.on_epoch(text)

    def watch() -> None:
        while not ended.wait(_SECONDS):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield board
        look()
    finally:
        ended.set()
        thread.join()
        ray.kill(board)


def quiet_worker() -> None:
    """Log only warnings of libraries, but INFO of ctxner; at Ray Train's default, INFO, every report is logged.

    What files were read as is not logged again: the driver has read them for its plan.
    """
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("ctxner").setLevel(logging.INFO)
    logging.getLogger("ctxner.files").setLevel(logging.WARNING)


def epoch_line(entry: Mapping[str, Any], num_epochs: int, seconds_left: float, *, num_bytes: int) -> str:
    """Format a history entry (see `ctxner.training.checkpoints.files.Progress`) as one line."""
    losses = " ".join(f"{name} {value:.3g}" for name, value in entry["losses"].items())
    f1 = " ".join(f"{view} {100 * value:.1f}" for view, value in entry["dev_f1"].items())
    total = sum(entry["seconds_by_phase"].values())
    split = " ".join(f"{phase} {100 * seconds / total:.0f}%" for phase, seconds in entry["seconds_by_phase"].items())
    speed = f"{entry['sentences_per_second']:.1f} sentences/s"
    return (
        f"epoch {entry['epoch']}/{num_epochs} | {losses} | dev F1 {f1} | {speed} | "
        f"{split} | {num_bytes / 2**30:.1f} GiB | {seconds_left / 60:.1f} min left"
    )


def peak_memory(device: torch.device) -> int:
    """Peak memory of this process on its device, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
