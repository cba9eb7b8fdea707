"""Files that people write beside configs: studies, pipelines, what `ctxner cost` counts with. Found, read and checked.

Each is a tree of `Part`, which is defined beside what it is for; configs are in `ctxner.config`.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ctxner.config.text import explain, read_yaml


class Part(BaseModel):
    """A part of such a file; frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_File = TypeVar("_File", bound=Part)


def find_file(name: str, folder: Path, what: str, *, apart: Collection[str] = ()) -> Path:
    """A file given by path, or by its name without `.yaml` among those of the project.

    Args:
        name: Path or name.
        folder: Folder of the project's own files.
        what: What the file is, for the error.
        apart: Names in the folder that are something else.

    Raises:
        ValueError: There is none.
    """
    if Path(name).is_file():
        return Path(name)
    names = sorted({path.stem for path in folder.glob("*.yaml")} - {*apart})
    if name not in names:
        raise ValueError(f"{name}: no such {what}; give a YAML file, or one of {', '.join(names)}")
    return folder / f"{name}.yaml"


def read_file(path: Path, kind: type[_File]) -> _File:
    """The checked content of a file; where it may have a name, that is the file's unless it says another.

    Raises:
        ValueError: The file is none of this kind; the error names each place with its line.
    """
    tree = read_yaml(path)
    try:
        return kind.model_validate({"name": path.stem, **tree} if "name" in kind.model_fields else tree)
    except ValidationError as error:
        raise ValueError(explain(error, kind, str(path), file=path)) from None
