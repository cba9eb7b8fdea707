"""CPU seconds a sentence that retrieval costs on a cluster of 1, 2 and 4 nodes, which should not grow with them.

`python -m tests.benchmarks.scale_out INDEX FILE [--rerank]` retrieves for the sentences of FILE (JSON lines) on logical
nodes of one machine (`ray.cluster_utils.Cluster`), each with a search actor (and a re-rank actor) of one thread, and
prints a JSON line a cluster. Counted are all processes of the job, by their CPU times: wall-clock time says nothing
where the nodes share cores. All of it is bound to one core, since two threads of a core, busy at once, count more CPU
time for the same work than one alone. A node has four logical CPUs, as Ray Data's own tasks need two beside the actors.

- `cpu_ms_a_sentence`: what a sentence of the second half of the file costs, `by_kind` of process; what an actor or a
  node costs once is in `cpu_s` only.
- `idle_ms_a_sentence`: the part of it that a cluster of so many nodes costs while it waits, by the second.
- `reference_ms`: the actors' classes without Ray, as many processes side by side, which share the core's caches too.
- `growth`: against one node. `growth_beyond_reference`: without the idle part, over the reference's own growth.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.benchmarks.cluster_jobs import counted

NODES = (1, 2, 4)
_CPUS = 4  # logical ones of a node
_SETTLE_SECONDS, _IDLE_SECONDS = 20, 20
_REFERENCE_SENTENCES = 48_000  # of the file, at most, shared out between the reference's processes


def main(index: Path, file: Path, *, nodes: Sequence[int], rerank: bool) -> None:
    """Print the lines; growth is against the first."""
    psutil.Process().cpu_affinity([0])
    firsts = None
    for num_nodes in nodes:
        samples, idle_rate = _job(num_nodes, index, file, rerank=rerank)
        last = samples[-1]
        before = next(own for own in samples if own.num_done >= last.num_done / 2)
        # Samples after all rows are done belong to the end of the job.
        after = max((own for own in samples if own.num_done < last.num_done), key=lambda own: own.num_done)
        spent, num_sentences = after.spent - before.spent, after.num_done - before.num_done
        each = {kind: 1000 * seconds / num_sentences for kind, seconds in sorted(spent.items())}
        total, seconds = sum(each.values()), after.time - before.time
        idle = 1000 * idle_rate * seconds / num_sentences
        reference = _reference(num_nodes, index, file, rerank=rerank)
        firsts = firsts or (total, total - idle, reference)
        figures = {
            "cpu_ms_a_sentence": total,
            "growth": total / firsts[0] - 1,
            "idle_ms_a_sentence": idle,
            "reference_ms": reference,
            "growth_beyond_reference": (total - idle) / firsts[1] / (reference / firsts[2]) - 1,
            "seconds": seconds,
            "cpu_s": last.spent.total(),
        }
        figures = {name: round(value, 3) for name, value in figures.items()}
        by_kind = {kind: round(ms, 3) for kind, ms in each.items()}
        line = {"nodes": num_nodes, "rerank": rerank, **figures, "by_kind": by_kind, "sentences": last.num_done}
        print(json.dumps(line), flush=True)


def _reference(num_processes: int, index: Path, file: Path, *, rerank: bool) -> float:
    """CPU milliseconds a sentence of the second half of their shares, the mean of all processes."""
    command = [sys.executable, "-m", "tests.benchmarks.scale_out", str(index), str(file)]
    command += ["--rerank"] if rerank else []
    shares = [[*command, "--share", str(rank), str(num_processes)] for rank in range(num_processes)]
    processes = [subprocess.Popen(own, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for own in shares]
    return statistics.mean(float(own.communicate()[0].splitlines()[-1]) for own in processes)


def share(index: Path, file: Path, rank: int, num_processes: int, *, rerank: bool) -> float:
    """One process of the reference."""
    import pyarrow as pa

    from ctxner.batch.retrieval_actors import Rerank, Search
    from ctxner.config import parse_config
    from ctxner.files.sentences import iter_sentences
    from ctxner.retrieval.index.fetch import index_manifest
    from ctxner.retriever import decided

    sections = {"search_actors": num_processes, "threads": 1, "rerank": rerank}
    config = parse_config({"index": {"folder": str(index)}, "retrieval": sections})
    settings = decided(config.retrieval).model_dump()
    actors = [Search(config.index.model_dump(), index_manifest(config.index.folder, None), settings)]
    actors += [Rerank(settings)] if rerank else []
    sentences = list(islice(iter_sentences([file]), rank, _REFERENCE_SENTENCES, num_processes))
    marks = []
    for first in range(0, len(sentences), 512):
        chosen = sentences[first : first + 512]
        rows = pa.table({"sentence_id": [own.id for own in chosen], "words": [list(own.words) for own in chosen]})
        rows = rows.append_column("position", pa.array(range(len(chosen))))
        for actor in actors:
            rows = actor(rows)
        marks.append((first + len(chosen), time.process_time()))
    half = next(mark for mark in marks if mark[0] >= len(sentences) / 2)
    return 1000 * (marks[-1][1] - half[1]) / (marks[-1][0] - half[0])


class _Sample(NamedTuple):
    num_done: int
    time: float
    spent: Counter[str]  # CPU seconds so far by kind of process


def _job(num_nodes: int, index: Path, file: Path, *, rerank: bool) -> tuple[list[_Sample], float]:
    """Samples while retrieving for a file, the last when the nodes have ended; CPUs that they keep busy when idle."""
    from jobs.cluster import prepare

    prepare()
    import ray
    from ray.cluster_utils import Cluster

    from ctxner.batch.retrieve import retrieve
    from ctxner.config import parse_config
    from ctxner.files.sentences import iter_sentences

    sections = {"search_actors": num_nodes, "rerank_actors": num_nodes, "threads": 1, "rerank": rerank}
    config = parse_config({"index": {"folder": str(index)}, "retrieval": sections})
    samples = list[_Sample]()
    with tempfile.TemporaryDirectory() as out, counted() as meter:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": _CPUS, "include_dashboard": False})
        for _ in range(num_nodes - 1):
            cluster.add_node(num_cpus=_CPUS)
        ray.init(address=cluster.address, log_to_driver=False)
        time.sleep(_SETTLE_SECONDS)
        started, before = time.perf_counter(), meter.spent()
        time.sleep(_IDLE_SECONDS)
        idle = (meter.spent() - before).total() / (time.perf_counter() - started)
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
    return [*samples, _Sample(found["sentences"], time.perf_counter(), meter.spent())], idle


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("index", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rerank", action="store_true")
    parser.add_argument("--nodes", type=int, nargs="+", default=NODES)
    parser.add_argument("--share", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.share:
        print(share(given.index, given.file, *given.share, rerank=given.rerank))
        sys.exit()
    main(given.index, given.file, nodes=given.nodes, rerank=given.rerank)
