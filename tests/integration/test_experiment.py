"""`ctxner experiment run` on a tiny study: results, nothing done twice, and a driver killed in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from ctxner.demo import make_world, write_world
from jobs.experiment.results import CellResult, read_results
from serving.plan import Options, plan
from tests.integration.killing import family

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
DEADLINE = 900.0  # seconds
STUDY = {
    "base": "demo",
    "set": {
        **{f"data.{split}": f"{split}.conll" for split in ("train", "dev", "test")},
        "data.cache": None,
        "index.corpus": ["corpus.jsonl"],
        "run.workers": 1,
        "run.threads": 1,
        "optim.epochs": 1,
        "model.freeze_layers": 5,
        "retrieval.rerank": False,
    },
    "grid": {"mode": ["plain", "cl-kl"], "seed": [0]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world and a study, run without disturbance."""
    folder = tmp_path_factory.mktemp("experiment")
    write_world(make_world(num_train=40, num_dev=20, num_test=40), folder)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    ended = _finish(_start(folder, "whole"))
    assert (sorted(ended["done"]), ended["failed"]) == (["mode-cl-kl_seed-0", "mode-plain_seed-0"], {})
    return folder


def test_each_step_is_done_once_and_shared_by_cells(folder: Path) -> None:
    """Two cells: one index, one retrieval, two trainings, two evaluations."""
    assert _starts(folder / "whole") == {"index": 1, "contexts": 1, "train": 2, "score": 2}


def test_a_second_run_does_nothing(folder: Path) -> None:
    before, started = _starts(folder / "whole"), time.monotonic()
    ended = _finish(_start(folder, "whole"))
    assert (ended["done"], ended["done_before"], _starts(folder / "whole")) == ([], 2, before)
    assert time.monotonic() - started < 60  # Ray was not even started


def test_a_result_says_what_the_model_scores(folder: Path) -> None:
    """The counts are those of `ctxner evaluate` for the model that the study trained."""
    result = _results(folder, "whole")["mode-cl-kl_seed-0"]
    store = folder / "whole-store"
    command = [sys.executable, "-m", "jobs", "evaluate", store / "train" / result.steps["train"].key / "model"]
    contexts = f"data.contexts={store / 'contexts' / result.steps['contexts'].key}"
    done = subprocess.run(
        [*command, "--set", contexts, "--json"], cwd=folder, capture_output=True, text=True, check=True
    )
    scores = json.loads(done.stdout)["scores"]
    for view in ("plain", "context"):
        micro = scores[view]["micro"]
        assert result.scores[view].all == (micro["num_correct"], micro["num_predicted"], micro["num_gold"])
        assert tuple(result.counts(view).sum(0)) == result.scores[view].all


@pytest.mark.slow
def test_a_study_whose_driver_is_killed_goes_on_and_does_nothing_twice(folder: Path) -> None:
    """Kill -9 of the driver alone, while the second cell trains; its Ray must end by itself.

    That a step that is done is not done again, and that one that is not begins anew, `make test` proves by
    test_a_second_run_does_nothing and in tests/jobs/test_experiment_results.py.
    """
    process = _start(folder, "killed", "--parallel", "1")
    until = time.monotonic() + DEADLINE
    while _starts(folder / "killed").get("train", 0) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "the second training did not begin in time"
        time.sleep(0.2)
    workers = [child for child in family(process) if "ray::" in " ".join(child.cmdline())]
    done = set((folder / "killed-store").glob("*/*.done.json"))
    process.kill()
    process.communicate()
    assert {path.parent.name for path in done} == {"index", "contexts", "train", "score"}
    ended = _finish(_start(folder, "killed", "--parallel", "1"))
    assert (ended["done"], ended["done_before"], ended["failed"]) == (["mode-cl-kl_seed-0"], 1, {})
    for path in done:
        assert _log_starts(path.with_name(path.name.replace(".done.json", ".log"))) == 1, path
    assert _starts(folder / "killed") == {"index": 1, "contexts": 1, "train": 3, "score": 2}
    assert not psutil.wait_procs(workers, timeout=120)[1]
    killed, whole = _results(folder, "killed"), _results(folder, "whole")
    assert {slug: _figures(result) for slug, result in killed.items()} == {
        slug: _figures(result) for slug, result in whole.items()
    }


