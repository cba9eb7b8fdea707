"""`ctxner experiment plan` and `status`: the cells of a study, what is there, what runs, and the time that is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from jobs.console import show_table
from jobs.experiment.expected import Expectations, remaining
from jobs.experiment.results import result_path
from jobs.experiment.store import Step, Store
from jobs.experiment.study import Study
from jobs.experiment.tasks import Task, is_current

_SHOWN = 100  # characters of a log's last line


def plan(study: Study, tasks: Sequence[Task], store: Store, results: Path, *, side_by_side: int) -> dict[str, Any]:
    """The cells with their state and expected time; the steps to do; seconds and memory in all. Ray is not started.

    Args:
        study: Study.
        tasks: Its cells.
        store: Folder of the steps.
        results: Folder of the results.
        side_by_side: Number of trainings at once for the expected time.
    """
    open_tasks = [task for task in tasks if not is_current(task, study, results)]
    expectations = Expectations(tasks, store)
    steps = remaining(open_tasks, expectations)
    trainings = [expected.seconds for step, expected in steps.items() if step.kind in ("train", "score")]
    others = sum(expected.seconds for step, expected in steps.items() if step.kind not in ("train", "score"))
    memory = sorted((expected.memory_bytes for expected in steps.values()), reverse=True)[:side_by_side]
    return {
        "study": study.name,
        "cells": [_planned_cell(task, study, results, expectations) for task in tasks],
        "to_run": len(open_tasks),
        "steps": {kind: sum(step.kind == kind for step in steps) for kind in dict.fromkeys(s.kind for s in steps)},
        "side_by_side": side_by_side,
        "hours": round((others + max([sum(trainings) / side_by_side, *trainings, 0])) / 3600, 2),
        "memory_bytes": round(sum(memory)),
        "results": str(results / study.name),
        "store": str(store.root),
    }


def _planned_cell(task: Task, study: Study, results: Path, expectations: Expectations) -> dict[str, Any]:
    if is_current(task, study, results):
        return {"cell": task.cell.slug, "state": "done", "to_do": [], "seconds": 0, "source": ""}
    expected = {kind: expectations.of(task, kind) for kind in task.to_do}
    train = expected.get("train")
    there = result_path(results, study.name, task.cell.slug).is_file()
    return {
        "cell": task.cell.slug,
        "state": "stale: other settings, data or code" if there else "to run",
        "to_do": task.to_do,
        "seconds": round(sum(expected[kind].seconds for kind in ("train", "score") if kind in expected)),
        "memory_bytes": round(train.memory_bytes) if train else 0,
        "source": train.source if train else "",
    }


def status(study: Study, tasks: Sequence[Task], store: Store, results: Path, *, side_by_side: int) -> dict[str, Any]:
    """The state of each cell, with the last line of the step that runs or failed, and the time that is left."""
    open_tasks = [task for task in tasks if not is_current(task, study, results)]
    expectations = Expectations(tasks, store, estimate=False)
    states = [_state(task, store, task in open_tasks) for task in tasks]
    steps = remaining(open_tasks, expectations)
    seconds = sum(expected.seconds for expected in steps.values()) / side_by_side
    is_known = all(expected.source != "unknown" for expected in steps.values())
    names = ("done", "running", "waiting", "failed")
    return {
        "study": study.name,
        "counts": {name: sum(state["state"] == name for state in states) for name in names},
        "cells": states,
        "hours_left": round(seconds / 3600, 2) if is_known else None,
    }


def _state(task: Task, store: Store, is_open: bool) -> dict[str, Any]:
    if not is_open:
        return {"cell": task.cell.slug, "state": "done", "step": "", "line": ""}
    if not task.to_do:
        return {"cell": task.cell.slug, "state": "waiting", "step": "result", "line": "`run` writes it"}
    step = Step(task.to_do[0], task.keys[task.to_do[0]])
    if store.is_running(step):
        return {"cell": task.cell.slug, "state": "running", "step": step.kind, "line": store.last_line(step)}
    if failure := store.failure(step):
        return {"cell": task.cell.slug, "state": "failed", "step": step.kind, "line": failure}
    return {"cell": task.cell.slug, "state": "waiting", "step": step.kind, "line": ""}


def show_plan(result: dict[str, Any]) -> None:
    """Print a plan for people."""
    columns = ("cell", "state", Column("min", justify="right"), Column("GiB", justify="right"), "from")
    table = Table(*columns, title=f"study {result['study']}: training and scoring of each cell", box=None)
    for cell in result["cells"]:
        memory = cell.get("memory_bytes", 0)
        table.add_row(
            cell["cell"],
            cell["state"],
            f"{cell['seconds'] / 60:.1f}" if cell["to_do"] else "",
            f"{memory / 2**30:.1f}" if memory else "",
            cell["source"],
        )
    show_table(table)
    out = Console()
    steps = ", ".join(f"{number} {kind}" for kind, number in result["steps"].items()) or "none"
    out.print(
        f"{result['to_run']} of {len(result['cells'])} cells to run; steps: {steps}; about {result['hours']:.1f} hours "
        f"and {result['memory_bytes'] / 2**30:.1f} GiB with {result['side_by_side']} side by side",
        highlight=False,
        soft_wrap=True,
    )
    _show_missing(out, result["missing"])
    out.print(f"results: {result['results']}, the rest: {result['store']}", highlight=False, soft_wrap=True)


def show_status(result: dict[str, Any]) -> None:
    """Print a state for people."""
    table = Table("cell", "state", "step", "last line", title=f"study {result['study']}", box=None)
    for cell in result["cells"]:
        table.add_row(cell["cell"], cell["state"], cell["step"], Text(cell["line"][:_SHOWN]))
    show_table(table)
    out = Console()
    hours = result["hours_left"]
    left = "unknown until a cell of each size is done" if hours is None else f"about {hours:.1f} hours"
    counts = ", ".join(f"{number} {name}" for name, number in result["counts"].items())
    _show_missing(out, result["missing"])
    out.print(f"{counts}; left: {left}", highlight=False)


def _show_missing(out: Console, missing: Mapping[str, str]) -> None:
    """Print which cells are left out since their data is not here."""
    for reason in dict.fromkeys(missing.values()):
        number = list(missing.values()).count(reason)
        out.print(Text(f"{number} cells left out: {reason}", style="yellow"), soft_wrap=True)
