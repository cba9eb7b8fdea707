"""The steps of a study on paper: each distinct step once, from the settings of its cell and the sizes of its files.

`jobs.experiment.expected` asks for single steps on this machine, `ctxner cost STUDY` for all of them on given hosts.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ctxner.config import Config
from ctxner.encoders import encoder_config, packaged_encoder
from ctxner.training.estimate.machine import memory_bytes
from ctxner.training.estimate.memory import EncoderShape
from jobs.cost.amounts import ENCODERS, JOBS, Amounts
from jobs.cost.files import Costs, HostKind
from jobs.cost.model import GIB, Fleet, Job, Row
from jobs.experiment.keys import KINDS, StepKind
from jobs.experiment.tasks import Task


def this_machine() -> Fleet:
    """One host like this machine; its cores are taken to be as fast as those that were measured."""
    cores = len(os.sched_getaffinity(0))
    kind = HostKind(cores=cores, memory_gib=memory_bytes() / GIB, network_gbit=10, price=0)
    return Fleet(kind, 1, cores, storage_gbit=10)


def step_job(kind: StepKind, config: Config, costs: Costs, fleet: Fleet) -> Job:
    """A step of a cell as a job on paper.

    Raises:
        ValueError: The encoder's sizes are not known here.
    """
    sentences = {
        name: _bytes(config.data.path(name)) / costs.text.sentence_bytes for name in config.data.named_splits()
    }
    amounts = Amounts(
        sentences=sum(sentences.values()),
        passages=_passages(config, costs),
        query=config.retrieval.query,
        rerank=config.retrieval.rerank,
        index_is_copied=config.index.source is not None,
    )
    if kind == "index":
        return JOBS["index"](amounts, costs, replace(fleet, hosts=1, workers=config.index.shards))
    if kind == "shuffle":
        job = JOBS["retrieve"](amounts, costs, fleet)
        return Job("shuffle", tuple(row for row in job.rows if row.stage == "retrieve.join"))
    if kind == "contexts":
        return JOBS["retrieve"](amounts, costs, fleet)
    amounts = replace(
        amounts,
        sentences=sentences.get("dev" if kind == "calibrate" else "test", 0),
        shape=_shape(config),
        context_pieces=min(costs.text.context_pieces, config.model.max_pieces),
    )
    if kind in ("calibrate", "score"):
        return JOBS["evaluate"](amounts, costs, fleet)
    seen = min(sentences.get("train", 0), config.data.train_sentences or float("inf"))
    training = replace(
        amounts,
        sentences=seen,
        epochs=config.optim.epochs,
        batch=config.optim.batch_sentences * config.optim.accumulate,
        is_cooperative=config.loss.mode != "plain",
    )
    return JOBS["train"](training, costs, training_fleet(config, fleet))


def training_fleet(config: Config, fleet: Fleet) -> Fleet:
    """The part of the hosts that a training takes."""
    if fleet.kind.gpus:
        return replace(fleet, hosts=min(fleet.hosts, -(-config.run.workers // fleet.kind.gpus)))
    cores = config.run.workers * (config.run.threads or fleet.kind.cores)
    return replace(fleet, hosts=min(fleet.hosts, -(-cores // fleet.kind.cores)), workers=min(cores, fleet.kind.cores))


def study_jobs(tasks: Sequence[Task], costs: Costs, fleet: Fleet) -> list[Job]:
    """The steps of a study by kind, each distinct step once; trainings run side by side where the hosts have room."""
    jobs: dict[StepKind, list[Job]] = defaultdict(list)
    known: set[tuple[StepKind, str]] = set()
    for task in tasks:
        for kind in KINDS:
            if kind in task.keys and (kind, task.keys[kind]) not in known:
                known.add((kind, task.keys[kind]))
                job = step_job(kind, task.cell.config, costs, fleet)
                side = _side_by_side(kind, task.cell.config, fleet)
                jobs[kind].append(Job(job.name, tuple(_shared(row, side) for row in job.rows), job.notes))
    return [_summed(kind, made) for kind, made in jobs.items()]


def _side_by_side(kind: StepKind, config: Config, fleet: Fleet) -> int:
    """How many such steps run at once."""
    if kind in ("calibrate", "score"):
        return fleet.hosts
    if kind != "train":
        return 1
    part = training_fleet(config, fleet)
    return max(1, int((fleet.hosts * fleet.kind.cores) // (part.hosts * min(part.workers, part.kind.cores))))


def _shared(row: Row, side: int) -> Row:
    return replace(row, seconds=row.seconds / side, parts={name: part / side for name, part in row.parts.items()})


def _summed(kind: StepKind, jobs: Sequence[Job]) -> Job:
    rows: dict[str, Row] = {}
    for row in (row for job in jobs for row in job.rows):
        before = rows.get(row.stage)
        rows[row.stage] = _sum(before, row) if before else row
    notes = tuple(dict.fromkeys(note for job in jobs for note in job.notes))
    return Job(f"{len(jobs)} x {kind}", tuple(rows.values()), notes)


def _sum(left: Row, right: Row) -> Row:
    names = dict.fromkeys([*left.parts, *right.parts])
    return replace(
        left,
        units=left.units + right.units,
        seconds=left.seconds + right.seconds,
        parts={name: left.parts.get(name, 0) + right.parts.get(name, 0) for name in names},
        cpu_seconds=left.cpu_seconds + right.cpu_seconds,
        **{name: getattr(left, name) + getattr(right, name) for name in ("read_bytes", "written_bytes", "sent_bytes")},
        **{name: max(getattr(left, name), getattr(right, name)) for name in ("worker_bytes", "driver_bytes")},
    )


def _shape(config: Config) -> EncoderShape:
    encoder = config.model.encoder or packaged_encoder()
    if not Path(encoder).is_dir() and (shape := ENCODERS.get(encoder.rpartition("/")[2])):
        return shape  # a name of the hub whose sizes are known here
    return EncoderShape.of(encoder_config(encoder))


def _passages(config: Config, costs: Costs) -> float:
    return sum(_bytes(path) / _passage_bytes(path, costs) for path in config.index.corpus)


def _passage_bytes(path: Path, costs: Costs) -> float:
    packed = path.suffix in (".gz", ".zst", ".bz2", ".parquet")
    return costs.text.corpus_file_bytes if packed else costs.text.passage_bytes


def _bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else 0
