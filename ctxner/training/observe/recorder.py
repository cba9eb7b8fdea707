"""Records a run's losses, learning rates, speed, padding, memory and seconds per phase.

Rank 0 writes them to TensorBoard (`<run folder>/tensorboard`), and to MLflow if configured, at log steps and at the end
of every epoch.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from ctxner.config import Config
from ctxner.files.node_copies import work_folder
from ctxner.files.storage import put_folder
from ctxner.files.uris import is_uri
from ctxner.schema import VIEWS
from ctxner.training.observe.mlflow import MlflowRun
from ctxner.training.observe.phase_timer import PHASES, PhaseTimer
from ctxner.training.observe.progress import peak_memory
from ctxner.views.view import ViewBatch

TENSORBOARD_FOLDER = "tensorboard"


class Recorder:
    """Recorder of one rank; every rank has one, because figures are summed over all ranks; rank 0 writes.

    Args:
        folder: Folder of this node for what is recorded, of the run or to be uploaded to it.
        settings: Sections of the config, for MLflow.
        rank: Rank of this worker.
        world_size: Number of workers.
        device: Device of the model.
        log_steps: Number of optimizer steps between two log steps.
        first_step: Number of steps done before; TensorBoard drops its records of later steps.
        mlflow: Tracking URI of MLflow; None: no MLflow.
        stored: URI of the run, to which rank 0 uploads TensorBoard's files after each epoch; None: they are there.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Mapping[str, Any]],
        *,
        rank: int,
        world_size: int,
        device: torch.device,
        log_steps: int,
        first_step: int,
        mlflow: str | None = None,
        stored: Path | None = None,
    ) -> None:
        self._stored, self._folder = stored, folder / TENSORBOARD_FOLDER
        self.timer = PhaseTimer(device)
        self._world_size, self._device, self._log_steps, self._step = world_size, device, log_steps, first_step
        self._writer = self._mlflow = None
        if rank == 0:
            self._writer = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=first_step + 1)
            self._mlflow = MlflowRun(mlflow, folder, settings) if mlflow else None
        self._sums: dict[str, Tensor] = {}
        self._seconds: defaultdict[str, float] = defaultdict(float)  # per phase, of this epoch up to the last log step
        self._started = time.perf_counter()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer:
            self._writer.close()
        if self._mlflow and error is not None:
            self._mlflow.fail()

    def add(
        self, losses: Mapping[str, Tensor], plain: ViewBatch | None, context: ViewBatch | None, weight_B: Tensor
    ) -> None:
        """Count a micro-batch: the inputs and the losses of `CooperativeStep`. No tensor is copied to the host."""
        self._count("sentences", weight_B.sum())
        for name, loss in losses.items():
            self._count(f"loss/{name}", loss.detach())
        for name, view in zip(VIEWS, (plain, context), strict=True):
            if view is not None:
                self._count(f"pieces/{name}", view.attention_RP.sum())
                self._count(f"positions/{name}", torch.tensor(view.attention_RP.numel(), device=self._device))

    def step(self, groups: Sequence[Mapping[str, Any]]) -> None:
        """Count an optimizer step and, at a log step, write the figures since the previous log step.

        Args:
            groups: Parameter groups of the optimizer, with `name` and `lr`.
        """
        self._step += 1
        self.timer.set_exact((self._step + 1) % self._log_steps == 0)
        if self._step % self._log_steps:
            return
        names = sorted(self._sums)
        totals_N = torch.stack([self._sums[name].double() for name in names])
        if self._world_size > 1:
            torch.distributed.all_reduce(totals_N)
        now, self._sums = time.perf_counter(), {}
        seconds, self._started = now - self._started, now
        split = self.timer.split()
        self._add(split)
        values = _figures(dict(zip(names, totals_N.tolist(), strict=True)), seconds)
        values |= {f"time_share/{phase}": seconds / sum(split.values()) for phase, seconds in split.items()}
        values |= {f"learning_rate/{group['name']}": float(group["lr"]) for group in groups}
        self._write(values | {"memory/peak_gib": peak_memory(self._device) / 2**30})

    def seconds_by_phase(self) -> dict[str, float]:
        """Seconds of each phase since the previous call; a checkpoint after this call counts in the next one."""
        self._add(self.timer.split())
        by_phase = {phase: self._seconds[phase] for phase in PHASES if phase in self._seconds}
        self._seconds.clear()
        return by_phase

    def epoch(self, entry: Mapping[str, Any]) -> None:
        """Write an epoch's entry (see `ctxner.training.checkpoints.files.Progress`) and restart the log step's sums."""
        values = {f"epoch/loss/{name}": value for name, value in entry["losses"].items()}
        values |= {f"dev_f1/{view}": value for view, value in entry["dev_f1"].items()}
        for view, scores in entry["dev_scores"].items():
            values |= {f"dev_f1_{view}/{type}": score["f1"] for type, score in scores["per_type"].items()}
        values |= {f"epoch/seconds/{phase}": value for phase, value in entry["seconds_by_phase"].items()}
        values["epoch/sentences_per_second"] = entry["sentences_per_second"]
        self._write(values)
        self._sums, self._started = {}, time.perf_counter()
        if self._writer:
            self._writer.flush()
            if self._stored:
                put_folder(self._folder, self._stored / TENSORBOARD_FOLDER, keep=True)

    def _add(self, split: Mapping[str, float]) -> None:
        for phase, seconds in split.items():
            self._seconds[phase] += seconds

    def _count(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums[name] + value if name in self._sums else value.float()

    def _write(self, values: Mapping[str, float]) -> None:
        if self._writer:
            for name, value in values.items():
                self._writer.add_scalar(name, value, self._step)
        if self._mlflow:
            self._mlflow.log(values, self._step)


def run_recorder(config: Config, *, rank: int, world_size: int, device: torch.device, first_step: int) -> Recorder:
    """Create a worker's recorder, which writes into the run's folder."""
    run = config.run
    assert run.name is not None, "training names its run before workers start"
    folder = run.storage / run.name
    return Recorder(
        work_folder(folder),
        config.model_dump(mode="json"),
        rank=rank,
        world_size=world_size,
        device=device,
        log_steps=run.log_steps,
        first_step=first_step,
        mlflow=run.mlflow,
        stored=folder if is_uri(folder) else None,
    )


def _figures(totals: Mapping[str, float], seconds: float) -> dict[str, float]:
    """Compute means over sentences, speeds and shares of padding from sums over all ranks."""
    sentences = totals["sentences"]
    figures = {name: value / sentences for name, value in totals.items() if name.startswith("loss/")}
    figures["speed/sentences_per_second"] = sentences / seconds
    for view in VIEWS:
        if f"pieces/{view}" in totals:
            figures[f"padding/{view}"] = 1 - totals[f"pieces/{view}"] / totals[f"positions/{view}"]
            figures[f"speed/pieces_per_second_{view}"] = totals[f"pieces/{view}"] / seconds
    return figures
