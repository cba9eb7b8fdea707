"""`ctxner train`: contexts and gold tags -> the tagger with the best dev F1, the mean over the trained views."""

from __future__ import annotations

import logging
from typing import Any

from ctxner.config import Config
from ctxner.files.storage import exists, put_file
from ctxner.files.uris import is_uri
from jobs import run_contexts
from jobs.cluster import connect
from jobs.console import progress
from jobs.console import show as show_result
from jobs.pages.training import write_training_page
from jobs.plan_tables import overview, show_plan
from jobs.summaries import of_train

logger = logging.getLogger(__name__)


def run(config: Config) -> dict[str, Any]:
    """Retrieve what is missing, and train; returns the model's path and dev scores.

    Errors in the files are reported before Ray starts.
    """
    from ctxner.training.checkpoints.resume import refuse_started

    config, reasons = _settled(config)
    if not config.run.resume:
        refuse_started(config.run.storage / str(config.run.name))
    if reasons:
        _plan(config, reasons)
        run_contexts.renew(config, reasons)
    planned = _plan(config, {})
    for name, value in overview(planned, config.run.zero_stage).items():
        logger.info("%s: %s", name, value)
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
    stored = result.stored
    if is_uri(stored):
        put_file(page, stored / page.name)
    if config.run.mlflow:
        files = [result.folder / name for name in ("config.json", "history.json")]
        finish_run(config.run.mlflow, result.folder, [result.model, page, *files])
    best = {name: value for name, value in result.best.items() if name != "dev_scores"}
    return {
        "model": str(stored / result.model.name),
        "run": str(stored),
        "page": str(stored / page.name),
        "best": best,
        "epochs": len(result.history),
        "steps": planned["steps"],
        "scores": result.best["dev_scores"],
    }


def plan(config: Config) -> dict[str, Any]:
    """What `run` would do: the arithmetic of the run, its memory and traffic.

    Passages that `run` would retrieve first are not there yet: `to_retrieve` says for which splits and why, and steps
    and memory are those of sentences without passages.
    """
    return _plan(*_settled(config))


def _plan(config: Config, to_retrieve: dict[str, str]) -> dict[str, Any]:
    from ctxner.training.observe.mlflow import check_mlflow
    from ctxner.training.plan import plan

    check_mlflow(config.run.mlflow)
    if not to_retrieve:
        return _here(config, plan(config))
    bare = config.data.model_copy(update={"contexts": None})
    planned = plan(config.model_copy(update={"data": bare}), retrieved=False)
    return {**_here(config, planned), "to_retrieve": to_retrieve}


def _here(config: Config, planned: dict[str, Any]) -> dict[str, Any]:
    """The plan, with the minutes of a run on this machine's CPU (None for a run on GPUs), and its memory in bytes."""
    from ctxner.training.estimate.machine import memory_bytes

    minutes = None if config.run.gpus else minutes_here(config, planned)
    return {**planned, "minutes_here": minutes, "memory_here": memory_bytes()}


def minutes_here(config: Config, planned: dict[str, Any]) -> float:
    """Rough minutes of a planned run on this machine's CPU when it is idle: its steps and its scoring of dev."""
    from ctxner.training.data.dev_part import STEP_COST
    from ctxner.training.estimate.machine import minutes_of
    from ctxner.training.estimate.memory import EncoderShape
    from ctxner.training.plan import SCORED

    run, scored = config.run, planned["sentences"][SCORED] / STEP_COST  # in sentences of a step
    return minutes_of(
        config.optim.epochs * planned["flops_an_epoch"] * (1 + scored / planned["sentences_an_epoch"]),
        EncoderShape(**planned["encoder"]),
        threads=run.threads and run.threads * run.workers,
        bfloat16=run.precision == "bfloat16",
    )


def _settled(config: Config) -> tuple[Config, dict[str, str]]:
    """The config with the run's name and the place of its contexts; and the splits to retrieve for, with reasons."""
    from ctxner.training.automatic import resolved
    from ctxner.training.checkpoints.resume import is_started, read_config, run_folder

    for split, option in (("train", "a file: ctxner train FILE"), ("dev", "--dev FILE")):
        if getattr(config.data, split) is None:
            raise ValueError(f"no sentences for {split}; give {option} (or --set data.{split}=FILE)")
    folder = run_folder(config)
    config = resolved(config, saved=read_config(folder) if config.run.resume and is_started(folder) else None)
    run = config.run.model_copy(update={"storage": folder.parent, "name": folder.name})
    settled = run_contexts.placed(config.model_copy(update={"run": run}), folder)
    contexts = settled.data.contexts
    if contexts is None or contexts != run_contexts.contexts_in(folder) or (run.resume and exists(contexts)):
        return settled, {}
    return settled, run_contexts.to_retrieve(settled, settled.data.named_splits())


def show(config: Config, result: dict[str, Any], *, dry_run: bool, verbose: bool = False) -> None:
    """Print the plan or the result for people."""
    if dry_run:
        show_plan(result, configured_stage=config.run.zero_stage, verbose=verbose)
    else:
        show_result(of_train(result))
