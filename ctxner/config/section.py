"""What the sections of the config share: their base class, and the mark on settings that change no result.

A `Runtime` setting is no part of the keys by which finished work is recognised, in `jobs.experiment.keys` and
`ctxner.batch`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, WrapValidator

from ctxner.files.uris import UriPath, path_or_uri

RUNTIME = "runtime"
T = TypeVar("T")
Runtime = Annotated[T, RUNTIME]  # changes where, how fast or how safely work is done, but not its result


def _place(value: Any, checked: Callable[[Any], Path]) -> Path:
    place = path_or_uri(value) if isinstance(value, str | UriPath) else value
    if isinstance(place, UriPath):
        return place
    return checked(str(place) if isinstance(value, str) else place)  # JSON has no paths


Place = Annotated[Path, WrapValidator(_place)]  # a path, or a URI of a store (`ctxner.files.storage`)


class Section(BaseModel):
    """A group of settings; frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def results_settings(self) -> dict[str, Any]:
        """The settings that results depend on, as JSON: those that are not `Runtime`."""
        return self.model_dump(mode="json", exclude=self.runtime_settings())

    @classmethod
    def runtime_settings(cls) -> set[str]:
        """Names of the `Runtime` settings."""
        return {name for name, field in cls.model_fields.items() if RUNTIME in field.metadata}
