"""The work of each step, by the functions that `ctxner index`, `retrieve`, `train` and `evaluate` call.

A step runs in a process of its own (a Ray task of `jobs.experiment.driver`), claims itself in the store, writes what it
says to its log, and is done when its facts are written.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from ctxner.config import Config, parse_config
from ctxner.files.atomic import write_text
from ctxner.training.export.provenance import versions
from jobs.experiment.keys import StepKind
from jobs.experiment.results import Machine, StepFacts, as_counts, dtype_for, pack
from jobs.experiment.store import Step, Store, read_made, started_line

RESULT = "result.json"
Outcome = Literal["done", "busy", "failed"]
_ISA_FLAGS = ("avx_vnni", "avx512_bf16", "amx_bf16")


def run_step(
    kind: StepKind, keys: Mapping[StepKind, str], store: Store, tree: Mapping[str, Any], split: str
) -> Outcome:
    """Do one step of a cell, unless it is done or another process is doing it.

    Args:
        kind: Which step.
        keys: Keys of all steps of the cell.
        store: Where steps are kept.
        tree: The cell's settings, with the places of the store (see `jobs.experiment.driver.placed`).
        split: Split to score.

    Returns:
        done; busy, when another process is at it; or failed, with the reason in the store and the log.
    """
    step = Step(kind, keys[kind])
    try:
        with store.claim(step):
            if store.done(step):
                return "done"
            return _attempt(step, keys, store, parse_config(dict(tree)), split)
    except BlockingIOError:
        return "busy"


def _attempt(step: Step, keys: Mapping[StepKind, str], store: Store, config: Config, split: str) -> Outcome:
    log = store.log(step)
    with log.open("a", encoding="utf-8") as file:
        file.write(started_line(step, time.strftime("%Y-%m-%d %H:%M:%S"), socket.gethostname(), os.getpid()))
    started = time.perf_counter()
    with _output_to(log):
        try:
            numbers = _WORK[step.kind](step, keys, store, config, split)
        except Exception as error:
            traceback.print_exc()
            store.fail(step, f"{type(error).__name__}: {error}")
            return "failed"
    seconds = round(time.perf_counter() - started, 1)
    facts = StepFacts(
        key=step.key,
        seconds=seconds,
        attempts=store.attempts(step),
        commit=commit(),
        machine=machine(),
        versions=versions(),
        numbers=numbers,
    )
    store.finish(step, facts)
    return "done"


def _index(step: Step, keys: Mapping[StepKind, str], store: Store, config: Config, split: str) -> dict[str, float]:
    from jobs import index

    return {"passages": index.run(config)["num_documents"]}


def _contexts(step: Step, keys: Mapping[StepKind, str], store: Store, config: Config, split: str) -> dict[str, float]:
    from jobs import retrieve

    data = config.data.model_copy(update={"contexts": store.folder(step)})
    manifest = retrieve.run(config.model_copy(update={"data": data}), [])
    return {name: manifest[name] for name in ("sentences", "without_passage") if name in manifest}


def _shuffle(step: Step, keys: Mapping[StepKind, str], store: Store, config: Config, split: str) -> dict[str, float]:
    from jobs.experiment.shuffle import shuffle_contexts

    return {"sentences": shuffle_contexts(store.folder(Step("contexts", keys["contexts"])), store.folder(step))}


def _train(step: Step, keys: Mapping[StepKind, str], store: Store, config: Config, split: str) -> dict[str, float]:
    from jobs import train
    from jobs.experiment.keys import reads_contexts

    if not reads_contexts(config):  # the same run for every kind of passages
        config = config.model_copy(update={"data": config.data.model_copy(update={"contexts": None})})
    run = {"storage": store.folder(step).parent, "name": step.key, "resume": True}
    config = config.model_copy(update={"run": config.run.model_copy(update=run)})
    result = train.run(config)
    history = json.loads((store.folder(step) / "history.json").read_text(encoding="utf-8"))
    write_text(store.folder(step) / RESULT, json.dumps(result["best"]))
    return {
        "steps": result["steps"],
        "memory_bytes": result["memory_bytes"],
        "epoch_seconds": round(sum(entry["seconds"] for entry in history), 1),
    }


def _score(step: Step, keys: Mapping[StepKind, str], store: Store, config: Config, split: str) -> dict[str, float]:
    """Score a model and write what a cell's result says of it."""
    import torch

    from ctxner.evaluation.significance import unit_counts
    from jobs.evaluate import evaluated

    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    folder = store.folder(Step("train", keys["train"]))
    store.folder(step).mkdir(parents=True, exist_ok=True)
    page = store.folder(step) / f"evaluation-{split}.html"
    figures, inputs, tagged = evaluated(config, str(folder / "model"), split, out=page)
    views = {view: unit_counts(inputs.gold, tagged.spans(view), inputs.units.groups) for view in ("plain", "context")
             if view in tagged.views}  # fmt: skip
    dtype, best = dtype_for(views.values()), read_made(folder / RESULT)
    changes = figures["context_against_plain"]
    result = {
        "seed": config.run.seed,
        "split": split,
        "sentences": figures["sentences"],
        "unit": figures["unit"],
        "num_units": figures["num_units"],
        "unit_reason": figures["unit_reason"],
        "dtype": dtype,
        "scores": {
            view: _view_scores(figures, view) | {"packed": pack(counts, dtype)} for view, counts in views.items()
        },
        "dev_f1": best["dev_f1"],
        "best_epoch": best["epoch"],
        "changes": changes and changes["mentions"],
    }
    write_text(store.folder(step) / RESULT, json.dumps(result, ensure_ascii=False))
    return {"sentences": figures["sentences"]}


def _view_scores(figures: Mapping[str, Any], view: str) -> dict[str, Any]:
    scores, details = figures["scores"][view], figures["details"][view]
    groups = {**details.get("seen", {}), **details.get("entries", {})}
    return {
        "all": as_counts(scores["micro"]),
        "types": {type: as_counts(score) for type, score in scores["per_type"].items()},
        "groups": {group: as_counts(score) for group, score in groups.items()},
        "interval": details["interval"],
    }


_WORK = {"index": _index, "contexts": _contexts, "shuffle": _shuffle, "train": _train, "score": _score}


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Let all that this process writes go to a log; it is a process of this step alone."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    target = os.open(log, os.O_WRONLY | os.O_APPEND)
    try:
        os.dup2(target, 1)
        os.dup2(target, 2)
        logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
        for name in ("ctxner", "jobs"):
            logging.getLogger(name).setLevel(logging.INFO)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(saved, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.close(target)


def commit() -> str | None:
    """Commit of this code, with `-dirty` when files differ from it; None outside a Git checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def machine() -> Machine:
    """Processor, cores and vector instructions of the machine that this runs on."""
    import torch

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = facts.get("flags", "").split()
    isa = [torch.backends.cpu.get_cpu_capability(), *(flag for flag in _ISA_FLAGS if flag in flags)]
    return Machine(
        cpu=facts.get("model name") or platform.processor() or platform.machine(),
        cores=os.cpu_count() or 1,
        isa=" ".join(isa),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    )
