"""Reads and writes calibration.json, tied to the model's weights by their SHA-256.

`ctxner.evaluation.calibration` defines the numbers and fits them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ctxner.evaluation.calibration import PlattScaling
from ctxner.files.atomic import write_text
from ctxner.files.bounded import read_json_object
from ctxner.schema import VIEWS

CALIBRATION_FILE = "calibration.json"
_MAX_BYTES = 2**20


@dataclass(frozen=True)
class Calibration:
    """Results of `ctxner calibrate` for a model's weights.

    Attributes:
        confidence: Scaling of each view's confidences; confidences of a missing view are not scaled.
        threshold: Entropy of the plain view, in nats, above which `auto` looks a sentence up; None: not chosen.
        found: Description of the data it was fitted on and the results, as plain JSON; not used for tagging.
    """

    confidence: Mapping[str, PlattScaling] = field(default_factory=dict)
    threshold: float | None = None
    found: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> Path:
        """Write `calibration.json` into the folder of the model that it was fitted for.

        Raises:
            ValueError: The folder holds no weights, or `found` is too large.
        """
        tree = {
            "weights_sha256": _own_weights(folder),
            "confidence": {view: asdict(scaling) for view, scaling in self.confidence.items()},
            "threshold": self.threshold,
            "found": dict(self.found),
        }
        text = json.dumps(tree, indent=1, allow_nan=False)
        if len(text) > _MAX_BYTES:
            raise ValueError(f"{folder / CALIBRATION_FILE}: more than {_MAX_BYTES:,} bytes; shorten what was found")
        write_text(folder / CALIBRATION_FILE, text)
        return folder / CALIBRATION_FILE

    @classmethod
    def load(cls, folder: Path) -> Calibration | None:
        """Load the calibration beside a model's weights; None if there is none.

        Raises:
            ValueError: The file is damaged, or was fitted for other weights.
        """
        path = folder / CALIBRATION_FILE
        if not path.exists():
            return None
        try:
            calibration, weights = _parsed(read_json_object(path, _MAX_BYTES))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path}: not what `ctxner calibrate` writes ({error!r:.200}); run it again, or remove the file"
            ) from None
        if weights != (present := _own_weights(folder)):
            raise ValueError(
                f"{path}: fitted for weights with SHA-256 {weights[:12]}..., but the folder's have "
                f"{present[:12]}...; run `ctxner calibrate` again, or remove the file"
            )
        return calibration


def auto_threshold(calibration: Calibration | None, given: float | None = None) -> float:
    """Entropy of the plain view, in nats, above which `auto` looks a sentence up.

    Args:
        calibration: Calibration of the model, if it has one.
        given: Threshold to use instead of the calibrated one; None: the calibrated one.

    Raises:
        ValueError: There is neither a given nor a calibrated threshold.
    """
    threshold = given if given is not None or calibration is None else calibration.threshold
    if threshold is None:
        raise ValueError(
            "view 'auto' needs a threshold and the model's folder holds none; run `ctxner calibrate MODEL` with "
            "contexts, or give a threshold in nats (tagging.threshold)"
        )
    return threshold


def _parsed(tree: Any) -> tuple[Calibration, str]:
    if strangers := set(tree) ^ {"weights_sha256", "confidence", "threshold", "found"}:
        raise ValueError(f"keys missing or unknown: {sorted(strangers)[:4]}")
    scalings = {}
    for view, scaling in tree["confidence"].items():
        if view not in VIEWS or set(scaling) != {"slope", "intercept"}:
            raise ValueError(f"confidence of {view!r}; wanted slope and intercept of {' or '.join(VIEWS)}")
        scalings[view] = PlattScaling(_number(scaling["slope"]), _number(scaling["intercept"]))
        if scalings[view].slope <= 0:
            raise ValueError(f"slope {scalings[view].slope} of {view}; wanted above 0")
    threshold = None if tree["threshold"] is None else _number(tree["threshold"])
    if not isinstance(tree["weights_sha256"], str) or not isinstance(tree["found"], dict):
        raise ValueError("weights_sha256 is no text, or found no object")
    return Calibration(scalings, threshold, tree["found"]), tree["weights_sha256"]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e9:
        raise ValueError(f"found {value!r:.40}; wanted a finite number")
    return float(value)


def weights_sha256(folder: Path) -> str | None:
    """SHA-256 of model.safetensors; with several files, the SHA-256 of their hashes in the order of their names.

    Returns None if the folder has no weights, as for a hub id.
    """
    hashes = []
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    if len(hashes) > 1:
        return hashlib.sha256("".join(hashes).encode()).hexdigest()
    return hashes[0] if hashes else None


def _own_weights(folder: Path) -> str:
    sha256 = weights_sha256(folder)
    if sha256 is None:
        raise ValueError(f"{folder}: no model.safetensors; a calibration belongs to a model's folder")
    return sha256
