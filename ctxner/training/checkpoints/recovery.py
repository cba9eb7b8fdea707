"""Cleans up after a killed run: removes unrecorded checkpoints, repairs the record; also locks a run's folder.

Ray Train's record of a run's checkpoints (`checkpoint_manager_snapshot.json`) decides where a run continues. Ray Train
does not write it atomically, and a checkpoint is complete some seconds before the record names it.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ctxner.files.atomic import remove_leftovers, write_text
from ctxner.files.locks import exclusive
from ctxner.files.node_copies import work_folder
from ctxner.files.storage import names_in, read_bytes, remove
from ctxner.files.uris import UriPath
from ctxner.training.checkpoints.files import is_whole, read_progress

logger = logging.getLogger(__name__)

_MAX_RECORD_BYTES = 1 << 26
RECORD_FILE, LOCK_FILE = "checkpoint_manager_snapshot.json", ".lock"
_LISTS = (
    "pending_training_results",
    "pending_validation_specs",
    "validated_checkpoint_dir_names",
    "timed_out_validation_checkpoint_dir_names",
    "failed_validation_checkpoint_dir_names",
)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other drivers out of a run's folder (of a URI: on this node); the lock ends with the process at the latest.

    Raises:
        ValueError: Another process holds the lock, or the folder cannot be written.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(work_folder(folder) / LOCK_FILE, wait=False))
        except BlockingIOError:
            raise ValueError(f"{folder}: this run is under way in another process; wait for it or stop it") from None
        except OSError as error:
            raise ValueError(f"run.storage: {folder} cannot be written ({error}); choose another") from None
        yield


def clean_up(folder: Path) -> None:
    """Repair a damaged record of a run's checkpoints; remove checkpoints it does not name and half-published models.

    Call it only while holding the folder's lock (`alone`) and while no worker runs.
    """
    if isinstance(folder, UriPath):
        _clean_up_store(folder)
        return
    checkpoints = [path for path in sorted(folder.glob("checkpoint_*")) if path.is_dir()]
    named = _named(folder / RECORD_FILE)
    if named is None:
        whole = [path for path in checkpoints if is_whole(path)]
        _write_record(folder / RECORD_FILE, whole)
        named = {path.name for path in whole}
    for path in checkpoints:
        if path.name not in named:
            logger.info("%s: removed, what killed the run left it unfinished", path)
            shutil.rmtree(path, ignore_errors=True)
    remove_leftovers(folder)


def _clean_up_store(folder: UriPath) -> None:
    """Remove checkpoints that the record does not name; a store writes the record as a whole, so it is never damaged.

    Ray Train writes the record before it deletes checkpoints that the record names no longer.
    """
    present = {name for name in names_in(folder) if name.startswith("checkpoint_") and name != RECORD_FILE}
    named = set[str]()
    with suppress(FileNotFoundError):
        results = json.loads(read_bytes(folder / RECORD_FILE, _MAX_RECORD_BYTES))["checkpoint_results"]
        named = {result["checkpoint_dir_name"] for result in results}
    if missing := sorted(named - present):
        raise ValueError(f"{folder}: {', '.join(missing)} of its record is gone; choose another --name to train anew")
    for name in sorted(present - named):
        logger.info("%s/%s: removed, what killed the run left it unfinished", folder, name)
        remove(folder / name)


def _named(record: Path) -> set[str] | None:
    """Folders that the record names; None when the record or one of these folders is missing, or it is damaged."""
    try:
        results = json.loads(record.read_text())["checkpoint_results"]
        names = {result["checkpoint_dir_name"] for result in results}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return names if all((record.parent / name).is_dir() for name in names) else None


def _write_record(record: Path, checkpoints: list[Path]) -> None:
    """Write the record as Ray Train would have written it: worst checkpoint first, numbered by age."""
    if not checkpoints:
        record.unlink(missing_ok=True)
        return
    progress = {path: read_progress(path) for path in checkpoints}
    by_age = sorted(checkpoints, key=lambda path: (progress[path].epoch, progress[path].step, path.name))
    results: list[dict[str, Any]] = [
        {"checkpoint_dir_name": path.name, "metrics": progress[path].metrics()} for path in by_age
    ]
    order = sorted(range(len(results)), key=lambda age: (_score(results[age]["metrics"]), age))
    tree: dict[str, Any] = {
        "ray_version": version("ray"),
        "checkpoint_results": [results[age] for age in order],
        "checkpoint_report_indices": order,
        "latest_checkpoint_result": results[-1],
        "current_report_index": len(results),
        **{name: [] for name in _LISTS},
    }
    write_text(record, json.dumps(tree))
    logger.warning("%s: it was damaged; made anew from %d checkpoints", record, len(results))


def _score(metrics: dict[str, float]) -> float:
    return metrics["mean_f1"] if metrics["mean_f1"] == metrics["mean_f1"] else float("-inf")
