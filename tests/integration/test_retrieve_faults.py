"""`ctxner retrieve` under kill -9: what is left of it ends with exactly the rows of an undisturbed run; minutes."""

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
from ctxner.files.contexts import Context, read_contexts
from tests.closeness import assert_same_ranking
from tests.integration.built import build_index
from tests.integration.killing import family, kill_all, matching

pytestmark = [pytest.mark.slow, pytest.mark.ray]

NUM_SENTENCES = 20_000
SETTINGS = ("retrieval.depth=2", "retrieval.keep=2", "retrieval.batch_sentences=128")
VICTIMS = ("Search", "Rerank", "raylet", "driver")
DEADLINE = 1800.0  # seconds


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world, its index, and the contexts that an undisturbed job made."""
    folder = tmp_path_factory.mktemp("faults")
    write_world(make_world(num_train=NUM_SENTENCES, num_dev=0, num_test=0), folder)
    build_index(folder)
    found = _finish(_start(folder, "undisturbed"))
    assert (found["sentences"], found["errors"], found["resumed_from"]) == (NUM_SENTENCES, 0, 0)
    return folder


def test_a_job_killed_four_times_ends_with_the_rows_of_an_undisturbed_one(world: Path) -> None:
    """At random points, in random order; it goes on by itself without an actor, and called again without the rest."""
    chance = random.Random()
    points = sorted(chance.sample(range(NUM_SENTENCES * 9 // 10), len(VICTIMS)))
    plan = list(zip(points, chance.sample(VICTIMS, len(VICTIMS)), strict=True))
    print("killing", *(f"{victim} at {point}" for point, victim in plan))
    process, resumed_from = _start(world, "killed"), 0
    for point, victim in plan:
        _wait_for_rows(world / "killed", process, point)
        if victim in ("Search", "Rerank"):
            for own in matching(
                process,
                lambda command, victim=victim: command.startswith("ray::") and f"({victim})" in command,
                deadline=DEADLINE,
            ):
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
    assert (found["sentences"], found["resumed_from"]) == (NUM_SENTENCES, resumed_from)
    rows, undisturbed = (_rows(world, name) for name in ("killed", "undisturbed"))
    assert rows.keys() == undisturbed.keys()
    for name, context in rows.items():
        assert (context.query, context.error) == (undisturbed[name].query, undisturbed[name].error)
        assert_same_ranking(context.passages, undisturbed[name].passages, tolerance=2e-2)  # in bfloat16


def _is_actor(kind: str, command: str) -> bool:
    return command.startswith("ray::") and f"({kind})" in command


def _start(world: Path, name: str) -> subprocess.Popen[str]:
    data = (f"data.train={world / 'train.conll'}", f"data.contexts={world / name}")
    command = [sys.executable, "-m", "jobs", "retrieve", "--json"]
    for override in (*data, f"index.folder={world / 'index'}", *SETTINGS):
        command += ["--set", override]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _finish(process: subprocess.Popen[str]) -> dict:
    out, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    return json.loads(out)


def _rows(world: Path, name: str) -> dict[str, Context]:
    return read_contexts(world / name / "train.parquet")


def _num_done(folder: Path) -> int:
    done = [path for path in folder.glob(".retrieving/checkpoint/*.parquet") if ".pending" not in path.name]
    return sum(pq.read_metadata(path).num_rows for path in done)


def _wait_for_rows(folder: Path, process: subprocess.Popen[str], at_least: int) -> int:
    """Until so many rows are complete; how many there are then."""
    until = time.monotonic() + DEADLINE
    while (num_done := _num_done(folder)) < at_least:
        assert process.poll() is None, "the job ended before anything could be killed"
        assert time.monotonic() < until, "no rows in time"
        time.sleep(0.2)
    return num_done
