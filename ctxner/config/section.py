"""What the sections of the config share: their base class, and the mark on settings that change no result.

A `Runtime` setting is no part of the keys by which finished work is recognised, in `jobs.experiment.keys` and
`ctxner.batch`.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict

RUNTIME = "runtime"
T = TypeVar("T")
Runtime = Annotated[T, RUNTIME]  # changes where, how fast or how safely work is done, but not its result


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
