"""One job on a Ray of logical nodes of this machine, with what it costs: CPU seconds, memory, wall time.

`python -m tests.benchmarks.cluster_jobs retrieve|plain|context NODES NUMBER FOLDER` runs a job over so many sentences
and prints a JSON line; `prepare` writes what the jobs read into FOLDER. Each node has one actor of one thread of each
kind and four logical CPUs, as Ray Data's own tasks need two beside the actors. `tests.benchmarks.costs` and
`tests.benchmarks.weak_scaling` call it, one process per job.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks import bench_tag, texts

JOBS = ("retrieve", "plain", "context")
CORPUS = "social-wiki-news"
PASSAGES = 100_000
OBJECT_STORE = 200 << 20  # bytes per node
_CPUS = 4  # logical ones of a node
_SAMPLE_SECONDS = 1.0
_KINDS = {"(Search)": "search", "(Rerank)": "rerank", "(LookUp)": "look_up", "(TagPlain)": "tag", "(TagContext)": "tag"}


def prepare(folder: Path) -> None:
    """Write the index and the model; what is there stays."""
    from ctxner.retrieval.index.build import build_index

    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "index").is_dir():
        texts.write_passages(texts.passages(PASSAGES, [CORPUS]), folder / "corpus.jsonl")
        build_index([folder / "corpus.jsonl"], folder / "index")
    if not (folder / "model").is_dir():
        bench_tag.save_model(folder / "model")


def measured(job: str, nodes: int, number: int, folder: Path) -> dict[str, Any]:
    """What the job cost, measured in a process of its own.

    Returns:
        `cpu_s` by kind of process, without those of Ray's start; `seconds` of the job, and of them `staging_seconds`
        and `joining_seconds`; `driver_mib` at most and `driver_mib_before`; `files`, of the staged rows; `bytes` read,
        made and written by the job; `ray_seconds` and `ray_cpu_s`, of Ray's start; `load`, the machine's before.
    """
    command = [sys.executable, "-m", "tests.benchmarks.cluster_jobs", job, str(nodes), str(number), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-4000:]}")
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return line


def run(job: str, nodes: int, number: int, folder: Path) -> dict[str, Any]:
    """Run the job on a fresh Ray in this process."""
    load = os.getloadavg()[0]
    from jobs.cluster import prepare as prepare_ray

    prepare_ray()
    import ray
    from ray.cluster_utils import Cluster

    own = psutil.Process()
    with tempfile.TemporaryDirectory(dir=folder) as name, counted() as meter:
        out, started = Path(name), time.perf_counter()
        each = {"num_cpus": _CPUS, "object_store_memory": OBJECT_STORE}
        cluster = Cluster(initialize_head=True, head_node_args={**each, "include_dashboard": False})
        for _ in range(nodes - 1):
            cluster.add_node(**each)
        ray.init(address=cluster.address, log_to_driver=False)
        try:
            ray_seconds, ray_cpu = time.perf_counter() - started, meter.spent()
            before, memory, started = own.memory_info().rss, _Peak(own), time.perf_counter()
            with memory:
                found = (
                    _retrieve(nodes, number, folder, out)
                    if job == "retrieve"
                    else _tag(job, nodes, number, folder, out)
                )
            seconds, spent = time.perf_counter() - started, meter.spent() - ray_cpu
        finally:
            ray.shutdown()
            cluster.shutdown()
    return {
        "job": job,
        "nodes": nodes,
        "sentences": number,
        "cpu_s": {kind: round(value, 2) for kind, value in sorted(spent.items())},
        "seconds": round(seconds, 2),
        **{name: round(value, 2) for name, value in found.items()},
        "driver_mib": memory.peak >> 20,
        "driver_mib_before": before >> 20,
        "ray_seconds": round(ray_seconds, 2),
        "ray_cpu_s": round(ray_cpu.total(), 2),
        "load": round(load, 1),
    }


def _retrieve(nodes: int, number: int, folder: Path, out: Path) -> dict[str, float]:
    from ctxner.batch.retrieve import retrieve
    from ctxner.config import parse_config

    sections = {"search_actors": nodes, "threads": 1, "rerank": False, "cache": None}
    config = parse_config({"index": {"folder": str(folder / "index")}, "retrieval": sections})
    started = time.perf_counter()
    found = retrieve({"all": texts.sentences(number)}, config, out)
    joining = time.perf_counter() - started - found["seconds"]
    assert (found["sentences"], found["errors"]) == (number, 0)
    written = (out / "all.parquet").stat().st_size
    return {"staging_seconds": found["staging_seconds"], "joining_seconds": joining, "written_bytes": written}


def _tag(job: str, nodes: int, number: int, folder: Path, out: Path) -> dict[str, float]:
    from ctxner.batch.tag import tag
    from ctxner.config import parse_config
    from ctxner.files.documents import iter_documents

    texts.write_sentences(texts.sentences(number), out / "in.jsonl")
    sections: dict[str, Any] = {"tagging": {"view": job, "actors": nodes, "threads": 1}}
    sections["retrieval"] = {"search_actors": nodes, "rerank_actors": nodes, "threads": 1, "cache": None}
    sections["index"] = {"folder": str(folder / "index")}
    found = tag(iter_documents(out / "in.jsonl"), parse_config(sections), str(folder / "model"), out)
    assert (found["documents"], found["errors"]) == (number, 0)
    joining = found["seconds"] - found["staging_seconds"] - found["tagging_seconds"]
    written = (out / "tagged.parquet").stat().st_size
    return {"staging_seconds": found["staging_seconds"], "joining_seconds": joining, "written_bytes": written}


class _Peak:
    """The largest resident memory of a process, sampled."""

    def __init__(self, process: psutil.Process) -> None:
        self.process, self.peak, self._ended = process, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self.process.memory_info().rss)
            if self._ended.wait(0.1):
                return

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


class Meter:
    """CPU seconds of this process and all below it, also of those that ended since they were last looked at."""

    def __init__(self) -> None:
        self._own = psutil.Process()
        self._before = _seconds(self._own)
        self._spent = dict[int, tuple[str, float]]()  # by process

    def look(self) -> None:
        """Look at all processes."""
        for process in (self._own, *self._own.children(recursive=True)):
            with suppress(psutil.Error):  # ended meanwhile: what was seen last counts
                seconds = _seconds(process) - (self._before if process == self._own else 0.0)
                self._spent[process.pid] = (_kind(process, self._own), seconds)

    def spent(self) -> Counter[str]:
        """CPU seconds so far by kind of process."""
        self.look()
        total = Counter[str]()
        for kind, seconds in list(self._spent.values()):
            total[kind] += seconds
        return total


@contextmanager
def counted() -> Iterator[Meter]:
    """Looks again and again until the block ends; looking is counted with the driver."""
    meter, ended = Meter(), threading.Event()

    def watch() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            meter.look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield meter
    finally:
        ended.set()
        thread.join()


def _seconds(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])


def _kind(process: psutil.Process, driver: psutil.Process) -> str:
    if process == driver:
        return "driver"
    title = " ".join(process.cmdline())
    found = next((kind for mark, kind in _KINDS.items() if mark in title), None)
    return found or ("tasks" if title.startswith("ray::") and "Agent" not in title and "Actor" not in title else "ray")


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(Path(sys.argv[2]))
    else:
        print(json.dumps(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))))
