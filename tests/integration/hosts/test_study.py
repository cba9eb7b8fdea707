"""A study on three hosts, one of which is killed: every cell ends, none that was done is done again."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ctxner.predictor import Tagger
from jobs.experiment.results import CellResult, read_results
from tests.integration.hosts import faults
from tests.integration.hosts.cluster import RayCluster, cluster
from tests.integration.hosts.jobs import tell, write_files
from tests.integration.hosts.network import missing, wait_for_end, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing() or "")]

SEEDS = 5
SIDE_BY_SIDE = 3
DEADLINE = 900  # seconds
_STARTED = re.compile(r"^started (\w+) (\w+) at .* on (\S+), process", re.MULTILINE)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, tagger: Tagger, minilm: str) -> Iterator[RayCluster]:
    """Three hosts, and the files of a study of one mode and several seeds."""
    with cluster(3, tmp_path_factory.mktemp("hosts")) as ray:
        files = ray.network.files
        write_files(files, num_documents=0, tagger=tagger, tokenizer=minilm)
        (files / "test.conll").write_text((files / "dev.conll").read_text())
        splits = {f"data.{split}": f"{files}/{split}.conll" for split in ("train", "dev", "test")}
        rates = {"optim.encoder_lr": 1e-3, "optim.head_lr": 5e-3, "optim.crf_lr": 5e-3}
        study = {
            "base": "demo",
            "set": {**splits, **rates, "data.cache": None, "index.corpus": [f"{files}/corpus.jsonl"],
                    "model.encoder": f"{files}/encoder", "model.freeze_embeddings": False, "model.freeze_layers": 0,
                    "optim.epochs": 12, "optim.batch_sentences": 4,
                    "run.workers": 1, "run.threads": 1, "run.checkpoint_steps": 6, "retrieval.rerank": False},
            "grid": {"mode": ["cl-kl"], "seed": list(range(SEEDS))},
        }  # fmt: skip
        (files / "seeds.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
        yield ray


def test_a_study_goes_on_without_a_host_and_does_no_cell_twice(three: RayCluster, tmp_path: Path) -> None:
    files, started = three.network.files, time.monotonic()
    whole = three.result("whole", *_study(files, "whole"))
    undisturbed = time.monotonic() - started
    assert (len(whole["done"]), whole["failed"]) == (SEEDS, {})
    seen = _attempts(files / "whole-store")
    assert {host for hosts in seen.values() for host in hosts} == {host.name for host in three.network.hosts}
    assert all(len(hosts) == 1 for hosts in seen.values())

    store, lost, started = files / "killed-store", faults.victim(three).name, time.monotonic()
    command = three.submission("killed", "ctxner", *_study(files, "killed"), "--json")
    process = three.network.outside.start(*command, log=tmp_path / "log")
    wait_until(lambda: list((files / "killed").glob("*/*.json")), seconds=DEADLINE, what="a cell is done")
    wait_until(lambda: lost in _at_work(store), seconds=DEADLINE, what=f"a step on {lost}")
    done, at_work = _done(store), _at_work(store)
    with faults.struck(three, faults.killed):
        struck = time.monotonic()
        text = wait_for_end(process, tmp_path / "log", seconds=DEADLINE)
        ended = time.monotonic()
    outcome = json.loads(next(line for line in reversed(text.splitlines()) if line.startswith("{")))
    assert (len(outcome["done"]), outcome["failed"]) == (SEEDS, {})
    attempts = _attempts(store)
    tell("study-killed", undisturbed=undisturbed, seconds=ended - started, after_fault=ended - struck, lost=at_work)
    assert all(len(attempts[step]) == 1 for step in done), "a step that was done"
    assert all(len(hosts) == 1 or hosts[0] == lost for hosts in attempts.values()), "a step of a host that lives"
    assert any(len(hosts) == 2 for hosts in attempts.values())
    killed, expected = (_results(files / name) for name in ("killed", "whole"))
    assert killed.keys() == expected.keys()
    for name, result in expected.items():
        assert killed[name].dev_f1 == pytest.approx(result.dev_f1, abs=1e-6)
        assert killed[name].key == result.key


def _study(files: Path, name: str) -> list[object]:
    places = ["--results", files / name, "--store", files / f"{name}-store"]
    return ["experiment", "run", files / "seeds.yaml", "--parallel", SIDE_BY_SIDE, *places]


def _attempts(store: Path) -> dict[str, list[str]]:
    """The hosts on which each step has begun, first attempt first."""
    logs = sorted(store.glob("*/*.log"))
    return {f"{log.parent.name}/{log.stem}": [found[3] for found in _STARTED.finditer(log.read_text())] for log in logs}


def _done(store: Path) -> list[str]:
    return [f"{path.parent.name}/{path.name.removesuffix('.done.json')}" for path in store.glob("*/*.done.json")]


def _at_work(store: Path) -> list[str]:
    """The hosts of the steps that have begun and not ended."""
    done = _done(store)
    return [hosts[-1] for step, hosts in _attempts(store).items() if hosts and step not in done]


def _results(folder: Path) -> dict[str, CellResult]:
    return read_results(folder, "seeds")
