"""`ctxner train` under kill -9, on a full disk and diverging: it ends as an undisturbed run does, or says why; minutes.

Two workers that share the optimizer's state train with dropout, a checkpoint every few steps.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertConfig, BertModel

from ctxner.demo import make_world, write_world
from ctxner.files.contexts import Context
from ctxner.files.sentences import read_sentences
from ctxner.schema import Passage, ScoredPassage
from ctxner.training.checkpoints.files import is_whole
from tests.contexts_files import write_contexts
from tests.integration.killing import family, kill_all, matching

pytestmark = [pytest.mark.slow, pytest.mark.ray]

NUM_EPOCHS, STEPS = 3, 100  # an epoch's
VICTIMS = ("worker", "raylet", "driver")
DEADLINE = 900.0  # seconds
LOSES_A_NODE = """
import pathlib, sys, threading, time
import psutil, ray
from ray.cluster_utils import Cluster
from ctxner.config import load_config
from ctxner.training.worker import train

config = load_config(None, sys.argv[1:])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
for _ in range(2):
    cluster.add_node(num_cpus=2)
ray.init(address=cluster.address)

def kill():
    while not list((config.run.storage / config.run.name).glob("checkpoint_*/progress.json")):
        time.sleep(0.5)
    time.sleep(5)
    family = psutil.Process().children(recursive=True)
    [raylet] = {own.ppid() for own in family if "RayTrainWorker" in " ".join(own.cmdline())}
    print("killing raylet", raylet, file=sys.stderr)
    psutil.Process(raylet).kill()

threading.Thread(target=kill, daemon=True).start()
try:
    train(config)
finally:
    cluster.shutdown()
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, minilm: str) -> Path:
    """A world with contexts, a narrow encoder with dropout, and what an undisturbed run made of them."""
    folder = tmp_path_factory.mktemp("faults")
    made = make_world(num_train=2 * STEPS, num_dev=40, num_test=0)
    write_world(made, folder)
    for split in ("train", "dev"):
        contexts = {}
        for own in read_sentences(folder / f"{split}.conll").sentences:
            passage = Passage(f"p-{own.id}", "x", f"{own.words[-1]} is a village that few people remember.")
            contexts[own.id] = Context(own.words, "q", (ScoredPassage(passage, 1.0, 1),))
        write_contexts(contexts, folder / f"{split}.parquet")
    torch.manual_seed(0)
    narrow = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    BertModel(narrow, add_pooling_layer=False).save_pretrained(folder / "encoder")
    AutoTokenizer.from_pretrained(minilm).save_pretrained(folder / "encoder")
    result = _finish(_start(folder, folder, "undisturbed"))
    assert result["epochs"] == NUM_EPOCHS
    return folder


def test_a_run_killed_three_times_ends_with_the_parameters_of_an_undisturbed_one(world: Path) -> None:
    """At random steps, in random order; it goes on by itself without a worker, and called again without the rest."""
    chance = random.Random()
    points = sorted(chance.sample(range(5, NUM_EPOCHS * STEPS - 20), len(VICTIMS)))
    plan = list(zip(points, chance.sample(VICTIMS, len(VICTIMS)), strict=True))
    print("killing", *(f"{victim} after step {point}" for point, victim in plan))
    process = _start(world, world, "killed")
    for point, victim in plan:
        _wait_for_step(world / "killed", process, point)
        if victim == "worker":
            matching(process, lambda command: "RayTrainWorker" in command, deadline=DEADLINE)[0].kill()
            continue
        started = family(process)
        if victim == "raylet":
            matching(process, lambda command: "/raylet/raylet" in command, deadline=DEADLINE)[0].kill()
            time.sleep(5)  # its driver cannot go on, and may wait for the node for minutes
        kill_all(process, started)
        process = _start(world, world, "killed", "run.resume=true")
    result = _finish(process)
    assert result["epochs"] == NUM_EPOCHS
    _assert_same(world / "killed", world / "undisturbed")
    print("largest difference of a parameter:", _difference(world / "killed", world / "undisturbed"))
    assert len(list((world / "killed").glob("checkpoint_*/progress.json"))) <= 3, "two are kept, and the last"


def test_a_run_on_a_full_disk_stops_and_goes_on_when_there_is_room(world: Path, small_disk: Path) -> None:
    error = _fail(world, small_disk, "full", "run.keep_checkpoints=9")
    assert "worker " in error
    assert "No space left on device" in error
    assert "go on with --set run.resume=true" in error
    assert [path for path in (small_disk / "full").glob("checkpoint_*/progress.json") if is_whole(path.parent)], (
        "good ones are intact"
    )
    subprocess.run(["mount", "-o", "remount,size=1g", small_disk], check=True)
    _finish(_start(world, small_disk, "full", "run.resume=true", "run.keep_checkpoints=9"))
    _assert_same(small_disk / "full", world / "undisturbed")


