"""XLM-R-large's real size through the whole of training: ZeRO-3 over two workers, without a GPU; minutes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from safetensors import safe_open

from ctxner.demo import make_world, write_world
from ctxner.files.contexts import Context
from ctxner.files.sentences import read_sentences
from ctxner.schema import ScoredPassage
from tests.contexts_files import write_contexts
from tests.xlm_roberta import LARGE, save_xlm_roberta

pytestmark = [pytest.mark.slow, pytest.mark.ray]

MEMORY = 20 * 2**30
SETTINGS = {
    "model.max_pieces": 192,
    "model.gradient_checkpointing": True,
    "optim.batch_sentences": 4,
    "optim.epochs": 1,
    "optim.encoder_lr": 1e-5,
    "run.workers": 2,
    "run.zero_stage": 3,
    "run.keep_checkpoints": 1,
    "run.log_steps": 1,
}


def test_three_steps_of_cl_kl_with_zero_3_fit_into_twenty_gib(tmp_path: Path) -> None:
    world = make_world(num_train=12, num_dev=4, num_test=0)
    write_world(world, tmp_path)
    for split in ("train", "dev"):
        sentences = read_sentences(tmp_path / f"{split}.conll").sentences
        passages = [tuple(ScoredPassage(own, 1.0, 1) for own in world.corpus[n : n + 2]) for n in range(len(sentences))]
        found = {own.id: Context(own.words, "q", given) for own, given in zip(sentences, passages, strict=True)}
        write_contexts(found, tmp_path / f"{split}.parquet")
    texts = [*(own.text for own in world.corpus), *(" ".join(own.words) for own in world.train)]
    encoder = save_xlm_roberta(tmp_path / "encoder", texts, sizes=LARGE)
    files = {f"data.{split}": tmp_path / f"{split}.conll" for split in ("train", "dev")}
    folders = {"data.contexts": tmp_path, "data.cache": tmp_path / "views", "run.storage": tmp_path / "runs"}
    settings = {**files, **folders, **SETTINGS, "model.encoder": encoder, "loss.mode": "cl-kl", "run.name": "large"}
    command = [sys.executable, "-m", "jobs", "train", "--json"]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peaks: dict[str, int] = {}
    at_peak = list[str]()
    watcher = threading.Thread(target=_watch, args=(process, peaks, at_peak), daemon=True)
    watcher.start()
    out, errors = process.communicate(timeout=3000)
    assert process.returncode == 0, errors[-4000:]
    [entry] = json.loads((tmp_path / "runs" / "large" / "history.json").read_text())
    gib = {name: round(own / 2**30, 1) for name, own in peaks.items()}
    phases = {name: round(own, 1) for name, own in entry["seconds_by_phase"].items()}
    print(f"peak GiB {gib}, {time.perf_counter() - started:.0f} s in all, seconds by phase {phases}")
    print("at the peak:", *at_peak)
    assert json.loads(out)["epochs"] == 1
    assert peaks["all"] < MEMORY
    assert entry["losses"]["loss"] > 0
    with safe_open(tmp_path / "runs" / "large" / "model" / "model.safetensors", "pt") as model:
        sizes = [model.get_slice(name).get_shape() for name in model.keys()]  # noqa: SIM118 (not a dict)
    assert 555e6 < sum(math.prod(own) for own in sizes) < 565e6, "parameters"


def _watch(process: subprocess.Popen[str], peaks: dict[str, int], at_peak: list[str]) -> None:
    """Largest memory of the job's own (shared pages once), and of a worker; and who had it when it was largest."""
    started = time.perf_counter()
    while process.poll() is None:
        sizes = list[tuple[int, str]]()
        for own in (psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)):
            try:
                size = own.memory_full_info().pss
                title = (own.cmdline() or [own.name()])[0]
            except psutil.Error:  # gone meanwhile
                continue
            name = "worker" if "RayTrainWorker" in title else "other"
            peaks[name] = max(peaks.get(name, 0), size)
            sizes.append((size, title.rsplit("/", 1)[-1]))
        total = sum(size for size, _ in sizes)
        if total > peaks.get("all", 0):
            peaks["all"] = total
            at_peak[:] = [f"{time.perf_counter() - started:.0f} s"]
            at_peak += [f"{title} {size / 2**30:.2f}" for size, title in sorted(sizes, reverse=True)]
        time.sleep(1)
