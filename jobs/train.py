"""`ctxner train`: contexts and gold tags -> the tagger with the best mean dev F1 of both views."""

from __future__ import annotations

from typing import Any

from ctxner.config import Config
from jobs.cluster import connect
from jobs.console import as_json, console


def run(config: Config) -> dict[str, Any]:
    """Train; returns where the model is and its dev scores. What is wrong with the files is found before Ray starts."""
    console.print("plan:", as_json(plan(config)), highlight=False, markup=False, soft_wrap=True)
    connect()
    from ctxner.training.worker import train

    result = train(config)
    return {"model": str(result.model), "run": str(result.folder), "best": result.best, "epochs": len(result.history)}


def plan(config: Config) -> dict[str, Any]:
    """What `run` would do: the arithmetic of the run."""
    from ctxner.training.plan import plan

    return plan(config)
