"""The work of each step, by the functions that `ctxner index`, `retrieve`, `train`, `calibrate` and `evaluate` call.

A step runs in a process of its own (a Ray task of `jobs.experiment.driver`), claims itself in the store, writes what it
says to its log, and is done when its facts are written.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ctxner.config import Config, parse_config
from ctxner.files.atomic import write_text
from ctxner.schema import VIEWS
from ctxner.training.export.provenance import versions
from jobs.exit_codes import exit_code
from jobs.experiment.keys import StepKind, reads_contexts
from jobs.experiment.results import Machine, StepFacts, as_counts, dtype_for, pack
from jobs.experiment.store import RESULT, Step, Store, read_made, started_line
from jobs.experiment.study import CalibrateStep, ContextsFrom

logger = logging.getLogger(__name__)

Outcome = Literal["done", "busy", "failed"]
_ISA_FLAGS = ("avx_vnni", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True, slots=True)
class Given:
    """What a step works with: keys of all steps of the cell, the store, and what the study says beside the config."""

    keys: Mapping[StepKind, str]
    store: Store
    split: str
    contexts: ContextsFrom
    unlabelled: str | None
    calibrate: CalibrateStep | None = None

    def folder(self, kind: StepKind) -> Path:
        """What a step of the cell makes."""
        return self.store.folder(Step(kind, self.keys[kind]))


def run_step(kind: StepKind, given: Given, tree: Mapping[str, Any]) -> Outcome:
    """Do one step of a cell, unless it is done or another process is doing it.

    Args:
        kind: Which step.
        given: The cell's keys and sources, and where steps are kept.
        tree: The cell's settings, with the places of the store (see `jobs.experiment.tasks.placed`).

    Returns:
        done; busy, when another process is at it; or failed, with the reason in the store and the log.
    """
    step = Step(kind, given.keys[kind])
    try:
        with given.store.claim(step):
            if given.store.done(step):
                return "done"
            given.store.forget_damaged(step)
            return _attempt(step, given, parse_config(dict(tree)))
    except BlockingIOError:
        return "busy"


def _attempt(step: Step, given: Given, config: Config) -> Outcome:
    store, log = given.store, given.store.log(step)
    with log.open("a", encoding="utf-8") as file:
        file.write(started_line(step, time.strftime("%Y-%m-%d %H:%M:%S"), socket.gethostname(), os.getpid()))
    started = time.perf_counter()
    with _output_to(log):
        try:
            numbers = _WORK[step.kind](given, config)
        except Exception as error:
            traceback.print_exc()
            store.fail(step, f"{type(error).__name__}: {error}", exit_code(error) or 1)
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


def _index(given: Given, config: Config) -> dict[str, float]:
    from jobs import index
    from jobs.experiment.contexts import write_corpus

    if given.contexts == "data":
        corpus = given.folder("index").with_name(f"{given.keys['index']}.jsonl")
        write_corpus(config.data, corpus)
        config = config.model_copy(update={"index": config.index.model_copy(update={"corpus": (corpus,)})})
    return {"passages": index.run(config)["num_documents"]}


def _contexts(given: Given, config: Config) -> dict[str, float]:
    from jobs import retrieve

    data = config.data.model_copy(update={"contexts": given.folder("contexts")})
    manifest = retrieve.run(config.model_copy(update={"data": data}), [])
    return {name: manifest[name] for name in ("sentences", "without_passage")}


def _shuffle(given: Given, config: Config) -> dict[str, float]:
    from jobs.experiment.contexts import random_contexts, shuffle_contexts

    make = random_contexts if given.contexts == "random" else shuffle_contexts
    return {"sentences": make(given.folder("contexts"), given.folder("shuffle"))}


def _train(given: Given, config: Config) -> dict[str, float]:
    from ctxner.training.checkpoints.resume import OtherRunError
    from jobs import train
    from jobs.experiment.contexts import write_rest

    folder, data = given.folder("train"), config.data
    if not reads_contexts(config):  # the same run for every kind of passages
        data = data.model_copy(update={"contexts": None})
    if given.unlabelled and data.contexts and data.train_sentences:
        rest = folder.with_name(f"{folder.name}.unlabelled.parquet")
        write_rest(data.contexts / "train.parquet", rest, data.train_sentences)
        data = data.model_copy(update={"unlabelled": rest})
    run = config.run.model_copy(update={"storage": folder.parent, "name": folder.name, "resume": True})
    settled = config.model_copy(update={"run": run, "data": data})
    try:
        result = train.run(settled)
    except OtherRunError as error:  # begun by a version for which these settings were others: nobody needs it
        logger.warning("%s\nit begins anew", error)
        shutil.rmtree(folder)
        result = train.run(settled)
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    write_text(folder / RESULT, json.dumps(result["best"]))
    return {
        "steps": result["steps"],
        "memory_bytes": max(entry.get("peak_memory_bytes", 0) for entry in history) * config.run.workers,
        "epoch_seconds": round(sum(entry["seconds"] for entry in history), 1),
    }


def _calibrate(given: Given, config: Config) -> dict[str, float]:
    """Calibrate a copy of the model: cells that do not calibrate share the model itself."""
    from jobs import calibrate

    _set_threads(config)
    trained, folder, settings = given.folder("train"), given.folder("calibrate"), given.calibrate
    assert settings is not None, "a cell without it has no such step"
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that did not end
    shutil.copytree(trained / "model", folder / "model", copy_function=_link)
    shutil.copyfile(trained / RESULT, folder / RESULT)
    wanted = calibrate.Wanted(settings.share, settings.f1, settings.gain)
    page = folder / f"calibration-{settings.split}.html"
    return {"sentences": calibrate.run(config, str(folder / "model"), settings.split, wanted, out=page)["sentences"]}


def _link(source: str, target: str) -> None:
    """Another name of a file, or a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _set_threads(config: Config) -> None:
    import torch

    if config.run.threads:
        torch.set_num_threads(config.run.threads)


