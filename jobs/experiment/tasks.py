"""The cells of a study with their keys, what is left to do for each, and the places of their files in the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctxner.config import Config
from jobs.experiment.keys import KINDS, MissingFileError, StepKind, Steps, steps_of
from jobs.experiment.results import read_result, result_path
from jobs.experiment.store import Step, Store
from jobs.experiment.study import Cell, Study


@dataclass(slots=True)
class Task:
    """A cell, its keys, and which of its steps are still to do."""

    cell: Cell
    steps: Steps
    to_do: list[StepKind]

    @property
    def keys(self) -> dict[StepKind, str]:
        """Keys of the cell's steps."""
        return self.steps.keys()


def chosen(made: Sequence[Cell], study: Study, choices: Sequence[str]) -> list[Cell]:
    """The cells with the given coordinates; values of one axis are alternatives.

    Args:
        made: Cells of the study.
        study: Study.
        choices: `axis=value`; none chooses all cells.

    Raises:
        ValueError: A choice is malformed, names no axis or value of the study, or no cell is left.
    """
    wanted: dict[str, set[str]] = {}
    for choice in choices:
        axis, equals, value = choice.partition("=")
        if not equals or value not in study.grid.get(axis, {}):
            known = "; ".join(f"{name}: {', '.join(values)}" for name, values in study.grid.items())
            raise ValueError(f"--cell {choice!r}: wanted AXIS=VALUE of study {study.name} ({known})")
        wanted.setdefault(axis, set()).add(value)
    left = [cell for cell in made if all(cell.coordinates[axis] in values for axis, values in wanted.items())]
    if not left:
        raise ValueError(f"study {study.name}: no cell has {' '.join(f'--cell {choice}' for choice in choices)}")
    return left


def tasks_of(study: Study, cells: Sequence[Cell], store: Store) -> tuple[list[Task], dict[str, str]]:
    """The cells with their keys and the steps that the store lacks; and the cells whose data is not here, with reasons.

    Raises:
        ValueError: No cell has its data, or a cell cannot be used.
    """
    tasks, missing = [], {}
    for cell in cells:
        try:
            steps = steps_of(cell, split=study.split, code=study.code)
        except MissingFileError as error:
            missing[cell.slug] = str(error)
            continue
        to_do = [kind for kind, key in steps.keys().items() if store.done(Step(kind, key)) is None]
        tasks.append(Task(cell, steps, needed(to_do, steps.keys())))
    if not tasks:
        raise ValueError(f"study {study.name}: no cell has its data; first: {next(iter(missing.values()))}")
    return tasks, missing


def needed(
    to_do: Sequence[StepKind], keys: Mapping[StepKind, str], results: Sequence[StepKind] = ("score",)
) -> list[StepKind]:
    """The steps to do so that the results are there: an index that is gone is not needed for contexts that are.

    Args:
        to_do: Steps that are not done.
        keys: Keys of all steps.
        results: Steps whose results are wanted.
    """
    needed: list[StepKind] = []
    wanted = set(results)
    for kind in reversed(KINDS):
        if kind in wanted and kind in to_do:
            needed.insert(0, kind)
            wanted |= set(_reads(kind, keys))
    return needed


def _reads(kind: StepKind, keys: Mapping[StepKind, str]) -> tuple[StepKind, ...]:
    """The steps whose files a step reads."""
    contexts: tuple[StepKind, ...] = ("shuffle",) if "shuffle" in keys else ("contexts",)
    if kind == "score":
        return ("calibrate" if "calibrate" in keys else "train", *contexts)
    before: dict[StepKind, tuple[StepKind, ...]] = {"calibrate": ("train", *contexts), "train": contexts}
    return {**before, "shuffle": ("contexts",), "contexts": ("index",)}.get(kind, ())


def is_current(task: Task, study: Study, results: Path) -> bool:
    """Whether the cell's result is there, for these settings and data."""
    path = result_path(results, study.name, task.cell.slug)
    return path.is_file() and read_result(path).key == task.keys["score"]


def placed(task: Task, store: Store) -> Config:
    """The cell's settings with absolute paths, and the store's places for the index, the contexts and the run."""
    from ctxner.training.checkpoints.resume import absolute_paths

    config, keys = task.cell.config, task.keys
    index = config.index.model_copy(update={"corpus": tuple(path.absolute() for path in config.index.corpus)})
    if "index" in keys:
        index = index.model_copy(update={"folder": store.folder(Step("index", keys["index"]))})
    contexts = next((store.folder(Step(kind, keys[kind])) for kind in ("shuffle", "contexts") if kind in keys), None)
    if task.cell.contexts == "files":
        contexts = config.data.contexts
    data = config.data.model_copy(update={"contexts": contexts})
    return absolute_paths(config.model_copy(update={"index": index, "data": data}))
