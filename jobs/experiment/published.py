"""Published figures beside ours, from `jobs/studies/published.yaml`: each with its source, none from memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ctxner.config.text import explain, read_yaml
from ctxner.schema import ViewName
from jobs.experiment.study import STUDIES

PUBLISHED = STUDIES / "published.yaml"


class Published(BaseModel):
    """A published figure and the cell of a study that it belongs to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    cell: dict[str, str]  # coordinates on the study's axes, without the axis that is averaged over
    view: ViewName | None = None  # None: the source does not say
    metric: Literal["precision", "recall", "f1"] = "f1"
    value: Annotated[float, Field(ge=0, le=100)]  # percent
    source: str


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    figures: tuple[Published, ...]


def read_published(path: Path = PUBLISHED) -> tuple[Published, ...]:
    """All published figures; none without the file.

    Raises:
        ValueError: The file is not as it should be; the error names each place.
    """
    if not path.is_file():
        return ()
    try:
        return _File.model_validate(read_yaml(path)).figures
    except ValidationError as error:
        raise ValueError(explain(error, _File, str(path))) from None
