"""`ctxner retrieve` under kill -9: what is left of it ends with exactly the rows of an undisturbed run; minutes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctxner.demo import make_world, write_world

pytestmark = [pytest.mark.slow, pytest.mark.ray]

NUM_SENTENCES = 2000
SETTINGS = ("retrieval.depth=2", "retrieval.keep=2", "retrieval.batch_sentences=128")
DEADLINE = 600.0  # seconds


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world, its index, and the contexts that an undisturbed job made."""
    folder = tmp_path_factory.mktemp("faults")
    write_world(make_world(num_train=NUM_SENTENCES, num_dev=0, num_test=0), folder)
    command = [sys.executable, "-m", "jobs", "index", "--corpus", folder / "corpus.jsonl", "--out", folder / "index"]
    subprocess.run(command, check=True, capture_output=True)
    found = _finish(_start(folder, "undisturbed"))
    assert (found["sentences"], found["errors"], found["resumed_from"]) == (NUM_SENTENCES, 0, 0)
    return folder


@pytest.mark.parametrize("actor", ["Search", "Rerank"])
def test_a_job_outlives_a_killed_actor(world: Path, actor: str) -> None:
    process = _start(world, actor)
    _kill(lambda command: command.startswith("ray::") and f"({actor})" in command, process)
    assert _finish(process)["sentences"] == NUM_SENTENCES
    assert _rows(world, actor).equals(_rows(world, "undisturbed"))


def test_a_job_goes_on_after_its_raylet_and_then_its_driver_were_killed(world: Path) -> None:
    num_done = 0
    for victim in ("raylet", "driver"):
        process = _start(world, "again")
        num_done = _wait_for_rows(world / "again", process, num_done + 1)
        family = _family(process)
        if victim == "raylet":
            _kill(lambda command: "/raylet/raylet" in command, process)
            time.sleep(5)  # its driver cannot go on, and may wait for the node for minutes
        process.kill()
        process.communicate()
        for own in family:  # as when the machine goes
            if own.is_running():
                own.kill()
        num_done = _num_done(world / "again")
        assert 0 < num_done < NUM_SENTENCES
    found = _finish(_start(world, "again"))
    assert (found["sentences"], found["resumed_from"]) == (NUM_SENTENCES, num_done)
    assert _rows(world, "again").equals(_rows(world, "undisturbed"))


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


def _rows(world: Path, name: str) -> pa.Table:
    return pq.read_table(world / name / "train.parquet")


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


def _kill(matches: Callable[[str], bool], process: subprocess.Popen[str]) -> None:
    """Kill -9 what the job has started whose command line matches, as soon as there is any."""
    until = time.monotonic() + DEADLINE
    while not (victims := [own for own in _family(process) if _matches(own, matches)]):
        assert process.poll() is None, "the job ended before anything could be killed"
        assert time.monotonic() < until, "nothing to kill in time"
        time.sleep(0.1)
    for own in victims:
        own.kill()


def _matches(process: psutil.Process, matches: Callable[[str], bool]) -> bool:
    try:
        return matches(" ".join(process.cmdline()))
    except psutil.Error:  # gone meanwhile
        return False


def _family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """What the job has started: its Ray and all workers."""
    return psutil.Process(process.pid).children(recursive=True)
