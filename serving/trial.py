"""Tries a new model and index in a process of its own before they replace those that serve.

Whatever files hold, the server goes on: the process has limits of memory and time, and may fail, hang or die. It loads
what replicas load, tags and searches sentences as their health checks do, and answers with the plan to deploy.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.plan import Options, plan
from serving.policy import CHECKS

if TYPE_CHECKING:
    from serving.settings import ReloadLimits, ServeSettings


def tried(options: Options, limits: ReloadLimits, ended: threading.Event, serves: str) -> dict[str, Any]:
    """The plan of what lies in the folders now, after it has been tried.

    Args:
        options: Options of the command.
        limits: Limits of the process that tries it.
        ended: Set when the server shall end; then the process is killed.
        serves: Release that serves now; models of the same files are not tried.

    Raises:
        ValueError: Something cannot be used; the message says which file or folder.
    """
    task: bytes | None = json.dumps(
        {"options": dataclasses.asdict(options), "limits": limits.model_dump(), "serves": serves}
    ).encode()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "serving.trial"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    ) as process:
        while True:
            try:
                output, _ = process.communicate(task, timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                task = None  # it has been sent
                if ended.is_set() or time.monotonic() - started > limits.seconds:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
    return _judged(output, process.returncode, limits, time.monotonic() - started)


def _judged(output: bytes, code: int, limits: ReloadLimits, seconds: float) -> dict[str, Any]:
    """The plan in the process's answer; ValueError with the reason if there is none."""
    told: list[dict[str, Any]] = [json.loads(line) for line in output.splitlines() if line.endswith(b"}")]
    last: dict[str, Any] = told[-1] if told else {"step": "starting"}
    if "tree" in last:
        return dict(last["tree"])
    if "error" in last:
        raise ValueError(last["error"])
    if seconds >= limits.seconds:
        raise ValueError(f"{last['step']}: not done within {limits.seconds:g} s; --set reload.seconds changes this")
    raise ValueError(
        f"{last['step']}: the process that tried it died ({code}), perhaps of more than {limits.memory_gib:g} GiB; "
        "--set reload.memory_gib changes this"
    )


def _main() -> None:
    """The process: a task on standard input, steps and the result on standard output, a line of JSON each."""
    task = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print does not belong into the answer
    limit(task["limits"])
    step = "starting"

    def told(what: str) -> None:
        nonlocal step
        step = what
        answers.write(json.dumps({"step": what}) + "\n")

    options = Options(**{**task["options"], "overrides": tuple(task["options"]["overrides"])})
    try:
        tree = plan(options, first=partial(_try, told), serves=task["serves"])
    except BaseException as error:
        answers.write(json.dumps({"error": explained(error, step)}) + "\n")
    else:
        answers.write(json.dumps({"tree": tree}) + "\n")
    answers.flush()
    os._exit(0)  # Java's threads may keep the process from ending


def explained(error: BaseException, step: str) -> str:
    """What is wrong; it begins with the file or folder of the step unless it names one there."""
    reason = (str(error).strip() or type(error).__name__)[:2000]
    if not isinstance(error, ValueError | OSError):
        reason = f"{type(error).__name__}: {reason}"
    return reason if step == "starting" or str(Path(step).parent) in reason else f"{step}: {reason}"


def limit(limits: dict[str, float]) -> None:
    """Limit this process; files that are only mapped, as an index is, do not count."""
    most = int(limits["memory_gib"] * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(int(limits["seconds"]) + 10)  # also if the server has died
    os.nice(5)
    with suppress(OSError):  # if the machine runs out of memory, Linux ends this process first
        Path("/proc/self/oom_score_adj").write_text("1000")


def _try(told: Callable[[str], None], settings: ServeSettings, serves: bool) -> None:
    """Load all and use it once, on the CPU; models that serve already are known to work."""
    from serving.app import models_of

    for model in () if serves else models_of(settings):
        try_model(model, settings, told)
    if settings.index is not None and not settings.index_source:
        try_index(settings, told)


def try_model(model: str, settings: ServeSettings, told: Callable[[str], None]) -> None:
    """Load a model, with the steps told, and tag sentences in both views."""
    from ctxner.encoders import load_tokenizer
    from ctxner.files.node_copies import local
    from ctxner.model.folder import check_folder
    from ctxner.predictor import Tagger
    from ctxner.schema import Example, Passage, ScoredPassage, Sentence

    model = local(model)
    if Path(model).is_dir():
        told(f"{model}/config.json")
        check_folder(Path(model))
    told(f"{model}/tokenizer.json")
    load_tokenizer(model)(list(CHECKS))
    told(f"{model}/model.safetensors")
    tagger = Tagger.from_pretrained(model, precision=settings.precision)
    passages = (ScoredPassage(Passage("1", "", CHECKS[0]), 0.0, 1),)
    sentences = [Sentence(str(n), tuple(text.split())) for n, text in enumerate(CHECKS)]
    for view in ("plain", "context"):
        examples = [Example(sentence, passages) for sentence in sentences]
        for prediction in tagger.predict(examples, view=view):  # type: ignore[arg-type]
            if not prediction.entropy >= 0:  # NaN
                raise ValueError(f"{model}/model.safetensors: the weights yield no numbers")


def try_index(settings: ServeSettings, told: Callable[[str], None]) -> None:
    """Open the index, with the steps told, and search it."""
    from ctxner.retrieval.index.versions import read_manifest
    from ctxner.retriever import Retriever
    from ctxner.schema import Sentence

    told(f"{settings.index}/CURRENT")
    assert settings.index is not None
    manifest = read_manifest(settings.index)
    told(f"{settings.index}/{manifest.version}")
    retriever = Retriever(settings.retrieval, folder=settings.index)
    for result in retriever.search([Sentence(str(n), tuple(text.split())) for n, text in enumerate(CHECKS)]):
        if result.error:
            raise ValueError(f"{settings.index}/{manifest.version}: cannot be searched ({result.error})")
    if settings.retrieval.rerank:
        told(f"the re-ranker's encoder {settings.retrieval.encoder or ''}/".replace(" /", "/"))
        _ = retriever.reranker


if __name__ == "__main__":
    _main()
