"""`ctxner pipeline FILE`: index, retrieve, train, calibrate, evaluate, publish; what is done is never done again.

The steps before publishing are those of a study with one cell: its keys, its store, its tasks on Ray.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ctxner.evaluation.scores import Score
from ctxner.files.atomic import write_text
from ctxner.files.uris import is_uri
from jobs.console import score_percent, show_table
from jobs.console import show as show_result
from jobs.experiment.keys import StepKind, digest, settings_of, steps_of
from jobs.experiment.store import Step, Store
from jobs.experiment.tasks import Task, needed, placed
from jobs.pipeline.definition import LATEST, Pipeline, cell_of, find_pipeline, read_pipeline
from jobs.pipeline.publish import Published, look, publish
from jobs.pipeline.reasons import why

logger = logging.getLogger(__name__)

_COMMANDS: dict[str, str] = {"contexts": "retrieve", "score": "evaluate"}  # what does a step


@dataclass(frozen=True, slots=True)
class _Planned:
    """A pipeline, its steps, and what is published of it."""

    pipeline: Pipeline
    task: Task
    store: Store
    version: str
    published: Published

    @property
    def record(self) -> Path:
        """What the steps of the last whole run depended on; only for the reasons that a plan states."""
        return self.store.root / "pipelines" / f"{self.pipeline.name}.json"


def plan(name: str, root: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What `run` would do: each step with its state and the reason. Ray is not started.

    Raises:
        ValueError: The file, a setting or an input cannot be used, or something else is published under the name.
    """
    return _overview(_planned(name, root, overrides))


