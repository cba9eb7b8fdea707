"""Runs a job with a folder (`ctxner.batch.job_folder`) on Ray Data: read, pass through actor pools, write.

A killed job continues when it is run again. `ctxner.batch.retrieve` and `ctxner.batch.tag` choose the actors.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
import ray.data
from ray._private.state import available_resources_per_node
from ray.data.checkpoint import CheckpointConfig

from ctxner.batch.job_folder import JobFolder

logger = logging.getLogger(__name__)
# Ray Data holds the ids of all finished rows in one array when a job goes on: 8 bytes per number, 64 per string.
ID_COLUMN = "position"
_OTHER_CPUS = 2  # left for Ray Data's own tasks; without them a resumed job would wait forever
_PROGRESS_SECONDS = 2.0
_ENDING_SECONDS = 3.0
# What fsspec's clients say of a store that may answer again; Ray Data tries such reads and writes up to ten times.
_PASSING = ("Could not connect to the endpoint URL", "Read timeout on endpoint URL", "Connection was closed before")


@dataclass(frozen=True)
class Pool:
    """A stage of a job: actors that transform batches of rows. The pool has one to `num_actors` actors, as needed.

    Attributes:
        actor: Class whose instances are called with a `pyarrow.Table`.
        arguments: Arguments of its constructor.
        batch_size: Rows per call.
        setting: Name of the setting that bounds the number of actors, for errors.
        num_actors: Largest number of actors.
        num_cpus: CPUs that an actor reserves.
        num_gpus: GPUs that an actor reserves; 0.5 puts two actors on one GPU.
    """

    actor: type
    arguments: tuple[Any, ...]
    batch_size: int
    setting: str
    num_actors: int
    num_cpus: float
    num_gpus: float = 0


def run(job: JobFolder, pools: Sequence[Pool], *, on_progress: Callable[[int], None] | None = None) -> None:
    """Make the rows that are still missing.

    Args:
        job: Job whose inputs have the column `position`, unique numbers; all pools must keep this column.
        pools: Pools in the order in which each row passes through them.
        on_progress: Called every two seconds with the number of complete rows.
    """
    context = ray.data.DataContext.get_current()
    checkpoint, inputs, rows_folder = (job.shared(folder) for folder in (job.checkpoint, job.inputs, job.rows))
    if job.store:
        context.retried_io_errors = list({*context.retried_io_errors, *_PASSING})
    context.enable_progress_bars = False  # the driver shows one bar that counts rows
    context.checkpoint_config = CheckpointConfig(
        id_column=ID_COLUMN,
        checkpoint_path=checkpoint["path"],
        override_filesystem=checkpoint["filesystem"],
        delete_checkpoint_on_success=False,
    )
    context.checkpoint_config.checkpoint_actor_pool_max_size = 1
    try:
        with _watched(job, on_progress):
            rows = ray.data.read_parquet(inputs["path"], filesystem=inputs["filesystem"])
            rows = rows.repartition(target_num_rows_per_block=pools[0].batch_size)
            for pool in pools:
                num_first = min(pool.num_actors, -(-job.num_rows // pool.batch_size))  # at most one per batch
                rows = rows.map_batches(
                    pool.actor,
                    fn_constructor_args=pool.arguments,
                    batch_size=pool.batch_size,
                    batch_format="pyarrow",
                    compute=ray.data.ActorPoolStrategy(min_size=1, max_size=pool.num_actors, initial_size=num_first),
                    num_cpus=pool.num_cpus,
                    num_gpus=pool.num_gpus or None,
                )
            rows.write_parquet(rows_folder["path"], filesystem=rows_folder["filesystem"])
    finally:
        context.checkpoint_config = None


def check_resources(pools: Sequence[Pool]) -> None:
    """Refuse pools that the cluster cannot schedule, instead of waiting forever; warn of those that wait for others.

    Raises:
        ValueError: All actors together need more CPUs or GPUs than the cluster has.
    """
    have = ray.cluster_resources()
    wanted = {
        "CPU": _OTHER_CPUS + sum(pool.num_actors * pool.num_cpus for pool in pools),
        "GPU": sum(pool.num_actors * pool.num_gpus for pool in pools),
    }
    advice = "lower the actors or what one reserves, or add nodes"
    for unit, number in wanted.items():
        if have.get(unit, 0) < number:
            raise ValueError(f"{_wants(pools, unit, number, have)}: {advice}")
    unused = _unused(wanted["CPU"])
    for unit, number in wanted.items():
        if unused[unit] < number:
            wants = _wants(pools, unit, number, have)
            logger.warning(
                "%s, and others hold all but %g: the job waits for them; else %s", wants, unused[unit], advice
            )


def _wants(pools: Sequence[Pool], unit: str, number: float, have: Mapping[str, float]) -> str:
    each = {"CPU": "num_cpus", "GPU": "num_gpus"}[unit]
    asked = [
        f"{pool.num_actors} x {getattr(pool, each):g} ({pool.actor.__name__}, {pool.setting}={pool.num_actors})"
        for pool in pools
        if getattr(pool, each)
    ]
    rest = f" and {_OTHER_CPUS} for reading, resuming and writing" if unit == "CPU" else ""
    return f"the actors want {number:g} {unit}s: {', '.join(asked)}{rest}; the cluster has {have.get(unit, 0):g}"


def room(num_cpus: float, num_gpus: float, num_pools: int, others: Sequence[Pool]) -> tuple[int, float]:
    """How many actors each of `num_pools` equal pools can have on this cluster, beside the other pools and other jobs.

    What a server or another job holds does not count: actors in all of it would leave nothing to Ray Data's tasks.

    Args:
        num_cpus: CPUs that an actor should reserve.
        num_gpus: GPUs that an actor should reserve.
        num_pools: Number of equal pools.
        others: Pools of the same job whose actors also need room.

    Returns:
        Actors per pool, at least one; and CPUs per actor, fewer than asked for if not even one actor would fit.
    """
    have = _unused()
    cpus = (have["CPU"] - _OTHER_CPUS - sum(other.num_actors * other.num_cpus for other in others)) / num_pools
    gpus = (have["GPU"] - sum(other.num_actors * other.num_gpus for other in others)) / num_pools
    num_actors = int(min(cpus / num_cpus, gpus / num_gpus if num_gpus else float("inf")))
    return max(1, num_actors), cpus if 0 < cpus < num_cpus else num_cpus


def _unused(wanted: float | None = None) -> dict[str, float]:
    """CPUs and GPUs that nobody holds; of CPUs only whole ones of a node, as a task of Ray Data needs one.

    Ray learns with a delay that actors have ended, so those of this program's last job are waited for, until so many
    CPUs are free; None: all of them.
    """
    wanted = ray.cluster_resources().get("CPU", 0) if wanted is None else wanted
    until = time.monotonic() + _ENDING_SECONDS
    while True:
        nodes = list(available_resources_per_node().values())
        cpus = sum(int(node.get("CPU", 0)) for node in nodes)
        if cpus >= wanted or time.monotonic() > until:
            return {"CPU": cpus, "GPU": sum(node.get("GPU", 0) for node in nodes)}
        time.sleep(_ENDING_SECONDS / 10)


def num_threads(threads: int | None, num_actors: int, num_gpus: float = 0) -> int:
    """Threads per actor: `threads` if it is set, else the cores of this node divided by its share of the actors.

    Args:
        threads: Setting of the user.
        num_actors: Largest number of equal actors on all nodes, over which Ray spreads them.
        num_gpus: GPUs that an actor reserves; with any, only nodes with GPUs have actors.
    """
    unit = "GPU" if num_gpus else "CPU"
    nodes = ray.nodes() if ray.is_initialized() else []
    num_nodes = sum(node["Alive"] and node["Resources"].get(unit, 0) > 0 for node in nodes)
    return threads or threads_of(os.cpu_count() or 1, num_actors, max(1, num_nodes))


def threads_of(num_cores: int, num_actors: int, num_nodes: int) -> int:
    """Threads of each of `num_actors` actors that are spread over equal nodes of `num_cores`, at least 1."""
    return max(1, num_cores // math.ceil(num_actors / num_nodes))


@contextmanager
def _watched(job: JobFolder, on_progress: Callable[[int], None] | None) -> Iterator[None]:
    """Report the number of complete rows from a thread while Ray Data works."""
    ended = threading.Event()

    def watch() -> None:
        while on_progress and not ended.wait(_PROGRESS_SECONDS):
            on_progress(job.num_done())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
