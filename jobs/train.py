"""`ctxner train`: contexts and gold tags -> the tagger with the best mean dev F1 of both views."""

from __future__ import annotations

import logging
from typing import Any

from ctxner.config import Config
from jobs.cluster import connect
from jobs.console import as_json, console, progress
from jobs.console import show as show_result
from jobs.pages.training import write_training_page
from jobs.plan_tables import show_plan

logger = logging.getLogger(__name__)

_LONG = (
    "zero_stages",
    "fits",
    "largest_micro_batch",
    "step_times",
    "doubts",
    "steps_by_epoch",
)  # left out of the plan that `run` prints; --dry-run shows them


def run(config: Config) -> dict[str, Any]:
    """Train; returns the model's path and dev scores. Errors in the files are reported before Ray starts."""
    planned = plan(config)
    short = {name: value for name, value in planned.items() if name not in _LONG}
    short["memory_bytes"] = planned["zero_stages"][config.run.zero_stage]["total"]
    console.print("plan:", as_json(short), highlight=False, markup=False, soft_wrap=True)
    for doubt in planned["doubts"]:
        logger.warning("%s", doubt)
    connect()
    from ctxner.training.observe.mlflow import finish_run
    from ctxner.training.observe.progress import Watcher
    from ctxner.training.worker import train

    with progress(f"training {config.loss.mode}", planned["steps"]) as done:
        watcher = Watcher(on_step=done, on_epoch=logger.info)
        result = train(config, steps_by_epoch=planned["steps_by_epoch"], watcher=watcher)
    page = write_training_page(result.folder, result.model)
    if config.run.mlflow:
        files = [result.folder / name for name in ("config.json", "history.json")]
        finish_run(config.run.mlflow, result.folder, [result.model, page, *files])
    best = {name: value for name, value in result.best.items() if name != "dev_scores"}
    return {
        "model": str(result.model),
        "run": str(result.folder),
        "page": str(page),
        "best": best,
        "epochs": len(result.history),
        "scores": result.best["dev_scores"],
    }


def plan(config: Config) -> dict[str, Any]:
    """What `run` would do: the arithmetic of the run, its memory and traffic."""
    from ctxner.training.observe.mlflow import check_mlflow
    from ctxner.training.plan import plan

    check_mlflow(config.run.mlflow)
    return plan(config)


def show(config: Config, result: dict[str, Any], *, dry_run: bool) -> None:
    """Print the plan or the result for people."""
    if dry_run:
        show_plan(result, configured_stage=config.run.zero_stage)
    else:
        show_result(result)