def test_a_pipeline_shares_the_steps_of_studies_and_publishes_what_a_server_can_open(folder: Path) -> None:
    settings = {**STUDY["set"], "loss.mode": "cl-kl"}
    data = {split: settings.pop(f"data.{split}") for split in ("train", "dev", "test")}
    tree = {"corpus": settings.pop("index.corpus"), "data": data, "train": {"base": "demo", "set": settings}}
    (folder / "weekly.yaml").write_text(yaml.safe_dump({**tree, "publish": {"to": "published", "version": "one"}}))
    command = [sys.executable, "-m", "jobs", "pipeline", "weekly.yaml", "--store", "whole-store", "--json"]
    first, again = (
        json.loads(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout)
        for _ in range(2)
    )
    before = dict.fromkeys(("index", "retrieve", "train"), "done before")
    now = dict.fromkeys(("calibrate", "evaluate", "publish"), "done now")
    assert {step["step"]: step["state"] for step in first["steps"]} == {**before, **now}
    assert {step["state"] for step in again["steps"]} == {"done before"}
    assert first["published"] == "published/one"
    cell = _results(folder, "whole")["mode-cl-kl_seed-0"]
    counts = ("num_correct", "num_predicted", "num_gold")
    assert {view: tuple(score[name] for name in counts) for view, score in first["scores"].items()} == {
        view: scores.all for view, scores in cell.scores.items()
    }  # the calibration changes no tag
    latest = folder / "published" / "latest"
    tree = plan(
        Options(config=str(ROOT / "serving" / "serve.yaml"), model=str(latest / "model"), index=str(latest / "index"))
    )
    arguments = tree["applications"][0]["args"]
    assert arguments["model"] == str(folder / "published" / "one" / "model")
    assert arguments["index"] == str(folder / "whole-store" / "index" / cell.steps["index"].key)
    assert arguments["threshold"] > 0  # of the calibration
    other = subprocess.run([*command, "--set", "run.seed=1"], cwd=folder, capture_output=True, text=True)
    assert (other.returncode, "published/one: published before from other inputs" in other.stderr) == (2, True)


@pytest.mark.slow
def test_all_kinds_of_passages_and_unlabelled_sentences_can_be_trained_on(folder: Path) -> None:
    kinds = {kind: {"contexts": kind} for kind in ("data", "shuffled", "random")}
    rest = {"rest": {"data.train_sentences": 20, "unlabelled": "rest"}}
    study = {**STUDY, "set": {**STUDY["set"], "loss.mode": "cl-kl"}, "grid": {"kind": {**kinds, **rest}, "seed": [0]}}
    (folder / "kinds.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    ended = _finish(_start(folder, "kinds", study="kinds.yaml"))
    assert (len(ended["done"]), ended["failed"]) == (4, {})
    # An index of the corpus and one of the training sentences; each retrieved for once.
    assert _starts(folder / "kinds") == {"index": 2, "contexts": 2, "shuffle": 2, "train": 4, "score": 4}
    (log,) = [log for log in (folder / "kinds-store" / "train").glob("*.log")
              if log.with_suffix(".unlabelled.parquet").exists()]  # fmt: skip
    assert "unlabelled 20" in log.read_text()


def _figures(result: CellResult) -> dict[str, object]:
    """All of a result but times and numbers of attempts."""
    tree = result.model_dump(exclude={"steps"})
    return {**tree, "keys": {kind: facts.key for kind, facts in result.steps.items()}}


def _results(folder: Path, name: str) -> dict[str, CellResult]:
    return read_results(folder / name, "tiny")


def _starts(results: Path) -> dict[str, int]:
    """How often a step of each kind has begun, as the logs say."""
    counts: dict[str, int] = {}
    for log in results.with_name(f"{results.name}-store").glob("*/*.log"):
        counts[log.parent.name] = counts.get(log.parent.name, 0) + _log_starts(log)
    return counts


def _log_starts(log: Path) -> int:
    return sum(line.startswith("started ") for line in log.read_text(errors="replace").splitlines())


def _start(folder: Path, name: str, *options: str, study: str = "tiny.yaml") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "jobs", "experiment", "run", study, "--json", *options]
    command += ["--results", name, "--store", f"{name}-store"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _finish(process: subprocess.Popen[str]) -> dict:
    out, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, errors[-3000:]
    return json.loads(out)
