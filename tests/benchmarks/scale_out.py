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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

NODES = (1, 2, 4)
_CPUS = 4  # logical ones of a node
_SAMPLE_SECONDS = 0.5


def main(index: Path, file: Path, *, rerank: bool) -> None:
    """Print the lines; `growth` compares with the one node."""
    psutil.Process().cpu_affinity([0])
    first = None
    for num_nodes in NODES:
        samples = _job(num_nodes, index, file, rerank=rerank)
        num_all, cpu_all = samples[-1]
        num_before, cpu_before = next(own for own in samples if own[0] >= num_all / 2)
        # Samples after all rows are done belong to the end of the job.
        num_done, cpu_done = max(own for own in samples if own[0] < num_all)
        each = (cpu_done - cpu_before) / (num_done - num_before)
        first = first or each
        figures = {"cpu_ms_a_sentence": round(1000 * each, 3), "growth": round(each / first - 1, 3)}
        fixed = {"fixed_cpu_s": round(cpu_all - each * num_all, 1), "cpu_s": round(cpu_all, 1), "sentences": num_all}
        print(json.dumps({"nodes": num_nodes, "rerank": rerank, **figures, **fixed}), flush=True)


def _job(num_nodes: int, index: Path, file: Path, *, rerank: bool) -> list[tuple[int, float]]:
    """(sentences done, CPU seconds so far) while retrieving for a file; the last one when the nodes have ended."""
    from jobs.cluster import prepare

    prepare()
    import ray
    from ray.cluster_utils import Cluster

    from ctxner.config import parse_config
    from ctxner.conll import iter_sentences
    from ctxner.pipelines import retrieve

    sections = {"search_actors": num_nodes, "rerank_actors": num_nodes, "threads": 1, "rerank": rerank}
    config = parse_config({"index": {"folder": str(index)}, "retrieval": sections})
    samples = list[tuple[int, float]]()
    with tempfile.TemporaryDirectory() as out, _counted() as spent:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": _CPUS, "include_dashboard": False})
        for _ in range(num_nodes - 1):
            cluster.add_node(num_cpus=_CPUS)
        ray.init(address=cluster.address, log_to_driver=False)
        try:
            sentences = {"all": iter_sentences([file])}
            found = retrieve(
                sentences, config, Path(out), on_progress=lambda done: samples.append((done, sum(list(spent.values()))))
            )
        finally:
            ray.shutdown()
            cluster.shutdown()
    assert found["errors"] == 0
    return [*samples, (found["sentences"], sum(spent.values()))]


@contextmanager
def _counted() -> Iterator[dict[int, float]]:
    """CPU seconds by process, of this one and all below it; filled when the block ends."""
    own, ended, spent = psutil.Process(), threading.Event(), dict[int, float]()
    before = sum(own.cpu_times()[:2])

    def sample() -> None:
        for process in (own, *own.children(recursive=True)):
            try:
                spent[process.pid] = sum(process.cpu_times()[:2]) - (before if process.pid == own.pid else 0.0)
            except psutil.Error:  # ended meanwhile: what was seen last counts
                continue

    def watch() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            sample()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield spent
    finally:
        sample()
        ended.set()
        thread.join()
        time.sleep(_SAMPLE_SECONDS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("index", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rerank", action="store_true")
    given = parser.parse_args()
    main(given.index, given.file, rerank=given.rerank)