def run(name: str, root: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Do the steps that are not done, and publish.

    Args:
        name: File of the pipeline, or a name among jobs/pipelines.
        root: Folder of the store, which every node must reach.
        overrides: `section.key=value` over the settings.

    Returns:
        What `plan` says, with the states as they are now; when a step failed, `failed` and its `exit_code`.

    Raises:
        ValueError: See `plan`.
    """
    from jobs.cluster import prepare

    prepare()
    from jobs.experiment.driver import Work

    started, planned = time.perf_counter(), _planned(name, root, overrides)
    before = {step["step"]: step for step in _overview(planned)["steps"]}
    for step in before.values():
        logger.info("%s: %s", step["step"], step["state"] if step["state"] == "done" else f"to do, {step['why']}")
    work = Work(planned.store, planned.pipeline.evaluate.split)
    failed = work.do([planned.task] if planned.task.to_do else [])
    failure: dict[str, Any] = {}
    for step in failed.values():
        failure = {"failed": work.reason(step), "exit_code": planned.store.exit_code(step)}
    if not failure:
        _publish(planned)
        planned.record.parent.mkdir(parents=True, exist_ok=True)
        write_text(planned.record, json.dumps(planned.task.steps.facts, default=str, ensure_ascii=False) + "\n")
    result = _overview(_planned(name, root, overrides))
    for step in result["steps"]:
        if step["state"] == "done":
            step["state"] = "done before" if before[step["step"]]["state"] == "done" else "done now"
    return {**result, **failure, "seconds": round(time.perf_counter() - started, 1)}


def task_of(name: str) -> Task:
    """The steps of a pipeline before publishing, as if none was done; for what they would take."""
    return _read(name)[1]


def _read(name: str, overrides: Sequence[str] = ()) -> tuple[Pipeline, Task]:
    """A pipeline and its steps, all of them to do."""
    path = find_pipeline(name)
    pipeline = read_pipeline(path)
    cell = cell_of(pipeline, path, overrides)
    steps = steps_of(cell, split=pipeline.evaluate.split, code=pipeline.code)
    return pipeline, Task(cell, steps, [*steps.keys()])


def _planned(name: str, root: Path, overrides: Sequence[str]) -> _Planned:
    store, (pipeline, task) = Store(root.absolute()), _read(name, overrides)
    keys, settings = task.keys, pipeline.publish
    version = settings.version or keys["score"]
    published = look(settings.to, version, keys["score"])
    wanted: list[StepKind]
    if not published.is_whole:
        wanted = [kind for kind in keys if kind not in ("contexts", "shuffle")]  # those only when a step reads them
    else:
        wanted = ["index"] if "index" in keys and not settings.copy_index else []  # what `latest/index` leads to
    to_do = [kind for kind, key in keys.items() if store.done(Step(kind, key)) is None]
    task.to_do = needed(to_do, keys, wanted)
    return _Planned(pipeline, task, store, version, published)


def _overview(planned: _Planned) -> dict[str, Any]:
    to, published = planned.pipeline.publish.to.rstrip("/"), planned.published
    is_done = published.is_whole and published.is_latest
    here = f"{to}/{planned.version}"
    if is_done:
        reason = ""
    elif published.is_whole:
        reason = f"{LATEST} leads to another version"
    else:
        reason = f"{here} is damaged" if published.key else f"{here} is not there yet"
    manifest = published.manifest or {}
    return {
        "pipeline": planned.pipeline.name,
        "steps": [
            *_steps(planned),
            {"step": "publish", "state": "done" if is_done else "to do", "why": reason,
             "key": planned.task.keys["score"], "made": here},
        ],
        "scores": {view: manifest["scores"][view] for view in planned.pipeline.evaluate.views} if manifest else None,
        "split": planned.pipeline.evaluate.split,
        "published": here if published.is_whole else None,
        "latest": f"{to}/{LATEST}" if published.is_latest else None,
        "index": manifest.get("index"),
        "store": str(planned.store.root),
    }  # fmt: skip


def _steps(planned: _Planned) -> list[dict[str, Any]]:
    store, task = planned.store, planned.task
    before = json.loads(planned.record.read_text(encoding="utf-8")) if planned.record.is_file() else {}
    steps = []
    for kind, key in task.keys.items():
        step, reason = Step(kind, key), ""
        done = store.done(step)
        state = "done" if done else "to do" if kind in task.to_do else "not needed"
        if state == "to do":
            reason = why(step, task.steps.facts[kind], before.get(kind), store, task.cell.config)
        elif done:
            reason = f"took {done.seconds:,.1f} s"
        steps.append(
            {
                "step": _COMMANDS.get(kind, kind),
                "state": state,
                "why": reason,
                "key": key,
                "made": str(store.folder(step)),
            }
        )
    return steps


def _publish(planned: _Planned) -> None:
    """Publish what the steps have made."""
    keys, store, settings = planned.task.keys, planned.store, planned.pipeline.publish
    if planned.published.is_whole:
        publish(settings.to, planned.version, {"key": keys["score"]}, {})
        return
    folders = {kind: store.folder(Step(kind, key)) for kind, key in keys.items()}
    model, pages = folders.get("calibrate", folders["train"]) / "model", list(folders["score"].glob("*.html"))
    pages += folders["calibrate"].glob("*.html") if "calibrate" in folders else []
    files = {**_files(model, "model"), **{f"pages/{page.name}": page for page in pages}}
    index = placed(planned.task, store).index if planned.task.cell.contexts == "index" else None
    link = None
    if index is not None and not index.source:
        link = index.folder.absolute()
        if settings.copy_index:
            files, link = {**files, **_files(link, "index")}, None
    logger.info("publishing %s/%s", settings.to.rstrip("/"), planned.version)
    publish(settings.to, planned.version, _manifest(planned, index), files, None if is_uri(settings.to) else link)


def _files(folder: Path, name: str) -> dict[str, Path]:
    return {
        f"{name}/{path.relative_to(folder).as_posix()}": path
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def _manifest(planned: _Planned, index: Any) -> Mapping[str, Any]:
    """What a published version says of itself."""
    from ctxner.retrieval.index.fetch import index_manifest
    from jobs.experiment.driver import result_of

    result = result_of(planned.pipeline.name, planned.task, planned.store)
    reference = None
    if index is not None:
        facts = asdict(index_manifest(index.folder, index.source))
        names = ("version", "corpus_sha256", "num_documents", "language")
        reference = {"folder": str(index.folder), "source": index.source, **{name: facts[name] for name in names}}
    return {
        "pipeline": planned.pipeline.name,
        "version": planned.version,
        "key": result.key,
        "settings": digest(settings_of(planned.task.cell)),
        "split": result.split,
        "scores": {view: Score(*scores.all).to_dict() for view, scores in result.scores.items()},
        "best_epoch": result.best_epoch,
        "index": reference,
        "steps": {kind: facts.model_dump() for kind, facts in result.steps.items()},
    }


def show(result: Mapping[str, Any]) -> None:
    """Print a plan or a result for people."""
    from rich.table import Table

    table = Table("step", "state", "why", box=None, pad_edge=False)
    for step in result["steps"]:
        table.add_row(step["step"], step["state"], step["why"])
    show_table(table)
    rows = {f"{view} view": _in_words(score, result["split"]) for view, score in (result["scores"] or {}).items()}
    published, latest = result["published"], result["latest"]
    if published:
        rows |= {"published": published, "page": f"{published}/pages/evaluation-{result['split']}.html"}
    rows["steps in"] = result["store"]
    if "seconds" in result:
        rows["seconds"] = f"{result['seconds']:,.1f}"
    commands = {}
    if latest and not is_uri(latest):
        commands["serve it"] = f"ctxner serve --model {latest}/model" + (
            f" --index {latest}/index" if result["index"] else ""
        )
    show_result({**rows, "next": commands})


def _in_words(score: Mapping[str, Any], split: str) -> str:
    f1, precision, recall = (score_percent(score, name) for name in ("f1", "precision", "recall"))
    return f"F1 {f1} on {split} (precision {precision}, recall {recall})"
