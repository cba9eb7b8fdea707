"""The Ray Train + DeepSpeed shell around the cooperative step: 1..N workers, on CPUs (gloo) or GPUs (NCCL).

Every worker reads the whole data set, plans the same batches from (seed, epoch) and takes its share of each, so the
number of workers changes nothing but the speed. The step itself is `ctxner.training.step`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train import Checkpoint, CheckpointConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import WorkerGroupError

from ctxner.config import Config, packaged_encoder, parse_config
from ctxner.evaluation import Scores, SpanCounts, count_spans
from ctxner.labels import LabelSet, tags_to_spans
from ctxner.model.tagger import load_tokenizer
from ctxner.predictor import VIEWS, Tagger, ViewName
from ctxner.schema import Example
from ctxner.training import checkpoint as checkpoints
from ctxner.training.export import run_provenance, write_export
from ctxner.training.mlflow_run import check_mlflow
from ctxner.training.plan import TrainingSet, build_model, build_step, load_split
from ctxner.training.progress import epoch_line, peak_memory, progress_bar, quiet_worker
from ctxner.training.recorder import Recorder, run_recorder
from ctxner.training.resume import absolute_paths, check_resumable, read_config, write_config
from ctxner.training.step import CooperativeStep, linear_schedule, parameter_groups
from ctxner.views import ViewBuilder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """What a run left.

    Attributes:
        model: Folder of the tagger with the best mean dev F1 of both views.
        folder: The run's folder: `model/`, `config.json`, `history.json` and Ray Train's checkpoints.
        best: The history entry of that model.
        history: One entry an epoch (see `ctxner.training.checkpoint.Progress`).
    """

    model: Path
    folder: Path
    best: dict[str, Any]
    history: list[dict[str, Any]]


def train(config: Config) -> TrainResult:
    """Train by the config on Ray and publish the best model.

    Raises:
        ValueError: Nothing to train on, a run of that name exists without `resume` or with other settings (see
            `check_resumable`), or more CPUs or GPUs wanted than the cluster has.
        ray.train.v2.api.exceptions.TrainingFailedError: A worker failed; its own error is the cause.
    """
    run = config.run
    name = run.name or f"{config.loss.mode}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    folder = run.storage.resolve() / name
    exists = folder.exists() and any(folder.iterdir())
    if exists and not run.resume:
        raise ValueError(
            f"{folder}: a run of this name exists; choose another run.name, or run.resume=true to go on with it"
        )
    if exists:
        check_resumable(read_config(folder), config, source=str(folder))
    check_mlflow(run.mlflow)
    _check_resources(config)
    if not exists:
        write_config(config, folder)
    placed = config.model_copy(update={"run": run.model_copy(update={"storage": folder.parent, "name": folder.name})})
    trainer = TorchTrainer(
        _worker,
        train_loop_config=absolute_paths(placed).model_dump(mode="json"),
        scaling_config=ScalingConfig(
            num_workers=run.workers,
            use_gpu=run.gpus > 0,
            resources_per_worker={"GPU": run.gpus} if run.gpus else {"CPU": 1},
        ),
        run_config=ray.train.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            checkpoint_config=CheckpointConfig(
                num_to_keep=run.keep_checkpoints, checkpoint_score_attribute="mean_f1", checkpoint_score_order="max"
            ),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),  # epochs are told by rank 0
            failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=3),  # type: ignore[call-arg]
        ),
    )
    try:
        result = trainer.fit()
    except WorkerGroupError as error:
        for rank, cause in sorted(error.worker_failures.items()):
            if isinstance(cause, ValueError | FloatingPointError):  # what a user can mend, without Ray's traceback
                raise type(cause)(f"worker {rank}: {cause}") from error
        raise
    assert result.best_checkpoints, "every epoch reports a checkpoint"
    assert result.checkpoint
    best, metrics = max(result.best_checkpoints, key=lambda pair: pair[1]["mean_f1"])
    model = checkpoints.publish_model(Path(best.path), folder / "model")
    history = list(checkpoints.read_progress(Path(result.checkpoint.path)).history)
    (folder / "history.json").write_text(json.dumps(history, indent=1))
    return TrainResult(model, folder, history[metrics["epoch"] - 1], history)


def count_predictions(tagger: Tagger, examples: Sequence[Example], view: ViewName) -> SpanCounts:
    """Span counts of one view against gold tags."""
    gold = [tags_to_spans(example.sentence.tags or (), source=example.sentence.id) for example in examples]
    return count_spans(gold, [prediction.spans for prediction in tagger.predict(examples, view=view)])


def _worker(tree: dict[str, Any]) -> None:
    """One Ray Train worker, from files to reported checkpoints."""
    quiet_worker()
    config = parse_config(tree)
    rank, world_size = ray.train.get_context().get_world_rank(), ray.train.get_context().get_world_size()
    device = torch.device("cuda", torch.cuda.current_device()) if config.run.gpus else torch.device("cpu")
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
        torch.set_num_threads(config.run.threads or max(1, (os.cpu_count() or 1) // world_size))
    examples, dev = load_split(config.data, "train"), load_split(config.data, "dev")
    labels = LabelSet.from_sentences(example.sentence for example in examples)
    torch.manual_seed(config.run.seed)
    model = build_model(config, labels)
    tokenizer = load_tokenizer(config.model.encoder or packaged_encoder())
    views = ViewBuilder(tokenizer, max_pieces=model.config.max_pieces, max_passages=model.config.max_passages)
    data = TrainingSet(examples, labels, views, config)
    model.to(device)  # type: ignore[arg-type]
    engine = _engine(build_step(model, config), config, data.num_steps())
    tagger = Tagger(model, tokenizer)
    progress = _restore(engine)
    num_done = sum(len(data.steps(epoch)) for epoch in range(progress.epoch))
    provenance = run_provenance(config, {"train": examples, "dev": dev}) if rank == 0 else {}
    with (
        progress_bar(config.loss.mode, num_done, data.num_steps(), shown=rank == 0) as bar,
        run_recorder(config, rank=rank, world_size=world_size, device=device, first_step=num_done) as recorder,
    ):
        for epoch in range(progress.epoch, config.optim.epochs):
            torch.manual_seed(hash((config.run.seed, epoch, rank)))  # dropout; an epoch resumes exactly
            started = time.perf_counter()
            losses = _train_epoch(engine, data, epoch, rank, world_size, device, bar, recorder)
            seconds = time.perf_counter() - started
            scores = {view: _dev_scores(tagger, dev[rank::world_size], view, world_size) for view in VIEWS}
            recorder.timer.lap("evaluation")
            entry = {
                "epoch": epoch + 1,
                "losses": losses,
                "dev_f1": {view: own.f1 for view, own in scores.items()},
                "dev_scores": {view: own.to_dict() for view, own in scores.items()},
                "seconds": seconds,
                "seconds_by_phase": recorder.seconds_by_phase(),
                "sentences_per_second": len(examples) / seconds,
            }
            progress = checkpoints.Progress(epoch + 1, (*progress.history, entry))
            _report(engine, tagger, progress, provenance, rank)
            recorder.timer.lap("checkpoint")
            recorder.epoch(entry)
            if rank == 0:
                seconds_left = (time.perf_counter() - started) * (config.optim.epochs - epoch - 1)
                line = epoch_line(entry, config.optim.epochs, seconds_left, num_bytes=peak_memory(device))
                logger.info("%s %s", config.loss.mode, line)


def _train_epoch(
    engine: Any,
    data: TrainingSet,
    epoch: int,
    rank: int,
    world_size: int,
    device: torch.device,
    bar: Any,
    recorder: Recorder,
) -> dict[str, float]:
    """Run an epoch's steps; the mean of each loss over its sentences, over all ranks."""
    engine.train()
    sums: dict[str, torch.Tensor] = {}
    num_sentences = 0
    for number, step in enumerate(data.steps(epoch)):
        group_sentences = sum(len(batch) for batch in step)
        for place, batch in enumerate(step):
            engine.set_gradient_accumulation_boundary(place == len(step) - 1)
            share = data.share(batch, rank, world_size, device)
            recorder.timer.lap("data")
            losses = engine(*share)
            recorder.timer.lap("forward")
            engine.backward(losses["loss"] * (world_size / group_sentences))  # ranks are averaged: a global mean
            recorder.timer.lap("backward")
            engine.step()
            recorder.timer.lap("step")
            recorder.add(losses, *share)
            for name, value in losses.items():
                sums[name] = sums.get(name, torch.zeros((), device=device)) + value.detach()
        num_sentences += group_sentences
        recorder.step(engine.optimizer.param_groups)
        if bar:
            bar.update(1)
        if (number + 1) % 50 == 0:
            _check_finite(sums, f"epoch {epoch + 1}, step {number + 1}")
    means = {name: value / num_sentences for name, value in sums.items()}
    if world_size > 1:
        for name in sorted(means):
            torch.distributed.all_reduce(means[name])
    _check_finite(means, f"epoch {epoch + 1}")
    return {name: value.item() for name, value in means.items()}


