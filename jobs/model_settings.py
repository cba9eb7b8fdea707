"""Settings that a trained model brings along, so that later commands find its data, contexts and index by the model."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctxner.config import Config, load_config, parse_config
from ctxner.files.storage import exists, read_bytes
from ctxner.files.uris import path_or_uri

logger = logging.getLogger(__name__)

_MAX_BYTES = 1 << 26  # of training.json


def settings_for(model: str, path: Path | None, overrides: Sequence[str]) -> Config:
    """The config of a command that uses a model.

    Args:
        model: Model folder, or a hub id, which brings no settings.
        path: Config file; with one, the model's settings are not looked at.
        overrides: `section.key=value`.

    Raises:
        ValueError: See `load_config`.
    """
    return load_config(path, overrides, saved=None if path else _saved(path_or_uri(model)))


def renew_contexts(config: Config, model: str, split: str, path: Path | None) -> None:
    """Retrieve a split's passages again when they lie in the model's run and do not fit the split.

    Args:
        config: Settings of the command.
        model: Model folder or hub id.
        split: Split to evaluate.
        path: Config file of the command; with one, nothing is retrieved.
    """
    folder = config.data.contexts
    if path is None and folder is not None and folder.parent.resolve() == path_or_uri(model).resolve().parent:
        from jobs import run_contexts

        config.data.path(split)
        run_contexts.renew(config, run_contexts.to_retrieve(config, [split]))


def _saved(model: Path) -> dict[str, Any]:
    """The sections data, index and retrieval of the model's run; empty if it has none or they are not readable."""
    path = model / "training.json"
    try:
        text = read_bytes(path, _MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    try:
        tree = json.loads(text)["config"]
        config = parse_config({name: tree[name] for name in ("data", "index", "retrieval")}, source=str(path))
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("%s: its settings are not used (%s); give --config", path, error)
        return {}
    from jobs.run_contexts import contexts_in

    moved = contexts_in(model.resolve().parent)
    data = config.data.model_dump(mode="json")
    if config.data.contexts is not None and not exists(config.data.contexts) and exists(moved):
        data["contexts"] = str(moved)  # the run's folder has another place now
    logger.info("data, index and settings of retrieval are those of %s", path)
    index = config.index.model_dump(mode="json")
    return {"data": data, "index": index, "retrieval": config.retrieval.results_settings()}
