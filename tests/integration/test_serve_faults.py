"""Replicas, the proxy and the index die under load, and new versions roll in: no wrong answer, and what is lost.

2,000 requests from eight clients for each fault, none sent twice. An answer has to be what the same view of the same
versions said undisturbed.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]
pytest.importorskip("ray")

from ctxner.demo import World, make_world, write_world  # noqa: E402
from ctxner.predictor import Tagger  # noqa: E402
from tests.benchmarks.load import Load, closed_loop  # noqa: E402
from tests.benchmarks.serving import served  # noqa: E402
from tests.integration.killing import named, serve_replicas  # noqa: E402

REQUESTS, CLIENTS = 2000, 8
Answers = dict[tuple[int, str, str, str | None], Any]  # by text, view, model and index: the entities


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(num_train=60, num_dev=8, num_test=0)


@pytest.fixture(scope="module")
def folder(world: World, tagger: Tagger, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("faults")
    write_world(world, found)
    tagger.save_pretrained(found / "model")
    build(found)
    return found


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[tuple[int, int]]:
    options = ["--model", str(folder / "model"), "--index", str(folder / "index")]
    options += ["--set", "retrieval.rerank=false", "--set", "retrieval.keep=2", "--set", "cached_sentences=0"]
    with served(*options, log=folder / "serve.log") as found:
        yield found


@pytest.fixture(scope="module")
def known() -> Answers:
    return {}


def build(folder: Path, *more: str) -> None:
    command = [sys.executable, "-m", "jobs", "index", "--corpus", str(folder / "corpus.jsonl"), *more]
    subprocess.run([*command, "--out", str(folder / "index")], check=True, capture_output=True)


def requests(world: World, view: str) -> list[bytes]:
    return [json.dumps({"texts": [" ".join(own.words)], "view": view}).encode() for own in world.train]


def drill(port: int, world: World, view: str, known: Answers, fault: Callable[[], None] | None) -> Counter[str]:
    """Load with a fault after a quarter of it; what came of it."""
    wait_until_answered(port)
    if fault is None:
        load = asyncio.run(closed_loop(port, requests(world, view), clients=4, requests=240, keep=True))
        assert set(load.statuses) == {200}, load.statuses
        return judge(load, known)
    thread = threading.Thread(target=fault)

    def on_request(number: int) -> None:
        if number == REQUESTS // 4:
            thread.start()

    load = asyncio.run(
        closed_loop(port, requests(world, view), clients=CLIENTS, requests=REQUESTS, keep=True, on_request=on_request)
    )
    thread.join()
    started = time.monotonic()
    wait_until_answered(port)
    found = judge(load, known)
    figures = load.figures()
    if load.statuses[0] or load.statuses[404]:
        print(f"\nanswered again {load.seconds + time.monotonic() - started:.0f} s after the load began")
    print(
        f"\n{fault.__name__} ({view}): {dict(found)}, statuses {figures['statuses']}, {figures['per_second']}/s, "
        f"p50 {figures['p50_ms']} p99 {figures['p99_ms']} max {1000 * max(load.latencies):.0f} ms"
    )
    return found


def judge(load: Load, known: Answers) -> Counter[str]:
    """Answers by view and reason; `wrong` where one differs from what is known of its versions, `lost` without one."""
    found = Counter[str]()
    for number, body in load.bodies:
        answer = json.loads(body)
        versions, (result,) = answer["versions"], answer["results"]
        views = {own["view"] for own in result["sentences"]}
        if len(views) == 1 and "," not in versions["model"]:
            (view,) = views
            place = (number, view, versions["model"], versions.get("index") if view == "context" else None)
            entities = [{name: own[name] for name in ("text", "type", "start", "end")} for own in result["entities"]]
            found["wrong"] += known.setdefault(place, entities) != entities
        found.update(f"{own['view']}:{own.get('reason')}" for own in result["sentences"])
    found["lost"] = sum(num for status, num in load.statuses.items() if status != 200)
    return found


def kill(part: str) -> None:
    victims = named(part)
    assert victims, part
    victims[0].send_signal(signal.SIGKILL)


def wait_until_answered(port: int) -> None:
    """Until a dozen requests in a row are answered."""
    end, number = time.monotonic() + 120, 0
    body = json.dumps({"texts": ["London"], "view": "plain"}).encode()
    while number < 12:
        assert time.monotonic() < end
        load = asyncio.run(closed_loop(port, [body], clients=1, requests=1))
        number = number + 1 if load.statuses[200] else 0
        time.sleep(0.1)


def wait_until_all_run(port: int) -> None:
    end = time.monotonic() + 90
    names = ("PlainTagger", "PlainTagger", "ContextTagger", "Retriever", "Router")
    while time.monotonic() < end:
        counts = {name: serve_replicas(name) for name in set(names)}
        if all(counts[name] >= names.count(name) for name in set(names)):
            time.sleep(5)  # the new one opens its model
            return
        time.sleep(0.5)
    raise AssertionError(counts)


def test_undisturbed_answers_are_the_taggers(server, world, known, tagger):
    drill(server[0], world, "plain", known, None)
    drill(server[0], world, "context", known, None)
    alone = tagger.tag([" ".join(own.words) for own in world.train])
    plain = {number: own for (number, view, *_), own in known.items() if view == "plain"}
    assert [[own["text"] for own in plain[number]] for number in sorted(plain)] == [
        [e.text for e in own] for own in alone
    ]
    assert any(view == "context" for _, view, *_ in known)


@pytest.mark.parametrize(
    ("part", "view"), [("PlainTagger", "plain"), ("ContextTagger", "context"), ("Retriever", "context")]
)
def test_a_killed_replica_loses_nothing(server, world, known, part, view):
    def killed() -> None:
        kill(f"ServeReplica:ctxner:{part}")

    killed.__name__ = f"{part} killed"
    found = drill(server[0], world, view, known, killed)
    assert (found["wrong"], found["lost"]) == (0, 0)
    wait_until_all_run(server[0])


def test_after_a_killed_proxy_it_answers_again(server, world, known):
    def proxy_killed() -> None:
        kill("haproxy -db")

    found = drill(server[0], world, "plain", known, proxy_killed)
    assert found["wrong"] == 0
    assert found["lost"]  # nobody listens until Serve has started another one, which the drill waits for


def test_new_versions_of_index_and_model_roll_in_without_a_lost_request(server, world, known, folder, tagger):
    port, pid = server
    before = {index for *_, index in known if index}
    (folder / "more.jsonl").write_text(
        json.dumps({"id": "new", "contents": "Zanzibar is a place.", "source": "x"}) + "\n"
    )

    def index_swapped() -> None:
        build(folder, "--corpus", str(folder / "more.jsonl"))
        reload(pid, folder)

    found = drill(port, world, "context", known, index_swapped)
    assert (found["wrong"], found["lost"]) == (0, 0)
    drill(port, world, "context", known, None)
    assert {index for *_, index in known if index} - before

    models = {model for _, _, model, _ in known}

    def model_swapped() -> None:
        tagger.model.head.bias.data += 0.25
        tagger.save_pretrained(folder / "next")
        tagger.model.head.bias.data -= 0.25
        shutil.copy(folder / "next" / "model.safetensors", folder / "model" / ".new")
        os.replace(folder / "model" / ".new", folder / "model" / "model.safetensors")
        reload(pid, folder)

    found = drill(port, world, "plain", known, model_swapped)
    assert (found["wrong"], found["lost"]) == (0, 0)
    drill(port, world, "plain", known, None)
    assert {model for _, _, model, _ in known} - models


def test_a_broken_model_does_not_replace_the_one_that_serves(server, world, known, folder):
    port, pid = server
    good = (folder / "model" / "model.safetensors").read_bytes()
    (folder / "model" / "model.safetensors").write_bytes(b"broken")

    def broken_model() -> None:
        reload(pid, folder, wanted="not reloaded")

    try:
        found = drill(port, world, "plain", known, broken_model)
    finally:
        (folder / "model" / "model.safetensors").write_bytes(good)
    assert (found["wrong"], found["lost"]) == (0, 0)


def test_a_removed_index_is_answered_without(server, world, known, folder):
    def index_removed() -> None:
        shutil.rmtree(folder / "index")
        time.sleep(2)
        kill("ServeReplica:ctxner:Retriever")

    found = drill(server[0], world, "context", known, index_removed)
    assert (found["wrong"], found["lost"]) == (0, 0)
    assert found["plain:retriever_unavailable"]


def reload(pid: int, folder: Path, wanted: str = "release ") -> None:
    """Send the signal and wait until the command says what came of it."""
    log = folder / "serve.log"
    before = len(log.read_text())
    os.kill(pid, signal.SIGHUP)
    end = time.monotonic() + 120
    while wanted not in log.read_text()[before:]:
        assert time.monotonic() < end, log.read_text()[before:]
        time.sleep(0.2)
