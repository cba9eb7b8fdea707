"""Why a step of a pipeline is to do: which of its inputs has changed since the pipeline's last whole run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ctxner.config import Config
from jobs.experiment.keys import StepKind
from jobs.experiment.store import Step, Store

_STEPS = {"index": "the index", "contexts": "the passages", "train": "the model", "calibrate": "the calibration"}
_MOST = 4  # changes that are named
Path = tuple[Any, ...]


def why(step: Step, facts: Mapping[str, Any], before: Mapping[str, Any] | None, store: Store, config: Config) -> str:
    """Why a step is to do, in words.

    Args:
        step: The step.
        facts: All that it depends on now.
        before: The same at the pipeline's last whole run; None without one.
        store: Where steps are kept.
        config: The pipeline's settings, for the names of files.
    """
    if store.is_running(step):
        return "is running now"
    if failure := store.failure(step):
        return f"failed: {failure.splitlines()[0]}"
    if store.attempts(step):
        return "its result is damaged or gone" if store.was_done(step) else "was stopped before its end"
    if before is None:
        return "not done yet"
    changes = list(dict.fromkeys(_changes(step.kind, before, json.loads(json.dumps(facts, default=str)), config)))
    changes.sort(key=lambda change: change.removesuffix(" changed") in _STEPS.values())  # files and settings first
    if not changes:
        return "its result is gone"
    more = f" and {len(changes) - _MOST} more" if len(changes) > _MOST else ""
    return ", ".join(changes[:_MOST]) + more


def _changes(kind: StepKind, before: Mapping[str, Any], now: Mapping[str, Any], config: Config) -> Iterator[str]:
    names = _names(kind, config)
    for path, old, new in _differences(before, now):
        name = next((names[path[:end]] for end in range(len(path), 0, -1) if path[:end] in names), None)
        if name is not None:
            yield f"{name} changed"
            continue
        setting = ".".join(map(str, path))
        if path[0] == "columns":
            setting = f"data.{setting.partition('.')[2]}"
        elif kind == "index" and path[0] not in ("layout", "code"):
            setting = f"index.{setting}"
        yield f"{setting}: {json.dumps(old, ensure_ascii=False)} -> {json.dumps(new, ensure_ascii=False)}"


def _names(kind: StepKind, config: Config) -> dict[Path, str]:
    """What a place in a step's facts is called: a file, or the result of a step before."""
    data, index = config.data, config.index
    names: dict[Path, str] = {(step,): name for step, name in _STEPS.items() if step != kind}
    names |= {("splits", split): str(data.path(split)) for split in data.named_splits()}
    names |= {("corpus", number): str(path) for number, path in enumerate(index.corpus)}
    names |= {("also", number): str(further.train) for number, further in enumerate(data.also)}
    names |= {("unlabelled",): str(data.unlabelled), ("start",): "the encoder", ("models",): "a model of retrieval"}
    return {**names, ("corpus",): "index.corpus"}


def _differences(before: Any, now: Any, path: Path = ()) -> Iterator[tuple[Path, Any, Any]]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys((*before, *now)):
            yield from _differences(before.get(name), now.get(name), (*path, name))
    elif _are_lists(before, now) and len(before) == len(now):
        for number, pair in enumerate(zip(before, now, strict=True)):
            yield from _differences(*pair, (*path, number))
    elif before != now:
        yield path, before, now


def _are_lists(*values: Any) -> bool:
    return all(isinstance(value, Sequence) and not isinstance(value, str) for value in values)
