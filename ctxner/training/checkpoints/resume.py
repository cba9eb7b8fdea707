"""Checks that a run continues under the settings and with the files that it was started with.

The settings are in the run's `config.json`, the files' hashes in each checkpoint's `training.json`. The run's
progress is in its checkpoints (`ctxner.training.checkpoints.files`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctxner.config import Config, Section, parse_config
from ctxner.files.atomic import write_text
from ctxner.files.storage import names_in, read_bytes, write_bytes
from ctxner.files.uris import is_uri
from ctxner.training.build import start_path
from ctxner.training.checkpoints.files import MODEL_FOLDER
from ctxner.training.checkpoints.recovery import LOCK_FILE, RECORD_FILE
from ctxner.training.export.provenance import PROVENANCE_FILE, file_hashes, start_hashes

CONFIG_FILE = "config.json"
_MAX_BYTES = 1 << 26  # of a JSON file of a run
_SHOWN = 10  # largest number of changed files that an error names
CONTEXTS_FOLDER = "contexts"  # in a run's folder: the passages that `ctxner train` has retrieved for it
UNREAD_SECTIONS = {"index", "retrieval"}  # training reads contexts that exist already


class OtherRunError(ValueError):
    """A run cannot go on: it was started with other settings or files."""


def run_folder(config: Config) -> Path:
    """Folder of a run; without `run.name` a new one at each call."""
    name = config.run.name or f"{config.loss.mode}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    return config.run.storage.resolve() / name


def is_started(folder: Path) -> bool:
    """Whether a run's folder holds more than a lock and passages that were retrieved for it."""
    return any(name not in (LOCK_FILE, CONTEXTS_FOLDER) for name in names_in(folder))


def refuse_started(folder: Path) -> None:
    """Raise ValueError if a run has started in the folder."""
    if is_started(folder):
        raise ValueError(
            f"{folder}: a run of this name exists; choose another --name, or --set run.resume=true to go on with it"
        )


def check_resumable(saved: Config, given: Config, *, source: str) -> None:
    """Refuse to continue a run under settings that would change its results.

    Two kinds of settings may differ: those that training does not read (`index`, `retrieval`, `data.test`), and those
    that only decide where it runs, on how many workers, in how much memory and how safely (`Runtime` settings of the
    config). All others must be equal. Two of these look harmless but are not:

    - `optim.epochs`: the learning rates fall to zero over all epochs; more would raise them again, fewer cut them off.
    - `run.gpus`: the other kind of device rounds differently.

    Args:
        saved: Settings that the run was started with.
        given: Settings to continue with.
        source: Location of `saved`, for the error.

    Raises:
        OtherRunError: Settings differ that must be equal; the error names each with both values.
    """
    before, now = _settings(saved), _settings(given)
    differing = [key for key in now if now[key] != before[key]]
    if differing:
        lines = [f"  {key}: the run has {before[key]!r}, given is {now[key]!r}" for key in differing]
        raise OtherRunError(
            f"{source}: run.resume=true, but the run was started with other settings:\n"
            + "\n".join(lines)
            + "\nset them as they were, or choose another --name to train anew"
        )


def input_hashes(config: Config) -> dict[str, dict[str, str]]:
    """SHA-256 of every file that a run's model depends on, by the setting that names it and the file's name.

    The files are those of data and contexts, and of the encoder or warm start if it is a local folder.

    Raises:
        OSError: A file cannot be read.
    """
    data, warm_start = config.data, config.model.warm_start
    paths = {"data.train": data.path("train"), "data.dev": data.path("dev"), "data.unlabelled": data.unlabelled}
    paths |= {f"data.contexts ({split})": data.contexts_path(split) for split in ("train", "dev")}
    for number, further in enumerate(data.also):
        paths |= {f"data.also[{number}].{name}": getattr(further, name) for name in ("train", "contexts")}
    hashes = {setting: file_hashes(path) for setting, path in paths.items() if path is not None}
    return {**hashes, f"model.{'warm_start' if warm_start else 'encoder'}": start_hashes(start_path(config))}


