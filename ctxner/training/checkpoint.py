"""What a training checkpoint holds: the tagger's folder, DeepSpeed's state and where the run stood.

`model/` is a tagger that `Tagger.from_pretrained` loads; `state/` (DeepSpeed's own format, which unpickles: only for
checkpoints of one's own) and `progress.json` continue the run. Choosing and keeping checkpoints is Ray Train's.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ctxner.model.tagger import EncoderCRF

MODEL_FOLDER, STATE_FOLDER, PROGRESS_FILE = "model", "state", "progress.json"


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        epoch: Epochs finished.
        history: One dict an epoch: `epoch`, `losses`, `dev_f1` by view, `dev_scores` by view (all of
            `ctxner.evaluation.Scores`), `seconds` (of training), `seconds_by_phase` (since the entry before: a
            checkpoint counts in the epoch after it), `sentences_per_second`.
    """

    epoch: int = 0
    history: tuple[dict[str, Any], ...] = field(default=())


def write_model(
    model: EncoderCRF, tokenizer: PreTrainedTokenizerBase, folder: Path, provenance: Mapping[str, Any]
) -> None:
    """Write the tagger's folder: config.json (with where it comes from), model.safetensors, tokenizer."""
    model.config.provenance = dict(provenance)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


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
        return Progress(tree["epoch"], tuple(tree["history"]))
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder}: no usable {PROGRESS_FILE} ({error}); this checkpoint cannot be resumed") from None


def publish_model(checkpoint: Path, target: Path) -> Path:
    """Copy a checkpoint's model to where users load it from: aside first, then renamed over what was there."""
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copytree(checkpoint / MODEL_FOLDER, aside)
    if target.exists():
        old = target.with_name(f".{target.name}.old.{os.getpid()}")
        target.rename(old)
        aside.rename(target)
        shutil.rmtree(old)
    else:
        aside.rename(target)
    return target