def _check_finite(losses: dict[str, torch.Tensor], where: str) -> None:
    bad = [name for name, value in losses.items() if not math.isfinite(value.item())]
    if bad:
        raise FloatingPointError(
            f"{where}: {', '.join(bad)} not finite; lower optim.*_lr or optim.clip, or use float32"
        )


def _dev_scores(tagger: Tagger, examples: Sequence[Example], view: ViewName, world_size: int) -> Scores:
    tagger.model.eval()
    counts = count_predictions(tagger, examples, view)
    if world_size > 1:
        gathered: list[Any] = [None] * world_size
        torch.distributed.all_gather_object(gathered, counts)
        counts = sum(gathered[1:], start=gathered[0])
    return counts.scores()


def _engine(step: CooperativeStep, config: Config, num_steps: int) -> Any:
    """DeepSpeed around the step: AdamW by parameter group, linear schedule, clipping, ZeRO."""
    import deepspeed  # after DS_ACCELERATOR is set

    # An operation that only inference uses; left on, the first run on a machine compiles it: a minute, and needs g++.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    optim = config.optim
    groups = parameter_groups(
        step.model,
        encoder_lr=optim.encoder_lr,
        head_lr=optim.head_lr,
        crf_lr=optim.crf_lr,
        weight_decay=optim.weight_decay,
    )
    optimizer = torch.optim.AdamW(groups, fused=True)
    schedule = linear_schedule(num_steps, warmup=optim.warmup)
    engine, *_ = deepspeed.initialize(
        model=step,
        optimizer=optimizer,
        lr_scheduler=lambda inner: torch.optim.lr_scheduler.LambdaLR(inner, schedule),
        dist_init_required=False,
        config={
            "train_micro_batch_size_per_gpu": 1,  # batches are planned here, not by DeepSpeed
            "gradient_accumulation_steps": 1,
            "gradient_clipping": optim.clip,
            "zero_optimization": {"stage": config.run.zero_stage},
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 10**9,
        },
    )
    return engine


