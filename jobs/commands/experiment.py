"""`ctxner experiment run|plan|status|report`: only Typer's declarations and the way from options to the work."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.commands.common import finish
from jobs.options import NONE, AsJson, DryRun, Overrides
from jobs.summaries import of_study

logger = logging.getLogger(__name__)

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")

StudyFile = Annotated[str, typer.Argument(metavar="STUDY", help="YAML file, or a name among jobs/studies.")]
Results = Annotated[
    Path, typer.Option("--results", help="Folder of the results, one small JSON per cell: keep it in Git.")
]
StoreFolder = Annotated[
    Path, typer.Option("--store", help="Folder of indexes, contexts, models and scores, shared by all studies.")
]
Parallel = Annotated[int | None, typer.Option(min=1, help="Steps side by side at most (default: as resources allow).")]
Chosen = Annotated[
    list[str],
    typer.Option("--cell", metavar="AXIS=VALUE", help="Only these cells; repeatable; one axis: either value."),
]
DEFAULT_RESULTS, DEFAULT_STORE = Path("docs/results"), Path("runs/experiments")


@app.callback()
def experiment() -> None:
    """Run studies: a grid of configs, each cell once, with tables and significance.

    Example: `ctxner experiment plan bc5cdr-500`
    """


@app.command()
def run(
    study: StudyFile,
    results: Results = DEFAULT_RESULTS,
    store: StoreFolder = DEFAULT_STORE,
    parallel: Parallel = None,
    only: Chosen = NONE,
    overrides: Overrides = NONE,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Run the cells of a study that are not done; what is done is never done again, and a killed study goes on.

    Example: `ctxner experiment run bc5cdr-500`

    Example: `ctxner experiment run my-study.yaml --parallel 2 --cell seed=0 --cell seed=1 --set run.threads=1`
    """
    if dry_run:
        plan(study, results, store, parallel, only, overrides, json)
        return
    outcome = finish(lambda: _run(study, results, store, parallel, only, overrides), json, summary=of_study)
    if outcome["failed"]:
        raise typer.Exit(1)


@app.command()
def plan(
    study: StudyFile,
    results: Results = DEFAULT_RESULTS,
    store: StoreFolder = DEFAULT_STORE,
    parallel: Parallel = None,
    only: Chosen = NONE,
    overrides: Overrides = NONE,
    json: AsJson = False,
) -> None:
    """Show the cells of a study, what is there, and the time and memory that the rest is expected to take.

    Example: `ctxner experiment plan bc5cdr-500`
    """
    from jobs.experiment import overview

    finish(
        lambda: _looked_at(overview.plan, study, results, store, parallel, only, overrides), json, overview.show_plan
    )


@app.command()
def status(
    study: StudyFile,
    results: Results = DEFAULT_RESULTS,
    store: StoreFolder = DEFAULT_STORE,
    parallel: Parallel = None,
    only: Chosen = NONE,
    overrides: Overrides = NONE,
    json: AsJson = False,
) -> None:
    """Show which cells are done, running, waiting or failed, the last line of each, and the time that is left.

    Example: `ctxner experiment status bc5cdr-500`
    """
    from jobs.experiment import overview

    look = overview.status
    finish(lambda: _looked_at(look, study, results, store, parallel, only, overrides), json, overview.show_status)


@app.command()
def report(
    study: Annotated[
        str | None, typer.Argument(metavar="STUDY", help="YAML file, or a name among jobs/studies.")
    ] = None,
    results: Results = DEFAULT_RESULTS,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the report (default: runs/reports/STUDY).")
    ] = None,
    docs: Annotated[
        Path | None, typer.Option("--docs", help="Document whose marked tables are written anew, instead of a report.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="With --docs: compare only; exit code 2 when they differ.")
    ] = False,
    overrides: Overrides = NONE,
    json: AsJson = False,
) -> None:
    """Write the tables of a study from its results alone, as Markdown, LaTeX, CSV and a page with plots.

    Example: `ctxner experiment report bc5cdr-500`

    Example: `ctxner experiment report --docs docs/results.md --check`
    """
    from jobs.experiment import report as job
    from jobs.experiment.published import read_published
    from jobs.experiment.study import find_study, read_study

    if (study is None) == (docs is None):
        raise ValueError("give a STUDY, or --docs FILE")
    if docs is not None:
        if out is not None or overrides:
            raise ValueError("--docs writes into the document; leave --out and --set out")
        finish(lambda: job.renew_document(docs, results, check=check), json)
        return
    if check:
        raise ValueError("--check compares a document; give --docs FILE")
    loaded = read_study(find_study(str(study)))
    made = job.report_of(loaded, results, read_published(), overrides)
    finish(lambda: job.write_report(made, out or Path("runs/reports") / loaded.name), json)


def _run(
    name: str, results: Path, store: Path, parallel: int | None, only: list[str], overrides: list[str]
) -> dict[str, Any]:
    from jobs.cluster import prepare

    prepare()
    from jobs.experiment import driver
    from jobs.experiment.expected import Expectations

    study, tasks, kept, missing = _load(name, store, only, overrides)
    for slug, reason in missing.items():
        logger.warning("%s: left out, %s", slug, reason)
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
        "missing": missing,
        "results": str(results / study.name),
    }


def _looked_at(
    look: Any, name: str, results: Path, store: Path, parallel: int | None, only: list[str], overrides: list[str]
) -> dict[str, Any]:
    """What `overview.plan` or `overview.status` says of a study."""
    study, tasks, kept, missing = _load(name, store, only, overrides)
    number = parallel or study.parallel or _side_by_side(tasks)
    return {**look(study, tasks, kept, results, side_by_side=number), "missing": missing}


def _load(name: str, store: Path, only: list[str], overrides: list[str]) -> tuple[Any, Any, Any, dict[str, str]]:
    """The study, its cells with their keys, the store, and cells without data; all errors of a study come from here."""
    from jobs.experiment.store import Store
    from jobs.experiment.study import cells, find_study, read_study
    from jobs.experiment.tasks import chosen, tasks_of

    study, kept = read_study(find_study(name)), Store(store.absolute())
    tasks, missing = tasks_of(study, chosen(cells(study, overrides), study, only), kept)
    return study, tasks, kept, missing


def _side_by_side(tasks: Any) -> int:
    """How many trainings fit on this machine's CPUs."""
    cpus = len(os.sched_getaffinity(0))
    wanted = [run.workers * run.threads if run.threads else cpus for run in (task.cell.config.run for task in tasks)]
    return max(1, cpus // max([1, *wanted]))
