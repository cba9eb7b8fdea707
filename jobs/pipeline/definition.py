"""What a pipeline is: a YAML with a corpus, data files, the settings of training, and where the model is published.

Its steps, keys and store are those of a study with one cell (`jobs.experiment`); `jobs.pipeline.publish` is its own.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ctxner.config import parse_config
from ctxner.config.text import override, place_in, read_yaml
from ctxner.schema import VIEWS, ViewName
from jobs.experiment.study import CalibrateStep, Cell, base_path, put_setting, usual_contexts
from jobs.yaml_files import Part, find_file, read_file

PIPELINES = Path(__file__).parents[1] / "pipelines"
LATEST = "latest"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def _name(text: str) -> str:
    if not _NAME.fullmatch(text) or text == LATEST:
        raise ValueError(f"wanted letters, digits, '.', '_' and '-', and not {LATEST!r}")
    return text


Name = Annotated[str, AfterValidator(_name), BeforeValidator(lambda name: str(name) if type(name) is int else name)]


class Data(Part):
    """A file, folder or pattern of tagged sentences for each split."""

    train: str
    dev: str
    test: str | None = None


class TrainStep(Part):
    """The settings of all steps."""

    base: str | None = None  # name of a file in jobs/configs without `.yaml`, or a path; None: the defaults
    set: dict[str, Any] = Field(default_factory=dict)  # settings over the base, `section.key: value`


class EvaluateStep(Part):
    """What is scored."""

    split: Literal["train", "dev", "test"] = "test"
    views: Annotated[tuple[ViewName, ...], Field(min_length=1)] = VIEWS  # whose scores are published


class PublishStep(Part):
    """Where the model goes; `jobs.pipeline.publish` has the layout."""

    to: Annotated[str, Field(min_length=1)]  # folder of all versions, or a URI that fsspec knows
    version: Name | None = None  # None: the key of all that the version depends on
    copy_index: bool = False  # copy the index too; otherwise a version refers to the index in the store


class Pipeline(Part):
    """A pipeline as its YAML says it."""

    name: Name
    corpus: Annotated[
        tuple[str, ...], BeforeValidator(lambda corpus: [corpus] if isinstance(corpus, str) else corpus)
    ] = ()  # none: the index of the settings, or no passages
    data: Data
    train: TrainStep = TrainStep()
    calibrate: CalibrateStep | None = CalibrateStep(share=0.5)  # null: not calibrated, and no view `auto`
    evaluate: EvaluateStep = EvaluateStep()
    publish: PublishStep
    code: Name | None = None  # part of every key when set: a new value runs all steps anew, e.g. after a change of code


def find_pipeline(name: str) -> Path:
    """The file of a pipeline given by path, or by name among those of the project.

    Raises:
        ValueError: There is none.
    """
    return find_file(name, PIPELINES, "pipeline")


def is_pipeline(name: str) -> bool:
    """Whether a path or a name is that of a pipeline and not of a study."""
    path = Path(name)
    if path.is_file():
        return "publish" in read_yaml(path)
    return path.name == name and (PIPELINES / f"{name}.yaml").is_file()


def read_pipeline(path: Path) -> Pipeline:
    """A pipeline from its file; its name is the file's unless it says another.

    Raises:
        ValueError: The file is no pipeline; the error names each place with its line.
    """
    return read_file(path, Pipeline)


def cell_of(pipeline: Pipeline, path: Path, overrides: Sequence[str] = ()) -> Cell:
    """The pipeline as the only cell of a study.

    Args:
        pipeline: Pipeline.
        path: Its file, for errors.
        overrides: `section.key=value` over all else.

    Raises:
        ValueError: The settings are not valid, or the evaluated split has no file.
    """
    tree = copy.deepcopy(read_yaml(base_path(pipeline.train.base))) if pipeline.train.base else {}
    for key, value in pipeline.train.set.items():
        put_setting(tree, key, value, place_in(path, ("train", "set", key)))
    for split, file in pipeline.data.model_dump(exclude_none=True).items():
        put_setting(tree, f"data.{split}", file, str(path))
    if pipeline.corpus:
        put_setting(tree, "index.corpus", list(pipeline.corpus), str(path))
    for item in overrides:
        override(tree, item)
    config, split = parse_config(tree, source=str(path)), pipeline.evaluate.split
    if getattr(config.data, split) is None:
        where = place_in(path, ("evaluate", "split"))
        raise ValueError(f"{where}: evaluate.split: {split} has no file; add data.{split}: FILE, or evaluate another")
    cell = Cell({"pipeline": pipeline.name}, config, usual_contexts(config), calibrate=pipeline.calibrate)
    if cell.contexts == "none" and "context" in pipeline.evaluate.views:
        where = place_in(path, ("evaluate", "views"))
        raise ValueError(f"{where}: evaluate.views: no passages for the view context; give corpus, or views: [plain]")
    return cell
