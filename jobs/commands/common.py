"""What all commands do with options and results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctxner.config import Config, load_config
from jobs import console as terminal
from jobs.model_settings import settings_for


def with_given(config: Config, section: str, given: dict[str, Any]) -> Config:
    """The config, with the given options instead of the section's values."""
    chosen = {name: value for name, value in given.items() if value is not None}
    changed = getattr(config, section).model_copy(update=chosen)
    return config.model_copy(update={section: changed})


def of_run(model: str | None, config: Path | None, overrides: list[str]) -> Config:
    """The config file, or without one the settings that a model brings along."""
    return settings_for(model, config, overrides) if model else load_config(config, overrides)


def finish(
    job: Callable[[], dict[str, Any]],
    json: bool,
    show: Callable[[dict[str, Any]], None] = terminal.show,
    *,
    summary: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Run a job, keep stdout for its result, and print the result; then, on stderr, its `warning`.

    Args:
        job: Returns the result.
        json: Whether to print the whole result as JSON.
        show: Prints the result for people.
        summary: Makes of the result what `show` prints; None: the result as it is.
    """
    with terminal.results() as write:
        result = job()
        if json:
            write(terminal.as_json(result))
    warning = result.get("warning")
    if not json:
        shown = {key: value for key, value in result.items() if key != "warning"}
        show(summary(shown) if summary else shown)
    if warning:
        terminal.warn(warning)
    return result
