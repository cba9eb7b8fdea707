"""What a study is: a YAML with a base config, a grid of named values and comparisons; and the cells that it gives.

A cell is a valid `Config` with coordinates. Nothing here reads data, runs anything or imports Ray or torch; keys are in
`jobs.experiment.keys`, the steps of a cell in `jobs.experiment.steps`.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from ctxner.config import Config, parse_config
from ctxner.config.text import override, read_yaml
from ctxner.schema import VIEWS, ViewName
from jobs.yaml_files import Part, find_file, read_file

CONFIGS = Path(__file__).parents[1] / "configs"
STUDIES = Path(__file__).parents[1] / "studies"
SHORT_AXES = {  # axes whose values may be listed: each value is that setting's
    "mode": "loss.mode",
    "seed": "run.seed",
    "encoder": "model.encoder",
    "preset": "loss.preset",
    "kl": "loss.kl",
    "temperature": "loss.temperature",
    "query": "retrieval.query",
    "rerank": "retrieval.rerank",
    "passages": "model.max_passages",
    "pieces": "model.max_pieces",
    "sentences": "data.train_sentences",
}
ContextsFrom = Literal["index", "data", "shuffled", "random", "files", "none"]
_MOST_CELLS = 2000
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
Names = Annotated[tuple[str, ...], Field(min_length=1)]


class Side(Part):
    """Cells and the view to compare; axes that are not named are those of the other side."""

    cell: dict[str, str] = Field(default_factory=dict)
    view: ViewName = "plain"

    @field_validator("cell", mode="before")
    @classmethod
    def _names(cls, cell: Any) -> Any:
        return {name: value_name(value) for name, value in cell.items()} if isinstance(cell, dict) else cell


class CalibrateStep(Part):
    """Calibration of a cell's model before it is scored; one of share, f1 and gain, as of `ctxner calibrate`."""

    split: Literal["train", "dev", "test"] = "dev"  # not the one that is scored
    share: Annotated[float, Field(ge=0, le=1)] | None = None
    f1: Annotated[float, Field(ge=0, le=1)] | None = None
    gain: Annotated[float, Field(ge=0, le=1)] | None = None

    @model_validator(mode="after")
    def _one_target(self) -> CalibrateStep:
        if sum(value is not None for value in (self.share, self.f1, self.gain)) != 1:
            raise ValueError("wanted one of share, f1 and gain, for example share: 0.5")
        return self


class Comparison(Part):
    """Two systems whose outputs are paired, for every value of the axes that neither side names."""

    title: str
    first: Side
    second: Side