def _score(given: Given, config: Config) -> dict[str, float]:
    """Score a model and write what a cell's result says of it."""
    from ctxner.evaluation.significance import unit_counts
    from jobs.evaluate import evaluated

    _set_threads(config)
    model = given.folder("calibrate" if given.calibrate else "train")
    folder, split = given.folder("score"), given.split
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"evaluation-{split}.html"
    figures, inputs, tagged = evaluated(config, str(model / "model"), split, out=page)
    shown = [view for view in VIEWS if view in tagged.views]
    counts = {view: unit_counts(inputs.gold, tagged.spans(view), inputs.units.groups) for view in shown}
    dtype, best = dtype_for(counts.values()), read_made(model / RESULT)
    changes = figures["context_against_plain"]
    result = {
        "seed": config.run.seed,
        "split": split,
        **{name: figures[name] for name in ("sentences", "unit", "num_units", "unit_reason")},
        "dtype": dtype,
        "scores": {view: _view_scores(figures, view) | {"packed": pack(counts[view], dtype)} for view in shown},
        "dev_f1": {view: round(f1, 6) for view, f1 in best["dev_f1"].items()},
        "best_epoch": best["epoch"],
        "changes": changes and changes["mentions"],
    }
    write_text(folder / RESULT, json.dumps(result, ensure_ascii=False))
    return {"sentences": figures["sentences"]}


def _view_scores(figures: Mapping[str, Any], view: str) -> dict[str, Any]:
    scores, details = figures["scores"][view], figures["details"][view]
    groups = {**details.get("seen", {}), **details.get("entries", {})}
    return {
        "all": as_counts(scores["micro"]),
        "types": {type: as_counts(score) for type, score in scores["per_type"].items()},
        "groups": {group: as_counts(score) for group, score in groups.items()},
        "interval": [round(bound, 6) for bound in details["interval"]],
    }


_WORK = {
    "index": _index,
    "contexts": _contexts,
    "shuffle": _shuffle,
    "train": _train,
    "calibrate": _calibrate,
    "score": _score,
}


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
        done = subprocess.run(  # noqa: S603  a fixed command
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
