"""Reads and writes the files of a training checkpoint: the tagger, the optimizer's state and the run's progress.

`model/` is a tagger that `Tagger.from_pretrained` loads. `optimizer-<share>-of-<shares>.safetensors` and
`progress.json` continue the run on any number of workers. No random state is saved: `step_seed` seeds every step. Ray
Train chooses and keeps checkpoints; `ctxner.training.checkpoints.writer` decides when to write one.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ctxner.files.atomic import new_folder

MODEL_FOLDER, PROGRESS_FILE = "model", "progress.json"
UNSCORED = -1.0  # below every F1; Ray Train's record of a run is JSON, which has no NaN
_SHARE = re.compile(r"optimizer-(\d+)-of-(\d+)\.safetensors")


@dataclass(frozen=True)
class Progress:
    """Progress of a run.

    Attributes:
        epoch: Number of finished epochs.
        step: Number of optimizer steps done in the current epoch.
        sums: For each worker, each loss summed over its sentences of the current epoch.
        seconds: Training time of the current epoch so far, in seconds.
        history: One dict per epoch: `epoch`, `losses`, `dev_f1` by view, `chosen_by` (the views whose dev F1 ranks the
            epoch; all, in runs of before), `dev_scores` by view (all of
            `ctxner.evaluation.scores.Scores`), `seconds` (of training), `seconds_by_phase` (since the previous entry,
            so a checkpoint at the end of an epoch counts in the next), `sentences_per_second`, `peak_memory_bytes` (of
            the first worker).
    """

    epoch: int = 0
    step: int = 0
    sums: tuple[dict[str, float], ...] = ()
    seconds: float = 0.0
    history: tuple[dict[str, Any], ...] = ()

    def metrics(self) -> dict[str, float]:
        """Metrics that rank checkpoints: `mean_f1`, the mean dev F1 of the trained views; `UNSCORED` within an epoch.

        A view that is scored though it is not trained says nothing about a model: it does not count.
        """
        where = {"epoch": self.epoch, "step": self.step}
        if self.step:
            return {**where, "mean_f1": UNSCORED}
        by_view = self.history[-1]["dev_f1"]
        trained = self.history[-1].get("chosen_by", by_view)
        return {
            **where,
            "mean_f1": sum(by_view[view] for view in trained) / len(trained),
            **{f"{view}_f1": f1 for view, f1 in by_view.items()},
        }

    def own_sums(self, rank: int, world_size: int) -> dict[str, float]:
        """A worker's part of the sums; the parts add up to the same totals for any number of workers."""
        parts = self.sums[rank::world_size]
        return {name: sum(part[name] for part in parts) for name in (parts[0] if parts else ())}


def step_seed(seed: int, epoch: int, step: int, rank: int) -> int:
    """Seed of all randomness (dropout) in one step of one worker, so that a resumed step repeats exactly."""
    digest = hashlib.blake2b(f"{seed}-{epoch}-{step}-{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1  # 63 bits: a signed integer


def write_progress(folder: Path, progress: Progress) -> None:
    """Write `progress.json` into a checkpoint."""
    (folder / PROGRESS_FILE).write_text(json.dumps(asdict(progress), indent=1))


def read_progress(folder: Path) -> Progress:
    """Read `progress.json` of a checkpoint.

    Raises:
        ValueError: It is missing or damaged.
    """
    try:
        tree = json.loads((folder / PROGRESS_FILE).read_text())
        return Progress(tree["epoch"], tree["step"], tuple(tree["sums"]), tree["seconds"], tuple(tree["history"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}: no usable {PROGRESS_FILE} ({error}); this checkpoint cannot be resumed") from None


def write_share(folder: Path, moments: Mapping[str, Tensor], rank: int, world_size: int) -> None:
    """Write a worker's share of the optimizer's state into a checkpoint."""
    save_file(dict(moments), folder / f"optimizer-{rank:05d}-of-{world_size:05d}.safetensors")


@contextmanager
def open_shares(folder: Path) -> Iterator[Callable[[str], Tensor | None]]:
    """Yield a function from a name in the optimizer's state to its tensor, read at the call; None if it is absent.

    Raises:
        ValueError: A share is missing or damaged.
    """
    paths = sorted(path for path in folder.glob("optimizer-*") if _SHARE.fullmatch(path.name))
    wanted = int(_SHARE.fullmatch(paths[0].name)[2]) if paths else 1  # type: ignore[index]
    if len(paths) != wanted:
        raise ValueError(f"{folder}: {len(paths)} of {wanted} shares of the optimizer's state; it cannot be resumed")
    with ExitStack() as stack:
        try:
            shares = [stack.enter_context(safe_open(path, "pt")) for path in paths]
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{folder}: the optimizer's state is damaged ({error}); it cannot be resumed") from None
        where = {name: share for share in shares for name in share.keys()}  # noqa: SIM118 (not a dict)
        yield lambda name: where[name].get_tensor(name) if name in where else None


def is_whole(folder: Path) -> bool:
    """Whether a checkpoint has all its files in full length; after an interrupted upload it has not."""
    try:
        read_progress(folder)
        with open_shares(folder), safe_open(folder / MODEL_FOLDER / "model.safetensors", "pt"):
            return True
    except (OSError, ValueError, SafetensorError):
        return False


def publish_model(checkpoint: Path, target: Path) -> Path:
    """Copy a checkpoint's model to the folder that users load it from, replacing the present one."""
    with new_folder(target) as aside:
        shutil.copytree(checkpoint / MODEL_FOLDER, aside, dirs_exist_ok=True)
    return target
