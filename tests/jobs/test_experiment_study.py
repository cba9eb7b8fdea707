"""Studies: what a YAML may say, the cells that it gives, and the studies of the project."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from jobs.experiment.published import PUBLISHED, read_published
from jobs.experiment.study import STUDIES, cells, find_study, read_study
from jobs.experiment.tasks import chosen

PACKAGED = sorted(path.stem for path in STUDIES.glob("*.yaml") if path != PUBLISHED)
GRID = {"mode": ["plain", "cl-kl"], "seed": [0, 1]}


def _study(folder: Path, **changed: object):
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"base": "demo", "grid": GRID, **changed}, sort_keys=False))
    return read_study(path)


def test_a_grid_gives_every_combination_seed_by_seed(tmp_path):
    made = [tuple(cell.coordinates.values()) for cell in cells(_study(tmp_path))]
    assert made == [("plain", "0"), ("cl-kl", "0"), ("plain", "1"), ("cl-kl", "1")]


def test_settings_come_from_base_set_axes_and_options_in_this_order(tmp_path):
    grid = {"size": {"small": {"optim.epochs": 2}, "large": None}, "seed": [7]}
    study = _study(tmp_path, set={"optim.epochs": 9, "optim.clip": 1.0}, grid=grid)
    small, large = (cell.config for cell in cells(study))
    assert (small.optim.epochs, large.optim.epochs) == (2, 9)
    assert (small.optim.clip, small.optim.encoder_lr, small.run.seed) == (1.0, 2e-4, 7)  # the rate is the base's
    assert [cell.config.optim.epochs for cell in cells(study, ["optim.epochs=3"])] == [3, 3]


def test_a_value_may_have_another_base(tmp_path):
    grid = {"data": {"a": None, "b": {"base": "bc5cdr-500"}}}
    a, b = cells(_study(tmp_path, grid=grid, over="data"))
    assert (a.config.data.train_sentences, b.config.data.train_sentences) == (None, 500)


def test_excluded_cells_are_left_out(tmp_path):
    study = _study(tmp_path, exclude=[{"mode": "plain", "seed": [1]}])
    made = [tuple(cell.coordinates.values()) for cell in cells(study)]
    assert made == [("plain", "0"), ("cl-kl", "0"), ("cl-kl", "1")]


def test_cells_are_chosen_by_their_coordinates(tmp_path):
    study = _study(tmp_path, grid={**GRID, "seed": [0, 1, 2]})
    left = chosen(cells(study), study, ["mode=plain", "seed=0", "seed=2"])
    assert [tuple(cell.coordinates.values()) for cell in left] == [("plain", "0"), ("plain", "2")]
    for choice in ("mode", "mode=x", "moda=plain"):
        with pytest.raises(ValueError, match=r"--cell 'mod.*wanted AXIS=VALUE of study mine \(mode: plain, cl-kl"):
            chosen(cells(study), study, [choice])


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({"gird": 1}, "mine.yaml:9: gird: unknown key"),
        ({"grid": {}}, "grid:"),
        ({"grid": {"mood": [1]}}, "axis 'mood'"),
        ({"grid": {"mode": []}}, "axis 'mode'"),
        ({"exclude": [{"mode": "cl"}]}, "exclude.0: axis 'mode' has no value 'cl'; it has plain, cl-kl"),
        ({"exclude": [{"moda": "cl"}]}, "exclude.0: unknown axis 'moda'; the grid has mode, seed"),
        (
            {"comparisons": [{"title": "", "first": {"cell": {"mode": "x"}}, "second": {}}]},
            "comparisons.0.first.cell: axis 'mode' has no value 'x'",
        ),
        ({"parallel": 0}, "parallel:"),
    ],
)
def test_a_faulty_study_is_refused_with_the_place(tmp_path, changed, place):
    with pytest.raises(ValueError, match=r"mine\.yaml") as error:
        _study(tmp_path, **changed)
    assert place in str(error.value)


@pytest.mark.parametrize(
    ("grid", "place"),
    [
        ({"loss.modus": ["plain"]}, "cell loss.modus=plain: loss.modus: unknown key 'modus'; valid here: mode"),
        ({"x": {"a": {"optim.epochs": -1}}}, "cell x=a: optim.epochs: found -1"),
        ({"x": {"a": {"epochs": 1}}}, "cell x=a: 'epochs': wanted section.key"),
        ({"x": {"a": {"contexts": "web"}}}, "cell x=a: contexts: found 'web', wanted one of index"),
        ({"x": {"a": {"unlabelled": "rest"}}}, "cell x=a: unlabelled: rest needs data.train_sentences"),
        ({"x": {"a b": None, "a-b": None}}, "share the file name 'x-a-b'"),
    ],
)
def test_a_faulty_cell_is_refused_with_its_coordinates(tmp_path, grid, place):
    with pytest.raises(ValueError, match="study mine") as error:
        cells(_study(tmp_path, grid=grid))
    assert place in str(error.value)


@pytest.mark.parametrize("name", ["wnut18-small", "wnut17-small.yaml", "published"])
def test_an_unknown_study_is_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match=r"no such study; give a YAML file, or one of ablations.*wnut17-small"):
        find_study(name)


@pytest.mark.parametrize("name", PACKAGED)
def test_every_cell_of_every_study_of_the_project_is_a_valid_config(name):
    study = read_study(find_study(name))
    made = cells(study)
    assert made
    assert study.title
    assert "seed" in study.grid


@pytest.mark.parametrize("name", [name for name in PACKAGED if name.endswith("-small")])
def test_small_studies_fit_two_cores(name):
    for cell in cells(read_study(find_study(name))):
        assert (cell.config.run.workers, cell.config.run.threads, cell.config.run.gpus) == (1, 1, 0)
        assert cell.config.model.encoder is None  # the packaged MiniLM


@pytest.mark.parametrize("name", ["main", "transfer", "semi", "context-quality"])
def test_every_study_of_the_paper_has_a_small_twin(name):
    assert {f"paper-{name}", f"paper-{name}-small"} <= set(PACKAGED)


def test_every_published_figure_has_its_cell_and_a_source():
    figures = read_published()
    assert figures
    for figure in figures:
        study = read_study(find_study(figure.study))
        fixed = [axis for axis in study.grid if axis != study.over]
        assert sorted(figure.cell) == sorted(fixed), figure  # one row of the table, not several
        assert any(figure.cell.items() <= cell.coordinates.items() for cell in cells(study)), figure
        assert figure.metric in study.metrics
        assert len(figure.source) > 20
