"""Retrieval and tagging on 1, 2 and 4 logical nodes, as much work for each node, beside what `ctxner cost` predicts.

`python -m tests.benchmarks.weak_scaling FOLDER [--repeats N] [--jobs ...] [--nodes ...]` prints a JSON line per job,
number of nodes and repeat. Each is a pair of jobs, a small and a large one, on a Ray of its own; figures per sentence
are of the difference, so that what a job, a node or an actor costs once is not in them:

- `cpu_ms`: CPU milliseconds per sentence of actors, Ray Data's tasks and the driver; Ray's own processes, which are
  busy by the second, are in `ray_cores`, per node.
- `seconds`: of the difference. Nodes share this machine's cores: `cores` is how many there are for the actors, which
  have one thread each, and `cores_left` what other processes of the machine left of them meanwhile.
- `predicted`: the same by `jobs/cost/costs.yaml`; `seconds_on_what_was_left` takes `cores_left` for the cores.
- `driver_mib`: the largest resident memory of the driver in the large job.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from jobs.cost.amounts import JOBS, Amounts
from jobs.cost.files import Costs, HostKind, read_costs
from jobs.cost.model import Fleet, Job, driver_bytes
from tests.benchmarks import cluster_jobs

SMALL, LARGE = {"retrieve": 1000, "plain": 500}, {"retrieve": 9000, "plain": 2500}  # sentences per node
_CPU_KINDS = ("search", "rerank", "look_up", "tag", "tasks", "driver")


def main(folder: Path, *, jobs: list[str], nodes: list[int], repeats: int) -> None:
    """Print the lines."""
    cluster_jobs.prepare(folder)
    for repeat in range(repeats):
        for job in jobs:
            for number in nodes:
                print(json.dumps({"repeat": repeat, **measured(job, number, folder)}), flush=True)


def measured(job: str, nodes: int, folder: Path) -> dict[str, Any]:
    """One pair of jobs and its prediction."""
    small = cluster_jobs.measured(job, nodes, nodes * SMALL[job], folder)
    with _others() as others:
        large = cluster_jobs.measured(job, nodes, nodes * LARGE[job], folder)
    sentences = large["sentences"] - small["sentences"]
    cpu, before = ({kind: line["cpu_s"].get(kind, 0) for kind in _CPU_KINDS} for line in (large, small))
    own = sum(large["cpu_s"].values()) + large["ray_cpu_s"]
    ray_cores = large["cpu_s"]["ray"] / large["seconds"] / nodes
    machine = os.cpu_count() or 1
    left = machine - max(0.0, others["busy"] - own) / others["seconds"]
    costs = read_costs()
    predicted = prediction(job, nodes, sentences, costs, machine)
    on_left = prediction(job, nodes, sentences, costs, left)
    cpu_ms = 1000 * sum(cpu[kind] - before[kind] for kind in _CPU_KINDS) / sentences
    seconds = large["seconds"] - small["seconds"]
    figures = {
        "cpu_ms": cpu_ms,
        "seconds": seconds,
        "cores_left": left,
        "ray_cores": ray_cores,
        "driver_mib": large["driver_mib"],
        "load": large["load"],
    }
    told = {
        "cpu_ms": 1000 * predicted["cpu_seconds"] / sentences,
        "seconds": predicted["seconds"],
        "seconds_on_what_was_left": on_left["seconds"],
        "driver_mib": predicted["driver_bytes"] / 2**20,
    }
    off = {
        "cpu": told["cpu_ms"] / cpu_ms - 1,
        "seconds": told["seconds"] / seconds - 1,
        "seconds_on_what_was_left": told["seconds_on_what_was_left"] / seconds - 1,
        "driver": told["driver_mib"] / large["driver_mib"] - 1,
    }
    rounded = [{name: round(value, 3) for name, value in part.items()} for part in (figures, told, off)]
    by_kind = {kind: round(1000 * (cpu[kind] - before[kind]) / sentences, 3) for kind in _CPU_KINDS}
    return {"job": job, "nodes": nodes, "sentences": sentences, **rounded[0], "by_kind": by_kind,
            "predicted": rounded[1], "off": rounded[2]}  # fmt: skip


def prediction(job: str, nodes: int, sentences: float, costs: Costs, machine_cores: float) -> dict[str, float]:
    """What the model says of so many sentences, without starts, on logical nodes of one actor of one thread."""
    kind = HostKind(cores=2, memory_gib=24, network_gbit=100, price=0)
    fleet = Fleet(kind, nodes, 1, storage_gbit=100, ray_cores=costs.ray_cores, shared_cores=machine_cores)
    amounts = Amounts(sentences, passages=cluster_jobs.PASSAGES, rerank=False, index_is_copied=False)
    made = JOBS["retrieve" if job == "retrieve" else "tag"](amounts, costs, fleet)
    rows = [replace(row, seconds=row.seconds - row.parts.get("start", 0)) for row in made.rows]
    return {
        "seconds": sum(row.seconds for row in rows),
        "cpu_seconds": sum(row.cpu_seconds for row in rows),
        "driver_bytes": driver_bytes(Job(made.name, tuple(rows)), costs),
    }


@contextmanager
def _others() -> Iterator[dict[str, float]]:
    """CPU seconds of all processes of the machine while the block runs, and its seconds."""
    told: dict[str, float] = {}
    before, started = _busy(), time.perf_counter()
    yield told
    told |= {"busy": _busy() - before, "seconds": time.perf_counter() - started}


def _busy() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0) - getattr(times, "guest", 0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--jobs", nargs="+", choices=list(SMALL), default=list(SMALL))
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4])
    given = parser.parse_args()
    main(given.folder, jobs=given.jobs, nodes=given.nodes, repeats=given.repeats)
