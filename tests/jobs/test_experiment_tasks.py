"""What is left to do for a cell, what it is expected to take, and what its steps ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctxner.demo import make_world, write_world
from jobs.experiment.driver import Ask, ask
from jobs.experiment.expected import Expectations, remaining
from jobs.experiment.keys import KINDS
from jobs.experiment.store import Step, Store
from jobs.experiment.study import Study, cells
from jobs.experiment.tasks import Task, needed, placed, tasks_of
from tests.jobs.experiment_results import FACTS

KEYS = dict.fromkeys(KINDS, "key")
WITHOUT_SHUFFLE = {kind: "key" for kind in KINDS if kind not in ("shuffle", "calibrate")}


@pytest.mark.parametrize(
    ("to_do", "keys", "wanted"),
    [
        (KINDS, KEYS, [*KINDS]),
        (["index", "contexts", "train", "score"], WITHOUT_SHUFFLE, ["index", "contexts", "train", "score"]),
        ([], KEYS, []),
        (["index"], KEYS, []),  # an index that is gone is not built for a score that is there
        (["index", "score"], WITHOUT_SHUFFLE, ["score"]),
        (["index", "train", "score"], WITHOUT_SHUFFLE, ["train", "score"]),
        (["contexts", "score"], WITHOUT_SHUFFLE, ["contexts", "score"]),
        (["index", "contexts", "score"], KEYS, ["score"]),  # it reads the shuffled ones
        (["contexts", "shuffle", "score"], KEYS, ["contexts", "shuffle", "score"]),
        (["train", "score"], KEYS, ["score"]),  # it reads the calibrated model
        (["train", "calibrate", "score"], KEYS, ["train", "calibrate", "score"]),
    ],
)
def test_only_steps_that_the_score_needs_are_done(to_do, keys, wanted):
    assert needed(to_do, keys) == wanted


def test_what_is_wanted_beside_the_score_is_done_too():
    assert needed(["index", "train"], KEYS, ["index", "score"]) == ["index"]
    assert needed(["index", "contexts", "shuffle", "train"], KEYS, ["train"]) == [
        "index",
        "contexts",
        "shuffle",
        "train",
    ]


def _tasks(folder: Path, store: Store, *overrides: str) -> list[Task]:
    study = Study.model_validate(
        {"name": "study", "base": "demo", "grid": {"mode": ["plain", "cl-kl"], "seed": [0, 1]}}
    )
    files = [f"data.{split}={folder / split}.conll" for split in ("train", "dev", "test")]
    options = [*files, f"index.corpus=[{folder / 'corpus.jsonl'}]", "run.workers=1", "run.threads=1", *overrides]
    return tasks_of(study, cells(study, options), store)[0]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    write_world(make_world(num_train=10, num_dev=5, num_test=5), folder)
    return folder


def test_cells_of_one_size_tell_how_long_the_others_take(world, tmp_path):
    store = Store(tmp_path)
    plain, other = _tasks(world, store)[0], _tasks(world, store)[2]
    assert [task.cell.coordinates for task in (plain, other)] == [
        {"mode": "plain", "seed": "0"}, {"mode": "plain", "seed": "1"}]  # fmt: skip
    step = Step("train", plain.keys["train"])
    store.folder(step).mkdir(parents=True)
    store.finish(step, FACTS.model_copy(update={"seconds": 77.0, "numbers": {"memory_bytes": 5e9}}))
    tasks = _tasks(world, store)
    expectations = Expectations(tasks, store, estimate=False)
    assert [expectations.of(task, "train").source for task in tasks] == ["done", "unknown", "same size", "unknown"]
    assert (expectations.of(tasks[2], "train").seconds, expectations.of(tasks[2], "train").memory_bytes) == (77.0, 5e9)
    steps = remaining(tasks, expectations)
    assert sorted(step.kind for step in steps) == ["contexts", "index"] + ["score"] * 4 + ["train"] * 3


def test_a_retrieval_that_was_killed_leaves_an_estimate_without_passages(world, tmp_path):
    """Before: its folder without files was taken for contexts, and `plan` refused the study."""
    store = Store(tmp_path)
    (task, *_) = [task for task in _tasks(world, store) if "contexts" in task.keys]
    (store.folder(Step("contexts", task.keys["contexts"])) / ".retrieving").mkdir(parents=True)
    expected = Expectations([task], store).of(task, "train")
    assert (expected.source, expected.seconds > 0) == ("estimate without passages", True)


def test_cells_without_their_data_are_left_out_and_told(world, tmp_path):
    trains = {"here": world / "train.conll", "gone": tmp_path / "gone.conll"}
    grid = {"data": {name: {"data.train": str(path)} for name, path in trains.items()}}
    files = [f"data.{split}={world / split}.conll" for split in ("dev", "test")]
    study = Study.model_validate({"name": "study", "base": "demo", "grid": grid, "over": "data"})
    made = cells(study, [*files, f"index.corpus=[{world / 'corpus.jsonl'}]"])
    tasks, missing = tasks_of(study, made, Store(tmp_path))
    assert [task.cell.slug for task in tasks] == ["data-here"]
    assert missing == {"data-gone": f"{tmp_path / 'gone.conll'}: no such file or folder"}


def test_steps_ask_for_what_they_use(world, tmp_path):
    capacity = Ask(8, 2, 1e12)
    (task, *_) = _tasks(world, Store(tmp_path), "run.workers=2", "run.threads=3")
    config = placed(task, Store(tmp_path))
    assert ask("train", config, capacity, 5e9) == Ask(6, 0, 5e9)
    assert ask("score", config, capacity, 0) == Ask(3, 0, 0)
    assert ask("contexts", config, capacity, 0) == Ask(8, 0, 0)  # alone: its actors share the CPUs
    assert ask("index", config, capacity, 0) == Ask(1, 0, 0)
    (task, *_) = _tasks(world, Store(tmp_path), "run.workers=2", "run.gpus=1")
    assert ask("train", placed(task, Store(tmp_path)), capacity, 5e9) == Ask(0, 2, 5e9)
