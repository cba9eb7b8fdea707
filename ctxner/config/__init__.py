"""Every setting of every job: frozen sections, unknown keys refused, YAML plus `a.b=c` overrides.

Pipelines, the training worker, jobs and serving take config objects; the code below them takes plain arguments.
Relative paths are relative to the working directory. One module per topic holds the sections; `text` reads what people
write. Other rooms import the sections from here.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from ctxner.config.data import FILES_SPLIT, SPLITS, DataConfig
from ctxner.config.retrieval import IndexConfig, RetrievalConfig, TaggingConfig
from ctxner.config.section import Section
from ctxner.config.text import explain, override, read_yaml
from ctxner.config.training import DEMO_MODES, MODES, LossConfig, ModelConfig, OptimConfig, RunConfig
from ctxner.schema import VIEWS, ViewName

__all__ = [
    "DEMO_MODES",
    "FILES_SPLIT",
    "MODES",
    "SPLITS",
    "Config",
    "DataConfig",
    "IndexConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "RetrievalConfig",
    "RunConfig",
    "Section",
    "TaggingConfig",
    "load_config",
    "parse_config",
]


class Config(Section):
    """All sections; saved beside every model."""

    data: DataConfig = DataConfig()
    index: IndexConfig = IndexConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    tagging: TaggingConfig = TaggingConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _unlabelled_needs_two_views(self) -> Config:
        if self.data.unlabelled is not None and not self.loss.mode.startswith("cl-"):
            raise ValueError(
                f"data.unlabelled: sentences without tags teach only that both views shall agree, and loss.mode="
                f"{self.loss.mode} has one view; --set loss.mode=cl-kl or cl-l2"
            )
        return self

    def trained_views(self) -> tuple[ViewName, ...]:
        """The views that the loss trains; their dev scores choose the checkpoint."""
        if self.loss.mode.startswith("cl-"):
            return VIEWS
        return ("context",) if self.loss.mode == "context" else ("plain",)

    def dev_views(self) -> tuple[ViewName, ...]:
        """The views that are scored on dev after each epoch."""
        return VIEWS if self.run.dev_views == "both" else self.trained_views()

    def digest(self) -> str:
        """Short SHA-256 over every setting."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:12]


def load_config(
    path: Path | None = None, overrides: Sequence[str] = (), *, saved: Mapping[str, Any] | None = None
) -> Config:
    """Defaults, then a YAML file or else saved settings, then overrides.

    Args:
        path: YAML with any of the sections of `Config`; None for defaults only.
        overrides: `section.key=value`; the value is read as YAML, e.g. `null`, `3` or `[a, b]`.
        saved: Sections that a run has saved, used when there is no `path`.

    Raises:
        ValueError: Unreadable or malformed file, unknown key (the valid ones are listed), or a value out of bounds.
    """
    tree = read_yaml(path) if path else copy.deepcopy(dict(saved or {}))
    for item in overrides:
        override(tree, item)
    return parse_config(tree, source=str(path or "--set"))


def parse_config(tree: dict[str, Any], *, source: str = "config") -> Config:
    """A validated config from plain nested dicts (see `load_config`)."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ValueError(explain(error, Config, source)) from None
