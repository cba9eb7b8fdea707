"""How long the steps of a study will take, and in how much memory: from cells of the same size, else estimated.

Cells are of one size when they differ in the seed alone. The estimate of a training is that of `ctxner train --dry-run`
(its operations at the speed of an encoder layer on this machine); that of other steps rests on the measured costs of
`jobs/cost/costs.yaml`, as with `ctxner cost`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ctxner.config import Config
from jobs.cost.files import Costs, read_costs
from jobs.cost.study import step_job, this_machine
from jobs.experiment.keys import KINDS, StepKind, digest
from jobs.experiment.results import StepFacts
from jobs.experiment.store import Step, Store
from jobs.experiment.tasks import Task, placed


@dataclass(frozen=True, slots=True)
class Expected:
    """What one step is expected to take.

    Attributes:
        seconds: Its time.
        memory_bytes: Memory of a training, over all workers; 0 for other steps.
        source: `done` (it took so long), `same size`, `other size` of the study, or `estimate`.
    """

    seconds: float
    memory_bytes: float
    source: str


class Expectations:
    """What the steps of a study's cells are expected to take; each distinct estimate is made once.

    Args:
        tasks: The study's cells.
        store: Where steps are kept.
        estimate: Whether to estimate trainings of a size of which none is done, which reads the data.
    """

    def __init__(self, tasks: Sequence[Task], store: Store, *, estimate: bool = True) -> None:
        self.store, self.estimate = store, estimate
        self.costs, self.machine = read_costs(), this_machine()
        self.known: dict[tuple[StepKind, str], list[StepFacts]] = {}
        self.made: dict[tuple[StepKind, str], Expected] = {}
        done: set[Step] = set()
        for task in tasks:
            for kind, key in task.keys.items():
                step = Step(kind, key)
                if step not in done and (facts := store.done(step)):
                    done.add(step)
                    self.known.setdefault((kind, _size(task, kind)), []).append(facts)

    def of(self, task: Task, kind: StepKind) -> Expected:
        """What a step of a cell is expected to take, or took."""
        if facts := self.store.done(Step(kind, task.keys[kind])):
            return Expected(facts.seconds, facts.numbers.get("memory_bytes", 0), "done")
        size = (kind, _size(task, kind))
        if size not in self.made:
            self.made[size] = self._of_size(task, kind, size)
        return self.made[size]

    def _of_size(self, task: Task, kind: StepKind, size: tuple[StepKind, str]) -> Expected:
        if known := self.known.get(size):
            memory = max(facts.numbers.get("memory_bytes", 0) for facts in known)
            return Expected(median(facts.seconds for facts in known), memory, "same size")
        config = placed(task, self.store)
        if kind == "train":
            return _training(config, self.costs) if self.estimate else Expected(0, 0, "unknown")
        job = step_job(kind, config, self.costs, self.machine)
        return Expected(round(sum(row.seconds for row in job.rows), 1), 0, "estimate")


def _size(task: Task, kind: StepKind) -> str:
    facts: dict[str, Any] = copy.deepcopy(task.steps.facts[kind])
    if kind == "train":
        facts["run"].pop("seed")
    elif kind in ("calibrate", "score"):
        facts["train"] = _size(task, "train")
        facts.pop("calibrate", None)
    return digest(facts)


def _training(config: Config, costs: Costs) -> Expected:
    from ctxner.training.automatic import resolved
    from ctxner.training.plan import plan
    from jobs.train import minutes_here

    paths = [config.data.contexts_path(split) for split in ("train", "dev")]
    is_there = all(path is not None and path.is_file() for path in paths)  # a retrieval may have ended before its end
    if not is_there:
        config = config.model_copy(update={"data": config.data.model_copy(update={"contexts": None})})
    config = resolved(config)
    planned = plan(config, retrieved=is_there)
    process = costs.stages["train.step"].worker_bytes  # of a worker beside its tensors
    memory = (planned["zero_stages"][config.run.zero_stage]["total"] + process) * config.run.workers
    seconds = costs.ray_start_s + costs.stages["train.step"].start_s + 60 * minutes_here(config, planned)
    return Expected(round(seconds, 1), memory, "estimate" if is_there else "estimate without passages")


def remaining(tasks: Sequence[Task], expectations: Expectations) -> dict[Step, Expected]:
    """Each step that is still to do, once, and what it is expected to take."""
    steps: dict[Step, Expected] = {}
    for task in tasks:
        for kind in KINDS:
            if kind in task.to_do:
                steps.setdefault(Step(kind, task.keys[kind]), expectations.of(task, kind))
    return steps
