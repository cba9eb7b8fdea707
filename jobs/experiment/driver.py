"""Runs the steps of a study or a pipeline that are not done, side by side on Ray as the resources allow.

The driver decides what begins when: a step begins when the steps before it are done and the CPUs, GPUs and memory that
it asks for are free. Each step is a Ray task in a process of its own; training starts Ray Train's workers from there.
`run` writes a study's results as its cells end; `jobs.pipeline.job` publishes.
Ray Tune is not used: its trials are samples of a search and its state is one file of one driver, where here cells share
steps, several drivers share a store, and every cell of a table must run to its end (docs/decisions.md).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctxner.config import Config
from jobs.console import LINE_SECONDS
from jobs.exit_codes import TRY_AGAIN
from jobs.experiment.keys import StepKind, digest, settings_of
from jobs.experiment.results import CellResult, StepFacts, write_result
from jobs.experiment.store import RESULT, Step, Store, read_made
from jobs.experiment.study import Study
from jobs.experiment.tasks import Task, is_current, placed

logger = logging.getLogger(__name__)

_POLL = 2.0  # seconds between two looks at what is running
_BUSY = 15.0  # seconds until a step that another process was doing is tried again
_MOST_LOSSES = 2  # times that a step begins anew after its process or node was lost


@dataclass(slots=True)
class Ask:
    """What a step needs at once."""

    cpus: float
    gpus: float = 0
    memory: float = 0


@dataclass(slots=True)
class Progress:
    """What a driver did: cells done by it or before, and steps that failed, with reasons."""

    done: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def ask(kind: StepKind, config: Config, capacity: Ask, memory: float) -> Ask:
    """What a step asks for: a training its workers' threads, retrieval all CPUs (its actors share them)."""
    run = config.run
    if kind == "train" and run.gpus:
        return Ask(0, run.gpus * run.workers, memory)
    if kind in ("train", "calibrate", "score"):
        workers = run.workers if kind == "train" else 1
        return Ask(min(capacity.cpus, run.threads * workers if run.threads else capacity.cpus), 0, memory)
    return Ask(capacity.cpus if kind == "contexts" or config.index.shards > 1 else 1)


def run(
    study: Study,
    tasks: Sequence[Task],
    store: Store,
    results: Path,
    *,
    memory_of: Callable[[Task], float] = lambda task: 0,
    parallel: int | None = None,
) -> Progress:
    """Do what is not done, and write each cell's result as soon as it is there.

    Args:
        study: Study.
        tasks: Its cells, from `tasks_of`.
        store: Folder of the steps.
        results: Folder of the results.
        memory_of: Bytes that a cell's training is expected to take.
        parallel: Largest number of steps side by side; None: the study's, or what the resources allow.
    """
    progress = Progress()

    def write(task: Task) -> None:
        path = write_result(result_of(study.name, task, store), results)
        progress.done.append(task.cell.slug)
        logger.info("%s: done, %s", task.cell.slug, path)

    open_tasks = []
    for task in tasks:
        if is_current(task, study, results):
            progress.before.append(task.cell.slug)
        elif not task.to_do:
            write(task)
        else:
            open_tasks.append(task)
    work = Work(store, study.split, memory_of=memory_of, parallel=parallel or study.parallel, on_done=write)
    failed = work.do(open_tasks)
    progress.failed = {slug: work.reason(step) for slug, step in failed.items()}
    return progress