def _restore(engine: Any) -> checkpoints.Progress:
    """Continue from the run's last checkpoint, when Ray Train found one."""
    last = ray.train.get_checkpoint()
    if last is None:
        return checkpoints.Progress()
    with last.as_directory() as folder:
        engine.load_checkpoint(str(Path(folder) / checkpoints.STATE_FOLDER))
        return checkpoints.read_progress(Path(folder))


def _report(
    engine: Any, tagger: Tagger, progress: checkpoints.Progress, provenance: Mapping[str, Any], rank: int
) -> None:
    """Write a checkpoint (every rank its part) and hand it to Ray Train, scored by the mean of both views' dev F1."""
    entry = progress.history[-1]
    mean_f1 = sum(entry["dev_f1"].values()) / len(entry["dev_f1"])
    folder = Path(tempfile.mkdtemp(prefix="ctxner-checkpoint-"))
    try:
        engine.save_checkpoint(str(folder / checkpoints.STATE_FOLDER))
        if rank == 0:
            write_export(tagger.model, tagger.tokenizer, folder / checkpoints.MODEL_FOLDER, provenance, entry)
            checkpoints.write_progress(folder, progress)
        metrics = {
            "epoch": entry["epoch"],
            "mean_f1": mean_f1,
            **{f"{view}_f1": f1 for view, f1 in entry["dev_f1"].items()},
        }
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(str(folder)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_resources(config: Config) -> None:
    """Refuse what the cluster cannot schedule, instead of waiting for it."""
    if not ray.is_initialized():
        ray.init()
    have, run = ray.cluster_resources(), config.run
    kind, wanted = ("GPU", run.gpus * run.workers) if run.gpus else ("CPU", run.workers)
    if have.get(kind, 0) < wanted:
        raise ValueError(
            f"run.workers={run.workers} wants {wanted} {kind}s but the cluster has {have.get(kind, 0):g}; "
            "lower run.workers or add nodes"
        )