def check_inputs(folder: Path, config: Config) -> None:
    """Refuse to continue from a run's last checkpoint when a file that the model depends on is not what it was.

    Files of a hub id are not compared. Checkpoints of earlier versions know the files of train and dev only.

    Args:
        folder: Folder of the run; without a checkpoint nothing is refused.
        config: Settings to continue with.

    Raises:
        OtherRunError: A file has changed, is missing or is new; the error names each.
        ValueError: The checkpoint does not tell which files were trained on.
        OSError: A file cannot be read.
    """
    checkpoints = [name for name in names_in(folder) if name.startswith("checkpoint_") and name != RECORD_FILE]
    if not checkpoints:
        return
    path = folder / checkpoints[-1] / MODEL_FOLDER / PROVENANCE_FILE
    try:
        tree = json.loads(read_bytes(path, _MAX_BYTES))
        before = tree["inputs"] if "inputs" in tree else _inputs_of_splits(tree["data"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: cannot tell which files were trained on ({error!r}); choose another --name"
        ) from None
    now = input_hashes(config)
    lines = [line for setting in before for line in _differences(setting, before[setting], now.get(setting, {}))]
    if lines:
        more = [f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        raise OtherRunError(
            f"{folder}: run.resume=true, but files are not those that the run was started with:\n"
            + "\n".join([*lines[:_SHOWN], *more])
            + "\nrestore them, or choose another --name to train anew"
        )


def _inputs_of_splits(splits: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    files = {f"data.{split}": facts["files"] for split, facts in splits.items()}
    return files | {f"data.contexts ({split})": facts.get("contexts", {}) for split, facts in splits.items()}


def _differences(setting: str, before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    states = {name: "is missing" if name not in now else "has changed" for name in before}
    states |= {name: "is new" for name in now if name not in before}
    return [f"  {setting}: {name} {state}" for name, state in states.items() if before.get(name) != now.get(name)]


def absolute_paths(config: Config) -> Config:
    """The config with absolute paths of all inputs: workers, and perhaps a resumed run, have another directory.

    So does the index's folder if it is set; training does not read it, but commands that use the model do.
    """
    data, model, index = _absolute(config.data), config.model, config.index
    if "folder" in index.model_fields_set:
        index = index.model_copy(update={"folder": index.folder.absolute()})
    also = tuple(further.model_copy(update=_absolute(further)) for further in config.data.also)
    starts = {
        name: str(Path(path).resolve())
        for name in ("encoder", "warm_start")
        if _is_folder(path := getattr(model, name))
    }
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={**data, "also": also}),
            "model": model.model_copy(update=starts),
            "index": index,
        }
    )


def _absolute(section: Section) -> dict[str, Path]:
    paths = {name: path for name, path in section if isinstance(path, Path)}
    return {
        name: path.resolve() for name, path in paths.items() if path.parts[:1] != ("~",)
    }  # `~` differs between nodes


def _is_folder(path: str | None) -> bool:
    return path is not None and Path(path).is_dir()


def write_config(config: Config, folder: Path) -> None:
    """Write `config.json`, with absolute paths, into a run's folder; creates the folder if it is absent."""
    text = absolute_paths(config).model_dump_json(indent=1)
    if is_uri(folder):
        write_bytes(folder / CONFIG_FILE, text.encode())
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / CONFIG_FILE, text)


def read_config(folder: Path) -> Config:
    """Read `config.json` of a run's folder.

    Raises:
        ValueError: The file is missing, damaged or of another version.
    """
    path = folder / CONFIG_FILE
    try:
        return parse_config(json.loads(read_bytes(path, _MAX_BYTES)), source=str(path))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot tell what to resume ({error}); choose another --name") from None


def _settings(config: Config) -> dict[str, Any]:
    """Settings that a trained model depends on, as `section.key` -> value."""
    sections = {name: section for name, section in absolute_paths(config) if name not in UNREAD_SECTIONS}
    return {
        f"{name}.{key}": value
        for name, section in sections.items()
        for key, value in section.results_settings().items()
    }