class Study(Part):
    """A study as its YAML says it."""

    name: str
    title: str = ""
    base: str  # name of a file in jobs/configs without `.yaml`, or a path relative to the working directory
    set: dict[str, Any] = Field(default_factory=dict)  # settings of all cells over the base, `section.key: value`
    # Axes in order. A value has a name and its settings, `section.key: value`. An axis of SHORT_AXES, or one named
    # `section.key`, may be a list of values. Three more keys than those of the config:
    #   base        another base config
    #   contexts    index: retrieved; data: retrieved from the training sentences; shuffled: each sentence gets those
    #               retrieved for another; random: training sentences at random; files: data.contexts as it is; none
    #   unlabelled  rest: the training sentences after data.train_sentences, without their tags
    grid: dict[str, dict[str, dict[str, Any]]]
    exclude: tuple[dict[str, Names], ...] = ()  # a cell is left out when every axis named here has one of the values
    over: str = "seed"  # axis over which means and spreads are taken
    split: Literal["train", "dev", "test"] = "test"
    views: tuple[ViewName, ...] = VIEWS
    metrics: tuple[Literal["precision", "recall", "f1"], ...] = ("f1",)
    calibrate: CalibrateStep | None = None  # each model, before it is scored: its page then shows the view `auto` too
    comparisons: tuple[Comparison, ...] = ()
    code: str | None = None  # part of every key when set: a new value runs all cells anew, e.g. after a change of code
    parallel: Annotated[int, Field(gt=0)] | None = None  # steps side by side at most; None: as resources allow

    @field_validator("grid", mode="before")
    @classmethod
    def _listed_axes(cls, grid: Any) -> Any:
        if not isinstance(grid, dict) or not grid:
            raise ValueError("wanted axes with values, for example `seed: [0, 1, 2]`")
        return {axis: _values(axis, values) for axis, values in grid.items()}

    @field_validator("exclude", mode="before")
    @classmethod
    def _named_values(cls, exclude: Any) -> Any:
        if not isinstance(exclude, list) or not all(isinstance(rule, dict) for rule in exclude):
            return exclude
        return [
            {axis: [value_name(value) for value in (values if isinstance(values, list) else [values])]
             for axis, values in rule.items()}
            for rule in exclude
        ]  # fmt: skip

    @model_validator(mode="after")
    def _names_exist(self) -> Study:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r}: wanted small letters, digits and hyphens")
        for place, rule in enumerate(self.exclude):
            self._check(f"exclude.{place}", rule)
        for place, comparison in enumerate(self.comparisons):
            for which in ("first", "second"):
                side: Side = getattr(comparison, which)
                cell = {axis: (value,) for axis, value in side.cell.items()}
                self._check(f"comparisons.{place}.{which}.cell", cell)
                if side.view not in self.views:
                    raise ValueError(f"comparisons.{place}.{which}: view {side.view!r} is not among the study's views")
        return self

    def _check(self, where: str, rule: Mapping[str, Sequence[str]]) -> None:
        for axis, values in rule.items():
            if axis not in self.grid:
                raise ValueError(f"{where}: unknown axis {axis!r}; the grid has {', '.join(self.grid)}")
            for value in values:
                if value not in self.grid[axis]:
                    known = ", ".join(self.grid[axis])
                    raise ValueError(f"{where}: axis {axis!r} has no value {value!r}; it has {known}")


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a study.

    Attributes:
        coordinates: Name of the cell's value on each axis, in the grid's order.
        config: Settings, with the paths of the base config.
        contexts: Where the passages come from.
        unlabelled: `rest` when the training sentences that are not labelled are trained on too.
        calibrate: How the model is calibrated before it is scored; None: not at all.
    """

    coordinates: dict[str, str]
    config: Config
    contexts: ContextsFrom
    unlabelled: Literal["rest"] | None = None
    calibrate: CalibrateStep | None = None

    @property
    def slug(self) -> str:
        """The coordinates as a file name without suffix."""
        return slug_of(self.coordinates)


def slug_of(coordinates: Mapping[str, str]) -> str:
    """Coordinates as a file name without suffix, such as `mode-cl-kl_seed-0`."""
    return "_".join(re.sub(r"[^A-Za-z0-9.+-]+", "-", f"{axis}-{value}") for axis, value in coordinates.items())


def value_name(value: Any) -> str:
    """Name of a listed value: as YAML writes it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def find_study(name: str) -> Path:
    """The file of a study given by path, or by name among those of the project.

    Raises:
        ValueError: There is none.
    """
    return find_file(name, STUDIES, "study", apart=("published",))


def read_study(path: Path) -> Study:
    """A study from its file; its name is the file's unless it says another.

    Raises:
        ValueError: The file is no study; the error names each place with its line.
    """
    return read_file(path, Study)


