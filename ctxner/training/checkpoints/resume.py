"""Checks that a run continues under the settings that it was started with, kept in its folder's `config.json`.

The run's progress is in its checkpoints (`ctxner.training.checkpoints.files`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ctxner.config import Config, Section, parse_config
from ctxner.files.atomic import write_text

CONFIG_FILE = "config.json"
UNREAD_SECTIONS = {"index", "retrieval"}  # training reads contexts that exist already


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
        ValueError: Settings differ that must be equal; the error names each with both values.
    """
    before, now = _settings(saved), _settings(given)
    differing = [key for key in now if now[key] != before[key]]
    if differing:
        lines = [f"  {key}: the run has {before[key]!r}, given is {now[key]!r}" for key in differing]
        raise ValueError(
            f"{source}: run.resume=true, but the run was started with other settings:\n"
            + "\n".join(lines)
            + "\nset them as they were, or choose another run.name to train anew"
        )


def absolute_paths(config: Config) -> Config:
    """The config with absolute paths of all inputs: workers, and perhaps a resumed run, have another directory."""
    data, model = _absolute(config.data), config.model
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
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / CONFIG_FILE, absolute_paths(config).model_dump_json(indent=1))


def read_config(folder: Path) -> Config:
    """Read `config.json` of a run's folder.

    Raises:
        ValueError: The file is missing, damaged or of another version.
    """
    path = folder / CONFIG_FILE
    try:
        return parse_config(json.loads(path.read_text()), source=str(path))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot tell what to resume ({error}); choose another run.name") from None


def _settings(config: Config) -> dict[str, Any]:
    """Settings that a trained model depends on, as `section.key` -> value."""
    sections = {name: section for name, section in absolute_paths(config) if name not in UNREAD_SECTIONS}
    return {
        f"{name}.{key}": value
        for name, section in sections.items()
        for key, value in section.results_settings().items()
    }