def test_a_run_that_diverges_stops_on_all_workers_and_keeps_its_last_good_checkpoint(world: Path) -> None:
    error = _fail(world, world, "diverging", "optim.encoder_lr=1.0e+30", "run.checkpoint_steps=1")
    assert "epoch 1, step 2: " in error
    assert "not finite; lower optim.*_lr" in error
    [progress] = (world / "diverging").glob("checkpoint_*/progress.json")
    last = progress.parent
    assert is_whole(last)
    assert json.loads(progress.read_text())["step"] == 1
    assert all(tensor.isfinite().all() for tensor in load_file(last / "model" / "model.safetensors").values())


def test_a_folder_that_cannot_be_written_is_refused_at_once(world: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = _fail(world, tmp_path / "file", "x")
    assert "run.storage" in error
    assert "cannot be written" in error


def test_a_run_that_loses_a_node_goes_on_by_itself_on_another(world: Path) -> None:
    """Its raylet is killed, with all workers on it; the driver is on the head, where no worker fits."""
    command = [sys.executable, "-c", LOSES_A_NODE, *_settings(world, world, "node")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    print(done.stderr[-6000:])
    assert done.returncode == 0
    assert "workers were lost" in done.stderr
    _assert_same(world / "node", world / "undisturbed")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for three checkpoints."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=45m", "tmpfs", folder], check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def _settings(world: Path, storage: Path, name: str, *more: str) -> list[str]:
    return [
        f"data.train={world / 'train.conll'}",
        f"data.dev={world / 'dev.conll'}",
        f"data.contexts={world}",
        f"data.cache={world / 'views'}",
        f"model.encoder={world / 'encoder'}",
        f"optim.epochs={NUM_EPOCHS}",
        "optim.batch_sentences=2",
        f"run.storage={storage}",
        f"run.name={name}",
        "run.workers=2",
        "run.threads=1",
        "run.zero_stage=1",
        "run.checkpoint_steps=5",
        *more,
    ]


def _start(world: Path, storage: Path, name: str, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "jobs", "train", "--json"]
    for override in _settings(world, storage, name, *more):
        command += ["--set", override]
    with (world / f"{name}.log").open("a") as log:  # not a pipe: nobody reads it while a job is to be killed
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)


def _finish(process: subprocess.Popen[str]) -> dict:
    out, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    return json.loads(out)


def _fail(world: Path, storage: Path, name: str, *more: str) -> str:
    """What a job that has to fail says at its end."""
    process = _start(world, storage, name, *more)
    process.communicate(timeout=DEADLINE)
    assert process.returncode != 0
    said = (world / f"{name}.log").read_text()
    print(said[-3000:])
    return said


def _wait_for_step(folder: Path, process: subprocess.Popen[str], at_least: int) -> None:
    """Until a checkpoint of so many steps is on record."""
    until = time.monotonic() + DEADLINE
    while _num_done(folder) < at_least:
        assert process.poll() is None, "the job ended before anything could be killed"
        assert time.monotonic() < until, "no checkpoint in time"
        time.sleep(0.1)


def _num_done(folder: Path) -> int:
    try:
        record = json.loads((folder / "checkpoint_manager_snapshot.json").read_text())
    except (OSError, ValueError):  # not yet, or being written
        return 0
    metrics = record["latest_checkpoint_result"]["metrics"]
    return STEPS * metrics["epoch"] + metrics["step"]


def _assert_same(run: Path, undisturbed: Path) -> None:
    histories = [json.loads((folder / "history.json").read_text()) for folder in (run, undisturbed)]
    for history in histories:
        for entry in history:
            for name in ("seconds", "seconds_by_phase", "sentences_per_second", "peak_memory_bytes"):
                del entry[name]
    assert histories[0] == histories[1]
    assert _difference(run, undisturbed) <= 1e-6


def _difference(run: Path, undisturbed: Path) -> float:
    """The largest, over the parameters after the last epoch."""
    ours, theirs = (load_file(_last(folder) / "model" / "model.safetensors") for folder in (run, undisturbed))
    assert ours.keys() == theirs.keys()
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


def _last(folder: Path) -> Path:
    record = json.loads((folder / "checkpoint_manager_snapshot.json").read_text())
    assert record["latest_checkpoint_result"]["metrics"]["epoch"] == NUM_EPOCHS
    return folder / record["latest_checkpoint_result"]["checkpoint_dir_name"]