def cells(study: Study, overrides: Sequence[str] = ()) -> list[Cell]:
    """The cells of a study, last axis fastest; all of the first value of `over` come before those of the second.

    Args:
        study: Study.
        overrides: `section.key=value` over all else.

    Raises:
        ValueError: A cell's settings are not valid, two cells have one file name, or there are none or too many.
    """
    number = 1
    for values in study.grid.values():
        number *= len(values)
    if number > _MOST_CELLS:
        raise ValueError(f"study {study.name}: {number:,} cells; wanted {_MOST_CELLS:,} at most")
    order = list(study.grid.get(study.over, ()))
    listed = sorted(_coordinates(study), key=lambda cell: order.index(cell[study.over]) if order else 0)
    made = [_cell(study, coordinates, overrides) for coordinates in listed]
    if not made:
        raise ValueError(f"study {study.name}: `exclude` leaves no cell")
    slugs = [cell.slug for cell in made]
    if repeated := {slug for slug in slugs if slugs.count(slug) > 1}:
        raise ValueError(f"study {study.name}: cells share the file name {min(repeated)!r}; rename values of the grid")
    return made


def _coordinates(study: Study) -> Iterator[dict[str, str]]:
    for names in itertools.product(*study.grid.values()):
        cell = dict(zip(study.grid, names, strict=True))
        if not any(all(cell[axis] in values for axis, values in rule.items()) for rule in study.exclude):
            yield cell


def _cell(study: Study, coordinates: dict[str, str], overrides: Sequence[str]) -> Cell:
    chosen = [study.set, *(study.grid[axis][value] for axis, value in coordinates.items())]
    settings = {key: value for values in chosen for key, value in values.items()}
    where = f"study {study.name}, cell {','.join(f'{axis}={value}' for axis, value in coordinates.items())}"
    tree = copy.deepcopy(read_yaml(base_path(settings.pop("base", study.base))))
    contexts, unlabelled = settings.pop("contexts", None), settings.pop("unlabelled", None)
    for key, value in settings.items():
        put_setting(tree, key, value, where)
    for item in overrides:
        override(tree, item)
    config = parse_config(tree, source=where)
    contexts = usual_contexts(config) if contexts is None else contexts
    if contexts not in get_args(ContextsFrom):
        raise ValueError(f"{where}: contexts: found {contexts!r}, wanted one of {', '.join(get_args(ContextsFrom))}")
    if unlabelled not in (None, "rest"):
        raise ValueError(f"{where}: unlabelled: found {unlabelled!r}, wanted rest, or leave it out")
    if unlabelled and (not config.data.train_sentences or not config.loss.mode.startswith("cl-")):
        raise ValueError(f"{where}: unlabelled: rest needs data.train_sentences, and loss.mode cl-kl or cl-l2")
    return Cell(coordinates, config, contexts, unlabelled, study.calibrate)


def usual_contexts(config: Config) -> ContextsFrom:
    """Where passages come from when that is not said: the index, the contexts that there are, or nowhere."""
    if config.index.corpus or config.index.source or "folder" in config.index.model_fields_set:
        return "index"
    return "files" if config.data.contexts else "none"


def base_path(base: str) -> Path:
    """File of a base config: a name in jobs/configs, or a path."""
    path = Path(base)
    packaged = CONFIGS / f"{base}.yaml"
    return path if path.is_file() or path.suffix or not packaged.is_file() else packaged


def put_setting(tree: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Put `section.key` into the tree of a config.

    Raises:
        ValueError: The key has another form.
    """
    *sections, last = key.split(".")
    if len(sections) != 1 or not last:
        raise ValueError(f"{where}: {key!r}: wanted section.key, or one of base, contexts and unlabelled")
    section = tree.setdefault(sections[0], {})
    if section is None:
        section = tree[sections[0]] = {}
    section[last] = copy.deepcopy(value)


def _values(axis: str, values: Any) -> Any:
    if isinstance(values, dict):
        return {value_name(name): {} if value is None else value for name, value in values.items()}
    if not isinstance(values, list) or not values:
        raise ValueError(f"axis {axis!r}: found {values!r}, wanted a list of values, or names with their settings")
    key = SHORT_AXES.get(axis, axis if "." in axis else None)
    if key is None:
        raise ValueError(
            f"axis {axis!r}: a list is for the axes {', '.join(SHORT_AXES)} and for settings such as loss.temperature; "
            "give each value a name and its settings"
        )
    return {value_name(value): {key: value} for value in values}
