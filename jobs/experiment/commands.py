"""`ctxner experiment run|plan|status|report`: only Typer's declarations and the way from options to the work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs import console as terminal
from jobs.options import NONE, AsJson, DryRun, Overrides

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")

StudyFile = Annotated[str, typer.Argument(metavar="STUDY", help="YAML file, or a name among jobs/studies.")]
Results = Annotated[
    Path, typer.Option("--results", help="Folder of the results, one small JSON per cell: keep it in Git.")
]
StoreFolder = Annotated[
    Path, typer.Option("--store", help="Folder of indexes, contexts, models and scores, shared by all studies.")
]
Parallel = Annotated[int | None, typer.Option(min=1, help="Steps side by side at most (default: as resources allow).")]
DEFAULT_RESULTS, DEFAULT_STORE = Path("docs/results"), Path("runs/experiments")


@app.callback()
def experiment() -> None:
    """Run studies: a grid of configs, each cell once, with tables and significance."""


@app.command()
def run(
    study: StudyFile,
    results: Results = DEFAULT_RESULTS,
    store: StoreFolder = DEFAULT_STORE,
    parallel: Parallel = None,
    overrides: Overrides = NONE,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Run the cells of a study that are not done; what is done is never done again, and a killed study goes on.

    Example: `ctxner experiment run bc5cdr-500`

    Example: `ctxner experiment run my-study.yaml --parallel 2 --set run.threads=1`
    """
    if dry_run:
        plan(study, results, store, parallel, overrides, json)
        return
    with terminal.results() as write:
        outcome = _run(study, results, store, parallel, overrides)
        if json:
            write(terminal.as_json(outcome))
    if not json:
        terminal.show(outcome)
    if outcome["failed"]:
        raise typer.Exit(1)


@app.command()
def plan(
    study: StudyFile,
    results: Results = DEFAULT_RESULTS,
    store: StoreFolder = DEFAULT_STORE,
    parallel: Parallel = None,
    overrides: Overrides = NONE,
    json: AsJson = False,
) -> None:
    """Show the cells of a study, what is there, and the time and memory that the rest is expected to take.

    Example: `ctxner experiment plan bc5cdr-500`
    """
    from jobs.experiment import overview

    loaded, tasks, kept = _load(study, store, overrides)
    number = parallel or loaded.parallel or _side_by_side(tasks)
    _finish(overview.plan(loaded, tasks, kept, results, side_by_side=number), json, overview.show_plan)


@app.command()
def status(
    study: StudyFile,
    results: Results = DEFAULT_RESULTS,
    store: StoreFolder = DEFAULT_STORE,
    parallel: Parallel = None,
    overrides: Overrides = NONE,
    json: AsJson = False,
) -> None:
    """Show which cells are done, running, waiting or failed, the last line of each, and the time that is left.

    Example: `ctxner experiment status bc5cdr-500`
    """
    from jobs.experiment import overview

    loaded, tasks, kept = _load(study, store, overrides)
    number = parallel or loaded.parallel or _side_by_side(tasks)
    _finish(overview.status(loaded, tasks, kept, results, side_by_side=number), json, overview.show_status)


def _run(name: str, results: Path, store: Path, parallel: int | None, overrides: list[str]) -> dict[str, Any]:
    from jobs.cluster import prepare

    prepare()
    from jobs.experiment import driver
    from jobs.experiment.expected import Expectations

    study, tasks, kept = _load(name, store, overrides)
    expectations = Expectations(tasks, kept, estimate=False)
    progress = driver.run(
        study,
        tasks,
        kept,
        results,
        parallel=parallel,
        memory_of=lambda task: expectations.of(task, "train").memory_bytes,
    )
    return {
        "study": study.name,
        "done": progress.done,
        "done_before": len(progress.before),
        "failed": progress.failed,
        "results": str(results / study.name),
    }


def _load(name: str, store: Path, overrides: list[str]) -> tuple[Any, Any, Any]:
    """The study, its cells with their keys, and the store; errors in the study come before anything runs."""
    from jobs.experiment import driver
    from jobs.experiment.store import Store
    from jobs.experiment.study import cells, find_study, read_study

    study, kept = read_study(find_study(name)), Store(store.absolute())
    return study, driver.tasks_of(study, cells(study, overrides), kept), kept


def _side_by_side(tasks: Any) -> int:
    """How many trainings fit on this machine's CPUs."""
    cpus = len(os.sched_getaffinity(0))
    wanted = [run.workers * run.threads if run.threads else cpus for run in (task.cell.config.run for task in tasks)]
    return max(1, cpus // max([1, *wanted]))


def _finish(result: dict[str, Any], json: bool, show: Any) -> None:
    with terminal.results() as write:
        if json:
            write(terminal.as_json(result))
    if not json:
        show(result)
