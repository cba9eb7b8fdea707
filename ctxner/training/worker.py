"""The Ray Train + DeepSpeed shell around the cooperative step: 1..N workers, on CPUs (gloo) or GPUs (NCCL).

Every worker reads the whole data set, plans the same batches from (seed, epoch) and takes its share of each, so the
number of workers changes nothing but the speed. The step itself is `ctxner.training.step`.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.exceptions import RayActorError
from ray.train import CheckpointConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError
from transformers import PreTrainedTokenizerBase

from ctxner.config import Config, parse_config
from ctxner.evaluation.scores import Scores, SpanCounts, count_spans
from ctxner.labels import LabelSet, tags_to_spans
from ctxner.model.tagger import EncoderCRF, load_tagger, load_tokenizer
from ctxner.predictor import VIEWS, Tagger, ViewName
from ctxner.schema import Example
from ctxner.training.checkpoints import files as checkpoints
from ctxner.training.checkpoints.recovery import LOCK_FILE, alone, clean_up
from ctxner.training.checkpoints.resume import absolute_paths, check_resumable, read_config, write_config
from ctxner.training.checkpoints.writer import CheckpointWriter, gather_sums, last_checkpoint
from ctxner.training.deepspeed_engine import (
    build_engine,
    reduce_gradients,
    restore_moments,
    return_freed_memory,
    whole_model,
)
from ctxner.training.export.model_folder import run_provenance
from ctxner.training.failures import check_finite, is_loss, memory_advice, memory_explained, mendable
from ctxner.training.observe.mlflow import check_mlflow
from ctxner.training.observe.progress import epoch_line, peak_memory, progress_bar, quiet_worker
from ctxner.training.observe.recorder import Recorder, run_recorder
from ctxner.training.plan import TrainingSet, build_model, build_step, load_split, load_training, start_path
from ctxner.views import ViewBuilder

logger = logging.getLogger(__name__)

_CHECK_STEPS = 50  # how often losses come to the host to be looked at


@dataclass(frozen=True)
class TrainResult:
    """What a run left.

    Attributes:
        model: Folder of the tagger with the best mean dev F1 of both views.
        folder: The run's folder: `model/`, `config.json`, `history.json` and Ray Train's checkpoints.
        best: The history entry of that model.
        history: One entry an epoch (see `ctxner.training.checkpoints.files.Progress`).
    """

    model: Path
    folder: Path
    best: dict[str, Any]
    history: list[dict[str, Any]]


def train(config: Config) -> TrainResult:
    """Train by the config on Ray and publish the best model; goes on by itself when workers are lost.

    Raises:
        ValueError: Nothing to train on, a run of that name exists without `resume` or with other settings (see
            `check_resumable`), more CPUs or GPUs wanted than the cluster has, or a folder that cannot be written.
        FloatingPointError: A loss or a gradient was not finite.
        MemoryError: A worker's memory ran out; says what to lower.
        OSError: A checkpoint could not be written.
        ray.train.v2.api.exceptions.TrainingFailedError: Workers were lost more often than `run.max_failures`, or one
            failed otherwise.
    """
    run = config.run
    name = run.name or f"{config.loss.mode}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    folder = run.storage.resolve() / name
    exists = folder.exists() and any(path.name != LOCK_FILE for path in folder.iterdir())
    if exists and not run.resume:
        raise ValueError(
            f"{folder}: a run of this name exists; choose another run.name, or run.resume=true to go on with it"
        )
    if exists:
        check_resumable(read_config(folder), config, source=str(folder))
    check_mlflow(run.mlflow)
    _check_resources(config)
    with alone(folder):
        if not exists:
            write_config(config, folder)
        placed = run.model_copy(update={"storage": folder.parent, "name": folder.name})
        result = _fit(config.model_copy(update={"run": placed}), folder)
        clean_up(folder)
        assert result.checkpoint
        scored = [pair for pair in result.best_checkpoints or () if pair[1]["mean_f1"] != checkpoints.UNSCORED]
        best, metrics = max(scored, key=lambda pair: pair[1]["mean_f1"])
        model = checkpoints.publish_model(Path(best.path), folder / "model")
        history = list(checkpoints.read_progress(Path(result.checkpoint.path)).history)
        (folder / "history.json").write_text(json.dumps(history, indent=1))
    return TrainResult(model, folder, history[metrics["epoch"] - 1], history)


def _fit(config: Config, folder: Path) -> ray.train.Result:
    """Train to the end, from the last checkpoint, and again from there when workers are lost.

    Ray Train could start them again too, but would do so for errors that come back, and not when its controller dies.
    """
    for num_failures in range(config.run.max_failures + 1):
        clean_up(folder)
        try:
            return _trainer(config, folder).fit()
        except ControllerError as error:
            if isinstance(error.controller_failure, OSError):  # Ray Train's record of the checkpoints; mended later
                text = f"{folder}: cannot be written ({error.controller_failure}); free space there and go on with"
                raise OSError(f"{text} run.resume=true") from error
            raise
        except (WorkerGroupError, RayActorError) as error:
            failures = error.worker_failures if isinstance(error, WorkerGroupError) else {0: error}
            if cause := mendable(failures):  # without Ray's traceback
                raise cause from error
            if not is_loss(failures) or num_failures == config.run.max_failures:
                raise
            logger.warning(
                "workers were lost (%s); going on from the last checkpoint, time %d of run.max_failures=%d. "
                "If their memory ran out, %s",
                "; ".join(f"{rank}: {(str(cause) or repr(cause)).splitlines()[0]}" for rank, cause in failures.items()),
                num_failures + 1,
                config.run.max_failures,
                memory_advice(config),
            )
    raise AssertionError("the last attempt returns or raises")


def _trainer(config: Config, folder: Path) -> TorchTrainer:
    run = config.run
    return TorchTrainer(
        _worker,
        train_loop_config=absolute_paths(config).model_dump(mode="json"),
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
        if config.run.zero_stage == 3:
            return_freed_memory()
    (examples, unlabelled), dev = load_training(config.data), load_split(config.data, "dev")
    labels = LabelSet.from_sentences(example.sentence for example in examples)
    torch.manual_seed(config.run.seed)
    model = build_model(config, labels)
    tokenizer = load_tokenizer(start_path(config))
    views = ViewBuilder(tokenizer, max_pieces=model.config.max_pieces, max_passages=model.config.max_passages)
    data = TrainingSet(examples, labels, views, config, unlabelled, cache=config.data.views_cache())
    steps_by_epoch = data.steps_by_epoch()
    num_steps = sum(steps_by_epoch)
    with last_checkpoint() as folder:
        progress = checkpoints.read_progress(folder) if folder else checkpoints.Progress()
        num_done = sum(steps_by_epoch[: progress.epoch]) + progress.step
        if folder:
            model.load_state_dict(load_tagger(folder / checkpoints.MODEL_FOLDER).state_dict())
        model.to(device)  # type: ignore[arg-type]
        engine = build_engine(build_step(model, config), config, num_steps, num_done=num_done)
        if folder:
            with checkpoints.open_shares(folder) as read:
                restore_moments(engine, read)
    provenance = run_provenance(config, {"train": examples, "dev": dev}) if rank == 0 else {}
    writer = CheckpointWriter(engine, tokenizer, config, provenance, rank, world_size)
    with (
        progress_bar(config.loss.mode, num_done, num_steps, shown=rank == 0) as bar,
        run_recorder(config, rank=rank, world_size=world_size, device=device, first_step=num_done) as recorder,
    ):
        for epoch in range(progress.epoch, config.optim.epochs):
            started = time.perf_counter()
            losses, num_sentences, seconds = _train_epoch(writer, data, progress, device, bar, recorder)
            scores = _dev_scores(model, tokenizer, dev[rank::world_size], device, world_size)
            recorder.timer.lap("evaluation")
            entry = {
                "epoch": epoch + 1,
                "losses": losses,
                "dev_f1": {view: own.f1 for view, own in scores.items()},
                "dev_scores": {view: own.to_dict() for view, own in scores.items()},
                "seconds": seconds,
                "seconds_by_phase": recorder.seconds_by_phase(),
                "sentences_per_second": num_sentences / seconds,
            }
            progress = checkpoints.Progress(epoch + 1, history=(*progress.history, entry))
            writer.write(progress)
            recorder.timer.lap("checkpoint")
            recorder.epoch(entry)
            if rank == 0:
                seconds_left = (time.perf_counter() - started) * (config.optim.epochs - epoch - 1)
                line = epoch_line(entry, config.optim.epochs, seconds_left, num_bytes=peak_memory(device))
                logger.info("%s %s", config.loss.mode, line)


def _train_epoch(
    writer: CheckpointWriter,
    data: TrainingSet,
    progress: checkpoints.Progress,
    device: torch.device,
    bar: Any,
    recorder: Recorder,
) -> tuple[dict[str, float], int, float]:
    """Run an epoch's steps from where it stands; the mean of each loss over all its sentences, these, its seconds."""
    engine, config, rank, world_size = writer.engine, writer.config, writer.rank, writer.world_size
    engine.train()
    started = time.perf_counter() - progress.seconds
    sums = {
        name: torch.tensor(value, dtype=torch.float64, device=device)
        for name, value in progress.own_sums(rank, world_size).items()
    }
    steps = data.steps(progress.epoch)
    for number, step in enumerate(steps[progress.step :], start=progress.step + 1):
        where = f"epoch {progress.epoch + 1}, step {number}"
        torch.manual_seed(checkpoints.step_seed(config.run.seed, progress.epoch, number, rank))  # dropout
        group_sentences = sum(len(batch) for batch in step)
        with memory_explained(config, where):
            for place, batch in enumerate(step):
                engine.set_gradient_accumulation_boundary(place == len(step) - 1)
                share = data.share(batch, rank, world_size, device, epoch=progress.epoch)
                recorder.timer.lap("data")
                losses = engine(*share)
                recorder.timer.lap("forward")
                engine.backward(losses["loss"] * (world_size / group_sentences))  # ranks are averaged: a global mean
                recorder.timer.lap("backward")
                reduce_gradients(engine)
                recorder.timer.lap("communication")
                engine.step()
                recorder.timer.lap("step")
                recorder.add(losses, *share)
                for name, value in losses.items():
                    sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64, device=device)) + value.detach()
        recorder.step(engine.optimizer.param_groups)
        if bar:
            bar.update(1)
        due = number < len(steps) and writer.due(number)
        if due or number == len(steps) or number % _CHECK_STEPS == 0:
            all_sums = gather_sums(sums, world_size)
            check_finite(all_sums, engine.skipped_steps, where)
        if due:
            seconds = time.perf_counter() - started
            writer.write(replace(progress, step=number, sums=all_sums, seconds=seconds))
            recorder.timer.lap("checkpoint")
    num_sentences = sum(len(batch) for step in steps for batch in step)
    means = {name: sum(own[name] for own in all_sums) / num_sentences for name in all_sums[0]}
    return means, num_sentences, time.perf_counter() - started


def _dev_scores(
    model: EncoderCRF,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    device: torch.device,
    world_size: int,
) -> dict[ViewName, Scores]:
    """Of each view over all workers' examples; the workers call it together."""
    whole = whole_model(model)
    assert whole is not None
    tagger = Tagger(whole.to(device).eval(), tokenizer)  # type: ignore[arg-type]
    counts = {view: count_predictions(tagger, examples, view) for view in VIEWS}
    if world_size > 1:
        gathered: list[Any] = [None] * world_size
        torch.distributed.all_gather_object(gathered, counts)
        counts = {view: sum((own[view] for own in gathered[1:]), start=gathered[0][view]) for view in VIEWS}
    return {view: own.scores() for view, own in counts.items()}


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
