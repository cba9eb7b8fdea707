"""The result of a cell: one small JSON with scores, counts for paired tests, and where the figures come from.

The counts of each document or sentence are packed, so that a file stays below some ten kilobytes and a report can pair
any two cells without models or data.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from ctxner.config.text import explain
from ctxner.files.atomic import write_text
from jobs.experiment.keys import StepKind
from jobs.experiment.study import slug_of

VERSION = 1
MOST_BYTES = 60_000  # of a file; more is an error, since files are kept in Git
_NUMBERS = re.compile(r"\[\s+((?:[-+.\de]+,?\s+)+)\]")  # lists of numbers, which go on one line
_MOST_CELLS = 10_000_000  # of unpacked counts
Counts = tuple[int, int, int]  # correct, predicted and gold mentions


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Machine(_Record):
    """Where a step ran."""

    cpu: str
    cores: int
    isa: str  # widest vector instructions that PyTorch uses
    gpu: str | None = None


class StepFacts(_Record):
    """What is known of a finished step."""

    key: str
    seconds: float  # of the attempt that finished it
    attempts: int
    commit: str | None  # None when the code is not in a Git checkout
    machine: Machine
    versions: dict[str, str]
    numbers: dict[str, float] = {}  # such as sentences, passages, steps, memory_bytes


class ViewScores(_Record):
    """Scores of a view as counts; ratios follow from them."""

    all: Counts
    types: dict[str, Counts]
    groups: dict[str, Counts] = {}  # seen and unseen mentions, with and without an entry
    interval: tuple[float, float]  # 95% of the F1, over units
    packed: str  # correct, predicted and gold mentions of each unit: base64 of zlib of integers


class CellResult(_Record):
    """A cell's result."""

    version: Literal[1] = 1
    study: str
    coordinates: dict[str, str]
    settings: str  # hash of the settings that results depend on (`jobs.experiment.keys.settings_of`)
    key: str  # hash of the last step: of settings, data and all steps before
    seed: int
    split: str
    sentences: int
    unit: Literal["document", "sentence"]
    num_units: int
    unit_reason: str | None
    dtype: Literal["uint8", "uint16", "uint32"]  # of the packed counts
    scores: dict[str, ViewScores]
    dev_f1: dict[str, float]  # of the best epoch, which it chose
    best_epoch: int
    changes: dict[str, int] | None = None  # gold mentions that the context view brings or loses, false ones likewise
    steps: dict[StepKind, StepFacts]

    @property
    def slug(self) -> str:
        """Name of the file without suffix."""
        return slug_of(self.coordinates)

    def counts(self, view: str) -> np.ndarray:
        """Counts of each unit in a view, [units, (correct, predicted, gold)], int64.

        Raises:
            ValueError: They are damaged, or do not add up to the view's scores.
        """
        counts = unpack(self.scores[view].packed, self.dtype, self.num_units)
        if tuple(counts.sum(0).tolist()) != self.scores[view].all:
            raise ValueError(f"{self.study}/{self.slug}: the {view} view's packed counts do not add up to its scores")
        return counts


def pack(counts: np.ndarray, dtype: str) -> str:
    """Counts of units as text."""
    return base64.b64encode(zlib.compress(counts.T.astype(dtype).tobytes(), 9)).decode()


def unpack(text: str, dtype: str, num_units: int) -> np.ndarray:
    """The counts that `pack` was given, int64 [units, 3].

    Raises:
        ValueError: The text is damaged or holds another number of counts.
    """
    wanted = 3 * num_units * np.dtype(dtype).itemsize
    if not 0 < num_units * 3 <= _MOST_CELLS:
        raise ValueError(f"{num_units:,} units; wanted 1 to {_MOST_CELLS // 3:,}")
    try:
        content = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), wanted + 1)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"packed counts are damaged: {error}") from None
    if len(content) != wanted:
        raise ValueError(f"packed counts are of another number of units than {num_units:,}")
    return np.frombuffer(content, dtype).reshape(3, num_units).T.astype(np.int64)


def dtype_for(counts: Iterable[np.ndarray]) -> Literal["uint8", "uint16", "uint32"]:
    """The smallest type that holds all counts."""
    most = max((int(each.max(initial=0)) for each in counts), default=0)
    return "uint8" if most < 256 else "uint16" if most < 65536 else "uint32"


def result_path(folder: Path, study: str, slug: str) -> Path:
    """File of a cell's result."""
    return folder / study / f"{slug}.json"


def write_result(result: CellResult, folder: Path) -> Path:
    """Write a result into the study's folder, all or nothing.

    Raises:
        ValueError: It is too large to be kept in Git.
    """
    path = result_path(folder, result.study, result.slug)
    text = json.dumps(result.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
    text = _NUMBERS.sub(lambda match: f"[{' '.join(match[1].split())}]", text)
    if len(text.encode()) > MOST_BYTES:
        raise ValueError(f"{path}: {len(text.encode()):,} bytes; wanted {MOST_BYTES:,} at most")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


def read_result(path: Path) -> CellResult:
    """A cell's result.

    Raises:
        ValueError: The file is damaged, or of another version.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        version = tree.get("version") if isinstance(tree, dict) else None
        if version != VERSION:
            raise ValueError(f"{path}: version {version!r} of results; this program reads {VERSION}")
        return CellResult.model_validate(tree)
    except ValidationError as error:
        raise ValueError(explain(error, CellResult, str(path))) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a readable result: {error}") from None


def read_results(folder: Path, study: str) -> dict[str, CellResult]:
    """All results of a study, by the name of their files without suffix."""
    return {path.stem: read_result(path) for path in sorted((folder / study).glob("*.json"))}


def as_counts(score: Mapping[str, Any]) -> Counts:
    """Counts of a score as `ctxner.evaluation.scores` gives it."""
    return (score["num_correct"], score["num_predicted"], score["num_gold"])
