"""Writes the shards of an index in parallel: one Ray task per shard, and one JVM in the process of each task.

`ctxner.retrieval.index.build` writes a single shard. On a cluster the corpus and the index must lie on storage that
all nodes share, or behind URIs: then each node reads a copy of the corpus and moves its shards to the store.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError

from ctxner.files.node_copies import scratch_folder
from ctxner.files.storage import put_folder
from ctxner.retrieval.index.build import OnProgress, ShardPlan, WrittenShard, write_shard
from ctxner.retrieval.index.versions import shard_folders

_POLL_SECONDS = 0.5


class _Progress:
    """Progress of each shard: number of passages written, and share of the corpus read."""

    def __init__(self, num_shards: int) -> None:
        self._done = [(0, 0.0)] * num_shards

    def set(self, shard: int, num_passages: int, share: float) -> None:
        self._done[shard] = (num_passages, share)

    def total(self) -> tuple[int, float]:
        return sum(number for number, _ in self._done), sum(share for _, share in self._done) / len(self._done)


# max_calls=1: the process and its JVM end with the task. Else Ray would fill the node of the driver first.
@ray.remote(num_cpus=1, max_calls=1, scheduling_strategy="SPREAD")
def _write(plan: ShardPlan, folder: Path, shard: int, progress: ray.actor.ActorHandle, uri: str | None) -> WrittenShard:
    def report(num_passages: int, share: float) -> None:
        progress.set.remote(shard, num_passages, share)

    if uri is None:
        return write_shard(plan, folder, shard, report)
    with scratch_folder("index-builds") as work:
        written = write_shard(plan, work, shard, report)
        path = shard_folders(work, plan.num_shards)[shard]
        put_folder(path, f"{uri}/{path.name}")
    return written


def write_shards_on_ray(
    plan: ShardPlan, folder: Path, on_progress: OnProgress | None, *, uri: str | None = None
) -> list[WrittenShard]:
    """Write all shards of a version in parallel; for `build_index(write_shards=...)`.

    Ray runs a task again when its process or node dies.

    Args:
        plan: Arguments shared by all shards.
        folder: Folder of the version.
        on_progress: See `build_index`.
        uri: URI of the version, to which each node moves the shards that it has written; None: all nodes write into
            the folder.

    Raises:
        ValueError: The first error of `write_shard` in any task; or the shards do not lie on shared storage.
    """
    plan = dataclasses.replace(plan, corpus_paths=tuple(path.resolve() for path in plan.corpus_paths))
    progress: Any = ray.remote(num_cpus=0)(_Progress).remote(plan.num_shards)
    tasks = [_write.remote(plan, folder.resolve(), shard, progress, uri) for shard in range(plan.num_shards)]
    waiting = list(tasks)
    try:
        while waiting:
            ended, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=_POLL_SECONDS)
            ray.get(ended)
            if on_progress and waiting:
                on_progress(*ray.get(progress.total.remote()))
    except RayTaskError as error:
        raise error.cause from None
    finally:
        for task in waiting:
            ray.cancel(task, force=True)
    for shard in shard_folders(folder, plan.num_shards) if uri is None else ():
        if not shard.is_dir():
            raise ValueError(f"{shard}: written on another node; the index must lie on storage that all nodes share")
    written: list[WrittenShard] = ray.get(tasks)
    if on_progress:  # counted from the results: a task's last report may arrive after its result
        on_progress(sum(shard.num_passages for shard in written), 1.0)
    return written
