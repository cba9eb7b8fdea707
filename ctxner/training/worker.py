"""Runs the cooperative step with Ray Train and DeepSpeed: 1..N workers, on CPUs (gloo) or GPUs (NCCL).

Every worker reads the whole data set, plans the same batches from (seed, epoch) and takes its share of each batch, so
the number of workers does not change the batches. The step itself is in `ctxner.training.step`.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.exceptions import RayActorError
from ray.train import CheckpointConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from ctxner.config import Config, parse_config
from ctxner.encoders import load_tokenizer
from ctxner.files.node_copies import work_folder
from ctxner.files.ray_token import private_token
from ctxner.files.storage import arrow_filesystem, put_file, put_folder
from ctxner.files.uris import is_uri
from ctxner.labels import LabelSet
from ctxner.model.tagger import load_tagger
from ctxner.training.automatic import resolved
from ctxner.training.build import build_model, build_step, start_path
from ctxner.training.checkpoints.files import (
    MODEL_FOLDER,
    UNSCORED,
    Progress,
    open_shares,
    publish_model,
    read_progress,
)
from ctxner.training.checkpoints.recovery import alone, clean_up
from ctxner.training.checkpoints.resume import (
    absolute_paths,
    check_inputs,
    check_resumable,
    input_hashes,
    is_started,
    read_config,
    refuse_started,
    run_folder,
    write_config,
)
from ctxner.training.checkpoints.writer import CheckpointWriter, last_checkpoint
from ctxner.training.data.dev_part import dev_part
from ctxner.training.data.training_set import TrainingSet, load_split, load_training
from ctxner.training.deepspeed_engine import build_engine, restore_moments, return_freed_memory
from ctxner.training.export.model_folder import run_provenance
from ctxner.training.failures import is_loss, memory_advice, mendable
from ctxner.training.loop import dev_scores, train_epoch
from ctxner.training.observe.mlflow import check_mlflow
from ctxner.training.observe.progress import StepReporter, Watcher, epoch_line, peak_memory, quiet_worker, watched
from ctxner.training.observe.recorder import run_recorder
from ctxner.training.process_group import NodeTorchConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """Results of a run.

    Attributes:
        model: Folder of the tagger with the best dev F1, the mean over the trained views (one or both).
        folder: Folder of the run: `model/`, `config.json`, `history.json` and Ray Train's checkpoints. With a URI as
            `run.storage`, both are folders of this node; the store has the same and the checkpoints.
        stored: The run's folder or its URI.
        best: History entry of that model.
        history: One entry per epoch (see `ctxner.training.checkpoints.files.Progress`).
    """

    model: Path
    folder: Path
    stored: Path
    best: dict[str, Any]
    history: list[dict[str, Any]]


def train(
    config: Config, *, steps_by_epoch: Sequence[int] | None = None, watcher: Watcher | None = None
) -> TrainResult:
    """Train on Ray as the config says and publish the best model; continue by itself when workers are lost.

    Args:
        config: Settings of the run.
        steps_by_epoch: Optimizer steps of each epoch, from `ctxner.training.plan.plan`, so that workers need not
            pack every epoch to count them; None: workers count them.
        watcher: Functions that receive the run's progress.

    Raises:
        ValueError: There are no training sentences, a run of that name exists without `resume`, with other settings
            or with other files (see `check_resumable` and `check_inputs`), the cluster has too few CPUs or GPUs, or a
            folder cannot be written.
        FloatingPointError: A loss or a gradient was not finite.
        MemoryError: A worker's memory ran out; the error says which settings to lower.
        OSError: A checkpoint could not be written.
        ray.train.v2.api.exceptions.TrainingFailedError: Workers were lost more often than `run.max_failures`, or one
            failed otherwise.
    """
    folder = run_folder(config)
    if not config.run.resume:
        refuse_started(folder)
    exists = is_started(folder)
    config = resolved(config, saved=read_config(folder) if exists else None)
    run = config.run
    if exists:
        check_resumable(read_config(folder), config, source=str(folder))
    check_mlflow(run.mlflow)
    if run.mlflow and is_uri(folder):
        raise ValueError("run.mlflow needs the run's folder: set a run.storage that is no URI, or leave it out")
    _check_resources(config)
    with alone(folder):
        if not exists:
            write_config(config, folder)
        placed = run.model_copy(update={"storage": folder.parent, "name": folder.name})
        with watched(watcher or Watcher()) as board:
            given = {"steps_by_epoch": steps_by_epoch and list(steps_by_epoch), "board": board}
            result = _fit(config.model_copy(update={"run": placed}), folder, given)
        clean_up(folder)
        assert result.checkpoint
        here = work_folder(folder)
        scored = [pair for pair in result.best_checkpoints or () if pair[1]["mean_f1"] != UNSCORED]
        best, metrics = max(scored, key=lambda pair: pair[1]["mean_f1"])
        with best.as_directory() as checkpoint:
            model = publish_model(Path(checkpoint), here / "model")
        with result.checkpoint.as_directory() as last:
            history = list(read_progress(Path(last)).history)
        (here / "history.json").write_text(json.dumps(history, indent=1))
        if is_uri(folder):
            write_config(config, here)
            put_file(here / "history.json", folder / "history.json")
            put_folder(model, folder / "model", last="config.json")
    return TrainResult(model, here, folder, history[metrics["epoch"] - 1], history)


def _fit(config: Config, folder: Path, given: Mapping[str, Any]) -> ray.train.Result:
    """Train from the last checkpoint to the end, and restart from the newest checkpoint when workers are lost.

    Ray Train's restarts are off: they also repeat errors that come back, and they do not cover a dead controller.
    """
    for num_failures in range(config.run.max_failures + 1):
        clean_up(folder)
        check_inputs(folder, config)
        try:
            return _trainer(config, folder, given).fit()
        except ControllerError as error:
            if isinstance(error.controller_failure, OSError):  # writing Ray Train's record failed; repaired later
                text = f"{folder}: cannot be written ({error.controller_failure}); free space there and go on with"
                raise OSError(f"{text} --set run.resume=true") from error
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


def _trainer(config: Config, folder: Path, given: Mapping[str, Any]) -> TorchTrainer:
    run, storage = config.run, dict[str, Any](storage_path=str(folder.parent))
    if is_uri(folder):
        filesystem, path = arrow_filesystem(folder.parent)
        storage = {"storage_path": path, "storage_filesystem": filesystem}
    return TorchTrainer(
        _worker,
        train_loop_config={"config": absolute_paths(config).model_dump(mode="json"), **given},
        scaling_config=ScalingConfig(
            num_workers=run.workers,
            use_gpu=run.gpus > 0,
            resources_per_worker={"GPU": run.gpus} if run.gpus else {"CPU": 1},
            # GPUs of a node talk to each other fastest; on CPUs, workers on one node would share its cores.
            placement_strategy="PACK" if run.gpus else "SPREAD",
        ),
        torch_config=NodeTorchConfig(),
        run_config=ray.train.RunConfig(
            name=folder.name,
            **storage,
            checkpoint_config=CheckpointConfig(
                num_to_keep=run.keep_checkpoints, checkpoint_score_attribute="mean_f1", checkpoint_score_order="max"
            ),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),  # rank 0 reports the epochs
            failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=3),  # type: ignore[call-arg]
        ),
    )


def _worker(given: dict[str, Any]) -> None:
    """Run one Ray Train worker, from reading files to reporting checkpoints.

    Args:
        given: Dict of `config`, the tree of settings; `steps_by_epoch`, planned by the driver, or None; and `board`,
            the actor to which the first worker reports its progress.
    """
    quiet_worker()
    config = parse_config(given["config"])
    rank, world_size = ray.train.get_context().get_world_rank(), ray.train.get_context().get_world_size()
    device = _set_up_device(config)
    (examples, unlabelled), dev = load_training(config.data), load_split(config.data, "dev")
    labels = LabelSet.from_sentences(example.sentence for example in examples)
    torch.manual_seed(config.run.seed)
    model = build_model(config, labels)
    tokenizer = load_tokenizer(start_path(config))
    views = model.view_builder(tokenizer)
    data = TrainingSet(examples, labels, views, config, unlabelled, cache=config.data.views_cache())
    steps_by_epoch = given["steps_by_epoch"] or data.steps_by_epoch()
    scored = dev_part(dev, config, data.sentences_an_epoch)
    num_steps = sum(steps_by_epoch)
    with last_checkpoint() as folder:
        progress = read_progress(folder) if folder else Progress()
        num_done = sum(steps_by_epoch[: progress.epoch]) + progress.step
        if folder:
            model.load_state_dict(load_tagger(folder / MODEL_FOLDER).state_dict())
        model.to(device)  # type: ignore[arg-type]
        engine = build_engine(build_step(model, config), config, num_steps, num_done=num_done)
        if folder:
            with open_shares(folder) as read:
                restore_moments(engine, read)
    provenance = {}
    if rank == 0:
        provenance = run_provenance(config, {"train": examples, "dev": dev}) | {"inputs": input_hashes(config)}
    writer = CheckpointWriter(engine, tokenizer, config, provenance, rank, world_size)
    reporter = StepReporter(given["board"] if rank == 0 else None, num_done, num_steps)
    with run_recorder(config, rank=rank, world_size=world_size, device=device, first_step=num_done) as recorder:
        for epoch in range(progress.epoch, config.optim.epochs):
            started = time.perf_counter()
            if len(data.steps(epoch)) != steps_by_epoch[epoch]:
                raise ValueError("the data or their views have changed since the run was planned; start it again")
            trained = train_epoch(
                engine,
                data,
                progress,
                config=config,
                rank=rank,
                world_size=world_size,
                device=device,
                recorder=recorder,
                checkpoints=writer,
                on_step=reporter.step,
            )
            scores = dev_scores(
                model,
                tokenizer,
                scored[rank::world_size],
                device,
                world_size,
                views=config.dev_views(),
                bfloat16=config.run.precision == "bfloat16",
            )
            recorder.timer.lap("evaluation")
            entry: dict[str, Any] = {
                "epoch": epoch + 1,
                "losses": trained.losses,
                "dev_sentences": len(scored),
                "dev_f1": {view: view_scores.f1 for view, view_scores in scores.items()},
                "chosen_by": list(config.trained_views()),
                "dev_scores": {view: view_scores.to_dict() for view, view_scores in scores.items()},
                "seconds": trained.seconds,
                "seconds_by_phase": recorder.seconds_by_phase(),
                "sentences_per_second": trained.num_sentences / trained.seconds,
                "peak_memory_bytes": peak_memory(device),
            }
            progress = Progress(epoch + 1, history=(*progress.history, entry))
            writer.write(progress)
            recorder.timer.lap("checkpoint")
            recorder.epoch(entry)
            seconds_left = (time.perf_counter() - started) * (config.optim.epochs - epoch - 1)
            line = epoch_line(entry, config.optim.epochs, seconds_left, num_bytes=entry["peak_memory_bytes"])
            reporter.line(f"{config.loss.mode} {line}")


def _set_up_device(config: Config) -> torch.device:
    """Set up PyTorch and DeepSpeed for the calling worker's device, and return the device."""
    if config.run.gpus:
        return torch.device("cuda", torch.cuda.current_device())
    os.environ["DS_ACCELERATOR"] = "cpu"
    num_here = ray.train.get_context().get_local_world_size()
    torch.set_num_threads(config.run.threads or max(1, (os.cpu_count() or 1) // num_here))
    if config.run.zero_stage == 3:
        return_freed_memory()
    return torch.device("cpu")


def _check_resources(config: Config) -> None:
    """Refuse a run that the cluster cannot schedule, because Ray would wait for resources forever."""
    if not ray.is_initialized():
        with private_token():
            ray.init()
    have, run = ray.cluster_resources(), config.run
    kind, wanted = ("GPU", run.gpus * run.workers) if run.gpus else ("CPU", run.workers)
    if have.get(kind, 0) < wanted:
        raise ValueError(
            f"run.workers={run.workers} wants {wanted} {kind}s but the cluster has {have.get(kind, 0):g}; "
            "lower it (--set run.workers=N) or add nodes"
        )
