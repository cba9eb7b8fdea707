"""`ctxner pipeline`: from a corpus and tagged sentences to a published model."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs import console as terminal
from jobs.commands.common import finish
from jobs.commands.experiment import DEFAULT_STORE, StoreFolder
from jobs.exit_codes import TRY_AGAIN
from jobs.options import NONE, AsJson, DryRun, Overrides

app = typer.Typer(rich_markup_mode="markdown")


@app.command()
def pipeline(
    file: Annotated[str, typer.Argument(metavar="FILE", help="YAML file, or a name among jobs/pipelines.")],
    store: StoreFolder = DEFAULT_STORE,
    overrides: Overrides = NONE,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Index, retrieve, train, calibrate, evaluate and publish; a step whose inputs are the same is skipped.

    A killed pipeline goes on with the same command. `--dry-run` shows which steps are to do, and why.

    Example: `ctxner pipeline demo`

    Example: `ctxner pipeline weekly.yaml --dry-run --set run.seed=1`
    """
    from jobs.pipeline import job

    act = job.plan if dry_run else job.run
    outcome = finish(lambda: act(file, store, overrides), json, show=job.show)
    if "failed" in outcome:
        terminal.fail(RuntimeError(outcome["failed"]))
        if outcome["exit_code"] == TRY_AGAIN:
            terminal.warn("this may pass; the same command goes on where it stopped")
        raise typer.Exit(outcome["exit_code"])
