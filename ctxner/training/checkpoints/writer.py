"""Decides when a checkpoint is due, and has Ray Train copy it from the workers to the run's folder.

Every worker writes its files into a temporary folder on its node, and training continues while Ray Train copies them
into one folder at `run.storage`. The content of the files is described in `ctxner.training.checkpoints.files`.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train import Checkpoint, CheckpointUploadMode
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase

from ctxner.config import Config
from ctxner.files.storage import explained
from ctxner.training.checkpoints import files as checkpoints
from ctxner.training.deepspeed_engine import own_moments, whole_model
from ctxner.training.export.model_folder import write_export


class CheckpointWriter:
    """Writes a worker's part of all checkpoints of a run; the workers call each method together.

    Args:
        engine: Engine around the step.
        tokenizer: Tokenizer of the model.
        config: Settings of the run.
        provenance: Provenance of the run (see `ctxner.training.export.model_folder.run_provenance`) and its `inputs`
            (see `ctxner.training.checkpoints.resume.input_hashes`); only the first worker's is used.
        rank: Rank of the worker.
        world_size: Number of workers.
    """

    def __init__(
        self,
        engine: Any,
        tokenizer: PreTrainedTokenizerBase,
        config: Config,
        provenance: Mapping[str, Any],
        rank: int,
        world_size: int,
    ) -> None:
        self.engine, self.tokenizer, self.config, self.provenance = engine, tokenizer, config, provenance
        self.rank, self.world_size = rank, world_size
        self.written, self.local = time.monotonic(), Path()
        where = f"{config.run.storage}/{ray.train.get_context().get_experiment_name()}"
        self.prefix = f"ctxner-{hashlib.sha256(where.encode()).hexdigest()[:12]}-{rank}-"
        for left in Path(tempfile.gettempdir()).glob(f"{self.prefix}*"):  # left by a killed worker
            shutil.rmtree(left, ignore_errors=True)

    def due(self, step: int) -> bool:
        """Whether a checkpoint is due after `step` optimizer steps of an epoch; all workers get the same answer."""
        steps, minutes = self.config.run.checkpoint_steps, self.config.run.checkpoint_minutes
        if steps and step % steps == 0:
            return True
        if minutes is None:
            return False
        late = torch.tensor(float(time.monotonic() - self.written >= 60 * minutes), device=self.engine.device)
        if self.world_size > 1:
            torch.distributed.broadcast(late, src=0)
        return bool(late.item())

    def write(self, progress: checkpoints.Progress) -> None:
        """Write a checkpoint and report it to Ray Train; first wait until the previous one has been copied.

        Args:
            progress: Progress of the run, the same on all workers.

        Raises:
            OSError: A file could not be written; the files at `run.storage` are unchanged.
            FloatingPointError: The optimizer's state is not finite.
        """
        where = f"checkpoint of epoch {progress.epoch + bool(progress.step)}, step {progress.step or 'last'}"
        while self.local.name and self.local.exists():  # Ray Train removes the folder after copying it
            time.sleep(0.02)
        try:
            self.local = Path(tempfile.mkdtemp(prefix=self.prefix))
            checkpoints.write_share(
                self.local, own_moments(self.engine, self.rank, self.world_size), self.rank, self.world_size
            )
            model = whole_model(self.engine.module.model, keep=self.rank == 0)
            if self.rank == 0:
                assert model is not None
                entry = {"epoch": progress.epoch, "step": progress.step} if progress.step else progress.history[-1]
                write_export(model, self.tokenizer, self.local / checkpoints.MODEL_FOLDER, self.provenance, entry)
                checkpoints.write_progress(self.local, progress)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(self.local, ignore_errors=True)
            raise OSError(f"{where}: cannot write to {tempfile.gettempdir()} ({error}); {_ADVICE}") from error
        except FloatingPointError as error:
            raise FloatingPointError(f"{where}: {error}; lower optim.*_lr or optim.clip, or use float32") from error
        ray.train.report(
            progress.metrics(),
            checkpoint=Checkpoint.from_directory(str(self.local)),
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=_upload,
        )
        self.written = time.monotonic()


_ADVICE = "free space there and go on with --set run.resume=true"


def _upload(local: Checkpoint, name: str) -> Checkpoint:
    """Copy a worker's files to the run's folder, as Ray Train would; an error names the folder.

    Raises:
        OSError: The folder cannot be written.
    """
    storage = ray.train.get_context().get_storage()
    try:
        with explained(f"{storage.experiment_fs_path}/{name}"):  # a store behind a URI has errors of its own
            return storage.persist_current_checkpoint(local, name)
    except ConnectionError:
        raise
    except (OSError, RuntimeError) as error:  # RuntimeError: the folder is gone
        where = f"{storage.experiment_fs_path}/{name}"
        raise OSError(f"{where}: cannot be written ({str(error).splitlines()[0]}); {_ADVICE}") from error


@contextmanager
def last_checkpoint() -> Iterator[Path | None]:
    """Yield the checkpoint from which the run continues, as a local folder; None at the start of a run."""
    last = ray.train.get_checkpoint()
    if last is None:
        yield None
        return
    with last.as_directory() as folder:
        yield Path(folder)
