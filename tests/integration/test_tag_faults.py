"""`ctxner tag` under kill -9: what is left of it ends with exactly the rows of an undisturbed run; minutes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ctxner.demo import make_world, write_world
from ctxner.predictor import Tagger
from tests.integration.built import build_index
from tests.integration.killing import family, kill_all, matching

pytestmark = [pytest.mark.slow, pytest.mark.ray]

NUM_DOCUMENTS = 12_000
VICTIMS = ("TagPlain", "TagContext", "raylet", "driver")
SETTINGS = ("tagging.batch_documents=128", "tagging.threads=1", "retrieval.rerank=false", "retrieval.keep=2")
DEADLINE = 1800.0  # seconds


@pytest.fixture(scope="module")
def world(tagger: Tagger, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents, a model, an index, and what an undisturbed job in the view `auto` makes of them."""
    folder = tmp_path_factory.mktemp("faults")
    own = make_world(num_train=NUM_DOCUMENTS, num_dev=0, num_test=0)
    write_world(own, folder)
    tagger.save_pretrained(folder / "model")
    lines = [json.dumps({"id": one.id, "text": " ".join(one.words)}) + "\n" for one in own.train]
    (folder / "in.jsonl").write_text("".join(lines))
    build_index(folder)
    found = _finish(_start(folder, "undisturbed"))
    assert (found["documents"], found["errors"], found["resumed_from"]) == (NUM_DOCUMENTS, 0, 0)
    assert min(found["views"].values()) > NUM_DOCUMENTS / 10, "both views answer"
    return folder


def test_a_job_killed_four_times_ends_with_the_rows_of_an_undisturbed_one(world: Path) -> None:
    """At random points, in random order; it goes on by itself without an actor, and called again without the rest."""
    chance = random.Random()
    points = sorted(chance.sample(range(NUM_DOCUMENTS // 2), len(VICTIMS)))  # later an actor may have done all its work
    plan = list(zip(points, chance.sample(VICTIMS, len(VICTIMS)), strict=True))
    print("killing", *(f"{victim} at {point}" for point, victim in plan))
    process, resumed_from = _start(world, "killed"), 0
    for point, victim in plan:
        _wait_for_rows(world / "killed", process, point)
        if victim.startswith("Tag"):

            def is_actor(command: str, victim: str = victim) -> bool:
                return command.startswith("ray::") and f"({victim})" in command

            for own in matching(process, is_actor, deadline=DEADLINE):
                own.kill()
            continue
        started = family(process)
        if victim == "raylet":
            matching(process, lambda command: "/raylet/raylet" in command, deadline=DEADLINE)[0].kill()
            time.sleep(5)  # its driver cannot go on, and may wait for the node for minutes
        kill_all(process, started)
        resumed_from = _num_done(world / "killed")
        process = _start(world, "killed")
    found = _finish(process)
    assert (found["documents"], found["resumed_from"]) == (NUM_DOCUMENTS, resumed_from)
    tables = [pq.read_table(world / name / "tagged.parquet") for name in ("killed", "undisturbed")]
    columns = [table.select(["id", "text", "error"]) for table in tables]
    assert columns[0].equals(columns[1])
    for own, other in zip(*(table.select(["entities", "sentences"]).to_pylist() for table in tables), strict=True):
        for kind, name in (("entities", "confidence"), ("sentences", "entropy")):
            assert [one.pop(name) for one in own[kind]] == pytest.approx(
                [one.pop(name) for one in other[kind]], abs=1e-4
            )
        assert own == other


def _start(world: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "jobs", "tag", world / "in.jsonl", world / name, "--model", world / "model"]
    command += ["--view", "auto", "--index", world / "index", "--json"]
    for override in (*SETTINGS, "tagging.threshold=3"):
        command += ["--set", override]
    return subprocess.Popen([str(own) for own in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _finish(process: subprocess.Popen[str]) -> dict:
    out, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    return json.loads(out)


def _num_done(folder: Path) -> int:
    done = [path for path in folder.glob(".tagging/checkpoint/*.parquet") if ".pending" not in path.name]
    return sum(pq.read_metadata(path).num_rows for path in done)


def _wait_for_rows(folder: Path, process: subprocess.Popen[str], at_least: int) -> None:
    """Until so many rows are complete."""
    until = time.monotonic() + DEADLINE
    while _num_done(folder) < at_least:
        assert process.poll() is None, "the job ended before anything could be killed"
        assert time.monotonic() < until, "no rows in time"
        time.sleep(0.2)
