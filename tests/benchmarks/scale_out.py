"""CPU seconds a sentence that retrieval costs on a cluster of 1, 2 and 4 nodes, which should not grow with them.

`python -m tests.benchmarks.scale_out INDEX FILE [--rerank]` retrieves for the sentences of FILE (JSON lines) on logical
nodes of one machine (`ray.cluster_utils.Cluster`), each with a search actor (and a re-rank actor) of one thread, and
prints a JSON line a cluster: what a sentence of the second half of the file costs, and all else, the fixed cost of a
job and of its nodes (Ray's own processes, and in each actor a JVM that compiles what it runs often, which takes some
thousand sentences of each). Counted are all processes of the job, by their CPU times: wall-clock time says nothing
where the nodes share cores. All of it is bound to one core, since two threads of a core, busy at once, count more CPU
time for the same work than one alone. A node has four logical CPUs, as Ray Data's own tasks need two beside the
actors.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

NODES = (1, 2, 4)
_CPUS = 4  # logical ones of a node
_SAMPLE_SECONDS = 2.0
_COMPILER = "java compiler"
_KINDS = {"Search": ("(Search)",), "Rerank": ("(Rerank)",), "ray": ("Agent", "Actor", "ActorLocationTracker")}


def main(index: Path, file: Path, *, nodes: Sequence[int], rerank: bool) -> None:
    """Print the lines; `growth` compares with the one node."""
    psutil.Process().cpu_affinity([0])
    first = None
    for num_nodes in nodes:
        samples = _job(num_nodes, index, file, rerank=rerank)
        last = samples[-1]
        before = next(own for own in samples if own.num_done >= last.num_done / 2)
        # Samples after all rows are done belong to the end of the job.
        after = max((own for own in samples if own.num_done < last.num_done), key=lambda own: own.num_done)
        spent, num_sentences = after.spent - before.spent, after.num_done - before.num_done
        each = {kind: 1000 * seconds / num_sentences for kind, seconds in sorted(spent.items())}
        total = sum(each.values())
        first = first or total
        print(
            json.dumps(
                {
                    "nodes": num_nodes,
                    "rerank": rerank,
                    "cpu_ms_a_sentence": round(total, 3),
                    "growth": round(total / first - 1, 3),
                    "by_kind": {kind: round(ms, 3) for kind, ms in each.items()},
                    "wall_s": round(after.time - before.time, 1),
                    "cpu_s": round(last.spent.total(), 1),
                    "cpu_s_by_kind": {kind: round(seconds, 1) for kind, seconds in sorted(last.spent.items())},
                    "sentences": last.num_done,
                }
            ),
            flush=True,
        )


class _Sample(NamedTuple):
    num_done: int
    time: float
    spent: Counter[str]  # CPU seconds so far by kind of process


def _job(num_nodes: int, index: Path, file: Path, *, rerank: bool) -> list[_Sample]:
    """Samples while retrieving for a file; the last one when the nodes have ended."""
    from jobs.cluster import prepare

    prepare()
    import ray
    from ray.cluster_utils import Cluster

    from ctxner.config import parse_config
    from ctxner.conll import iter_sentences
    from ctxner.pipelines import retrieve

    sections = {"search_actors": num_nodes, "rerank_actors": num_nodes, "threads": 1, "rerank": rerank}
    config = parse_config({"index": {"folder": str(index)}, "retrieval": sections})
    samples = list[_Sample]()
    with tempfile.TemporaryDirectory() as out, _counted() as meter:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": _CPUS, "include_dashboard": False})
        for _ in range(num_nodes - 1):
            cluster.add_node(num_cpus=_CPUS)
        ray.init(address=cluster.address, log_to_driver=False)
        try:
            found = retrieve(
                {"all": iter_sentences([file])},
                config,
                Path(out),
                on_progress=lambda done: samples.append(_Sample(done, time.perf_counter(), meter.spent())),
            )
        finally:
            ray.shutdown()
            cluster.shutdown()
    assert found["errors"] == 0
    return [*samples, _Sample(found["sentences"], time.perf_counter(), meter.spent())]


class _Meter:
    """CPU seconds of this process and all below it, also of those that ended since they were last looked at."""

    def __init__(self) -> None:
        self._own = psutil.Process()
        self._before = _seconds(self._own)
        self._spent = dict[tuple[int, str], float]()

    def look(self) -> None:
        for process in (self._own, *self._own.children(recursive=True)):
            try:
                seconds = _seconds(process) - (self._before if process == self._own else 0.0)
                kind = _kind(process, self._own)
                compiling = _compiling(process) if kind == "Search" else 0.0
            except psutil.Error:  # ended meanwhile: what was seen last counts
                continue
            for earlier in [key for key in self._spent if key[0] == process.pid and key[1] not in (kind, _COMPILER)]:
                del self._spent[earlier]  # an idle worker became an actor
            compiling = max(compiling, self._spent.get((process.pid, _COMPILER), 0.0))  # its threads come and go
            self._spent[process.pid, kind] = seconds - compiling
            if compiling:
                self._spent[process.pid, _COMPILER] = compiling

    def spent(self) -> Counter[str]:
        total = Counter[str]()
        for (_, kind), seconds in list(self._spent.items()):
            total[kind] += seconds
        return total


@contextmanager
def _counted() -> Iterator[_Meter]:
    """Looks every two seconds until the block ends; looking is counted with the driver."""
    meter, ended = _Meter(), threading.Event()

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


def _compiling(process: psutil.Process) -> float:
    """CPU seconds of Java's compiler threads."""
    total = 0.0
    for thread in process.threads():
        with suppress(OSError):
            name = Path(f"/proc/{process.pid}/task/{thread.id}/comm").read_text()
            total += thread.user_time + thread.system_time if name.startswith(("C1 ", "C2 ")) else 0.0
    return total


def _kind(process: psutil.Process, driver: psutil.Process) -> str:
    if process == driver:
        return "driver"
    words = process.cmdline() or [process.name()]
    for kind, names in _KINDS.items():
        if any(name in " ".join(words) for name in names):
            return kind
    return "tasks" if words[0].startswith("ray::") else "ray"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("index", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rerank", action="store_true")
    parser.add_argument("--nodes", type=int, nargs="+", default=NODES)
    given = parser.parse_args()
    main(given.index, given.file, nodes=given.nodes, rerank=given.rerank)