class Work:
    """The loop that begins steps and takes note of their ends.

    Args:
        store: Folder of the steps.
        split: Split that is scored.
        memory_of: Bytes that a cell's training is expected to take.
        parallel: Largest number of steps side by side; None: what the resources allow.
        on_done: Called with each cell whose steps are done.
    """

    def __init__(
        self,
        store: Store,
        split: str,
        *,
        memory_of: Callable[[Task], float] = lambda task: 0,
        parallel: int | None = None,
        on_done: Callable[[Task], None] = lambda task: None,
    ) -> None:
        self.store, self.split, self.on_done = store, split, on_done
        self.memory_of, self.parallel = memory_of, parallel
        self.tasks: list[Task] = []
        self.configs: dict[str, Config] = {}
        self.failed: dict[str, Step] = {}
        self.running: dict[Any, tuple[Step, Ask]] = {}
        self.losses: dict[Step, int] = {}
        self.not_before: dict[Step, float] = {}  # steps that another process is doing
        self.said = 0.0  # when the last lines of running steps were shown

    def reason(self, step: Step) -> str:
        """Why a step failed, and where its log is."""
        return f"{step.kind}: {self.store.failure(step) or 'unknown'} (log: {self.store.log(step)})"

    def do(self, tasks: Sequence[Task]) -> dict[str, Step]:
        """Work until every cell is done or cannot be; returns the step that failed of each cell that is not done."""
        if not tasks:
            return {}
        import ray

        from jobs.cluster import connect

        connect()
        self.tasks, self.capacity, self.said = list(tasks), _capacity(), time.monotonic()
        self.configs = {task.cell.slug: placed(task, self.store) for task in tasks}
        while self.tasks:
            self._begin()
            finished, _ = ray.wait(list(self.running), timeout=_POLL) if self.running else ([], [])
            for reference in finished:
                self._end(reference)
            if not self.running and not finished:
                time.sleep(_POLL)
            self._say()
        return self.failed

    def _say(self) -> None:
        """Show the last line of each step that runs, now and then: what a step writes goes to its log."""
        if time.monotonic() - self.said < LINE_SECONDS:
            return
        self.said = time.monotonic()
        for step, _ in self.running.values():
            if line := self.store.last_line(step):
                logger.info("%s %s: %.200s", step.kind, step.key, line)

    def _begin(self) -> None:
        begun = {step for step, _ in self.running.values()}
        for task in self.tasks:
            step = Step(task.to_do[0], task.keys[task.to_do[0]])
            if step in begun or time.monotonic() < self.not_before.get(step, 0):
                continue
            memory = self.memory_of(task) if step.kind == "train" else 0
            wanted = ask(step.kind, self.configs[task.cell.slug], self.capacity, memory)
            if not self._has_room(wanted):
                return  # in order: a step that needs much is not overtaken for ever
            self._start(task, step, wanted)
            begun.add(step)

    def _has_room(self, wanted: Ask) -> bool:
        if not self.running:
            return True
        if self.parallel and len(self.running) >= self.parallel:
            return False
        used = [each for _, each in self.running.values()]
        return all(
            getattr(wanted, name) + sum(getattr(each, name) for each in used) <= getattr(self.capacity, name)
            for name in ("cpus", "gpus", "memory")
        )

    def _start(self, task: Task, step: Step, wanted: Ask) -> None:
        import ray

        from jobs.experiment.steps import Given, run_step

        logger.info("%s: %s %s begins", task.cell.slug, step.kind, step.key)
        # The step's own process needs no CPU of Ray's: training's workers and retrieval's actors take theirs. Without
        # SPREAD, Ray would start all steps on the driver's node, whose cores and memory end first.
        remote = ray.remote(num_cpus=0, max_calls=1, max_retries=0, scheduling_strategy="SPREAD")(run_step)
        tree = self.configs[task.cell.slug].model_dump(mode="json", exclude_unset=True)
        cell = task.cell
        given = Given(task.keys, self.store, self.split, cell.contexts, cell.unlabelled, cell.calibrate)
        reference = remote.remote(step.kind, given, tree)
        self.running[reference] = step, wanted

    def _end(self, reference: Any) -> None:
        import ray

        step, _ = self.running.pop(reference)
        try:
            outcome = ray.get(reference)
        except ray.exceptions.RayError as error:  # its process or node is gone: the step itself reports its errors
            self.losses[step] = self.losses.get(step, 0) + 1
            reason = str(error).strip().splitlines()[0]
            if self.losses[step] <= _MOST_LOSSES:
                logger.warning("%s %s: its process was lost (%s); it begins again", step.kind, step.key, reason)
                return
            outcome = "failed"
            self.store.fail(step, reason, TRY_AGAIN)
        if outcome == "busy":
            self.not_before[step] = time.monotonic() + _BUSY
            return
        waiting = [task for task in self.tasks if task.to_do[0] == step.kind and task.keys[step.kind] == step.key]
        for task in waiting:
            self._advance(task, step, outcome)

    def _advance(self, task: Task, step: Step, outcome: str) -> None:
        if outcome == "failed":
            self.failed[task.cell.slug] = step
            logger.error("%s: %s failed: %s", task.cell.slug, step.kind, self.store.failure(step))
            self.tasks.remove(task)
            return
        logger.info("%s: %s %s is done", task.cell.slug, step.kind, step.key)
        task.to_do.pop(0)
        if not task.to_do:
            self.tasks.remove(task)
            self.on_done(task)


def result_of(study: str, task: Task, store: Store) -> CellResult:
    """A cell's result, from what its steps left; `study` is the name of its study."""
    facts: dict[StepKind, StepFacts] = {}
    for kind, key in task.keys.items():
        if done := store.done(Step(kind, key)):
            facts[kind] = done
    scored = read_made(store.folder(Step("score", task.keys["score"])) / RESULT)
    return CellResult(
        study=study,
        coordinates=task.cell.coordinates,
        settings=digest(settings_of(task.cell)),
        key=task.keys["score"],
        steps=facts,
        **scored,
    )


def _capacity() -> Ask:
    """What there is for steps: of a cluster what Ray says; of this machine its CPUs, without Ray's logical ones."""
    import ray

    have = ray.cluster_resources()
    cpus = have.get("CPU", 1) if os.environ.get("RAY_ADDRESS") else len(os.sched_getaffinity(0))
    return Ask(cpus, have.get("GPU", 0), have.get("memory", float("inf")))
