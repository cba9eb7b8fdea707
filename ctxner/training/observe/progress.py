"""What a person sees of a training run: how many steps are done, and one line per epoch.

Rank 0 reports to a `Board`, an actor that the driver reads; whoever called `train` shows it (`jobs.train`: as a bar).
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

_SECONDS = 1.0  # between two reports of rank 0, and between two looks of the driver
_TIMEOUT = 10.0  # seconds that the driver waits for the board


@dataclass(frozen=True)
class Watcher:
    """Functions that the driver calls while workers train.

    Attributes:
        on_step: Called with the optimizer steps done so far and those of the whole run.
        on_epoch: Called with one line per epoch.
    """

    on_step: Callable[[int, int], None] = lambda done, total: None
    on_epoch: Callable[[str], None] = lambda line: None


class Board:
    """Where the first worker says how far it is (a Ray actor)."""

    def __init__(self) -> None:
        """Nothing is done yet."""
        self._steps, self._lines = (0, 0), list[str]()

    def steps(self, done: int, total: int) -> None:
        """So many steps of the run are done."""
        self._steps = (done, total)

    def line(self, text: str) -> None:
        """An epoch has ended."""
        self._lines.append(text)

    def read(self, num_seen: int) -> tuple[tuple[int, int], list[str]]:
        """Steps, and the lines after those that were seen."""
        return self._steps, self._lines[num_seen:]


class StepReporter:
    """Tells a board how many steps are done, about once per second; a worker without a board tells nobody.

    Args:
        board: Handle of the `Board`; None on all ranks but the first.
        num_done: Steps that were done before.
        num_steps: Steps of the whole run.
    """

    def __init__(self, board: Any | None, num_done: int, num_steps: int) -> None:
        self._board, self._done, self._total, self._told = board, num_done, num_steps, 0.0
        self._tell()

    def step(self) -> None:
        """One more step is done."""
        self._done += 1
        if time.monotonic() - self._told >= _SECONDS or self._done == self._total:
            self._tell()

    def line(self, text: str) -> None:
        """Tell a line, such as `epoch_line`."""
        if self._board is not None:
            self._board.line.remote(text)

    def _tell(self) -> None:
        self._told = time.monotonic()
        if self._board is not None:
            self._board.steps.remote(self._done, self._total)


@contextmanager
def watched(watcher: Watcher) -> Iterator[Any]:
    """Give a board to workers, and pass on to `watcher` what they tell it, from a thread, until the block ends."""
    board: Any = ray.remote(num_cpus=0)(Board).remote()
    ended, num_seen = threading.Event(), 0

    def look() -> None:
        nonlocal num_seen
        try:
            (done, total), lines = ray.get(board.read.remote(num_seen), timeout=_TIMEOUT)
        except RayError:  # its node is gone; the run itself says what that means
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
    """Warnings of all libraries and what ctxner says; Ray Train sets INFO, and tells every report."""
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("ctxner").setLevel(logging.INFO)


def epoch_line(entry: Mapping[str, Any], num_epochs: int, seconds_left: float, *, num_bytes: int) -> str:
    """A history entry (see `ctxner.training.checkpoints.files.Progress`) on one line."""
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
    """Bytes that this process has had at most, on its device."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
