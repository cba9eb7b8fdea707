"""Groups that grow, shrink and start from nothing under a real server, and a retriever that is always too late."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.ray, pytest.mark.slow]
pytest.importorskip("ray")

from ctxner.demo import World, make_world  # noqa: E402
from ctxner.predictor import Tagger  # noqa: E402
from tests.benchmarks.load import Load, closed_loop  # noqa: E402
from tests.benchmarks.serving import served  # noqa: E402
from tests.integration.built import write_served_folder  # noqa: E402
from tests.integration.killing import serve_replicas  # noqa: E402

SOON = {"metrics_interval_s": 0.5, "look_back_period_s": 2, "upscale_delay_s": 1, "downscale_delay_s": 4}
OPTIONS = ["--set", "retrieval.rerank=false", "--set", "retrieval.keep=2", "--set", "cached_sentences=0"]


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(num_train=60, num_dev=8, num_test=0)


@pytest.fixture(scope="module")
def folder(world: World, tagger: Tagger, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scaling")
    write_served_folder(path, world, tagger)
    return path


def ask(
    port: int,
    world: World,
    view: str,
    *,
    clients: int = 1,
    requests: int = 10**9,
    seconds: float = 3600,
    deadline: float = 500,
) -> Load:
    how = {"view": view, "deadline_ms": deadline}
    bodies = [json.dumps({"sentences": [own.words], **how}).encode() for own in world.train]
    return asyncio.run(closed_loop(port, bodies, clients=clients, requests=requests, seconds=seconds, keep=True))


def said(load: Load) -> Counter[str]:
    """Sentences by view and reason."""
    assert set(load.statuses) == {200}, load.statuses
    results = [result for _, body in load.bodies for result in json.loads(body)["results"]]
    return Counter(f"{own['view']}:{own.get('reason')}" for result in results for own in result["sentences"])


def wait_until(seconds: float, **wanted: int) -> float:
    """Seconds until so many replicas of each group run."""
    started = time.monotonic()
    while (found := {name: serve_replicas(name) for name in wanted}) != wanted:
        assert time.monotonic() - started < seconds, found
        time.sleep(0.2)
    return time.monotonic() - started


def test_groups_start_from_nothing_grow_and_shrink(world, folder, tmp_path):
    config, own = tmp_path / "serve.yaml", ["--model", str(folder / "model"), "--index", str(folder / "index")]
    command = [sys.executable, "-m", "serving.cli", "serve", *own, *OPTIONS, "--write", str(config)]
    subprocess.run(command, check=True, capture_output=True)
    tree = yaml.safe_load(config.read_text())
    tree["applications"][0]["deployments"] = [
        {"name": name, "autoscaling_config": {"min_replicas": fewest, "max_replicas": 2, **target, **SOON}}
        for name, fewest, target in (
            ("PlainTagger", 1, {"target_ongoing_requests": 4}),
            ("ContextTagger", 0, {"downscale_to_zero_delay_s": 6}),
            ("Retriever", 0, {"downscale_to_zero_delay_s": 6}),
        )
    ]
    config.write_text(yaml.safe_dump(tree))
    with served("--config", str(config), log=tmp_path / "serve.log") as (port, _):
        wait_until(30, PlainTagger=1, ContextTagger=0, Retriever=0)
        assert not said(ask(port, world, "plain", requests=50)).keys() - {"plain:None"}
        for attempt in ("first", "again"):
            found, started = Counter[str](), time.monotonic()
            while not found["context:None"]:
                assert time.monotonic() - started < 120, found
                load = ask(port, world, "context", requests=1)
                assert max(load.latencies) < 2, "the plain view answers while the others start"
                found += said(load)
            print(f"\n{attempt} cold start of the context path: {time.monotonic() - started:.1f} s, {dict(found)}")
            print(f"at zero again after {wait_until(90, ContextTagger=0, Retriever=0):.1f} s")
        started = time.monotonic()
        grown, load = 0, Load()
        while grown < 2:
            assert time.monotonic() - started < 90
            load = ask(port, world, "plain", clients=32, seconds=2, deadline=30_000)
            said(load)
            grown = serve_replicas("PlainTagger")
        figures = load.figures()
        print(f"a second replica {time.monotonic() - started:.1f} s after 32 clients came, {figures}")
        print(f"one replica again after {wait_until(90, PlainTagger=1):.1f} s")
        assert said(ask(port, world, "plain", requests=50)) == {"plain:None": 50}


def test_a_retriever_that_is_too_slow_never_delays_an_answer(world, folder, tmp_path):
    options = ["--model", str(folder / "model"), "--index", str(folder / "index"), *OPTIONS, "--set", "slow_ms=5000"]
    with served(*options, log=tmp_path / "serve.log") as (port, _):
        ask(port, world, "plain", requests=50)
        load = ask(port, world, "context", clients=4, requests=600)
        found = said(load)
        print(f"\nretriever slowed to 5 s, deadline 500 ms: {load.figures()}, {dict(found)}")
        assert set(found) == {"plain:deadline"}
        late = sorted(load.latencies)[len(load.latencies) * 99 // 100]
        assert late < 2, "loose, as machines differ; what was measured is printed"
