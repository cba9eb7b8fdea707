"""The folder where studies and pipelines keep what they share: indexes, contexts, models, scores; by their step's key.

    KIND/KEY/            what the step made
    KIND/KEY.files.json  the sizes of these files, by which the step's result is known to be whole
    KIND/KEY.done.json   written last, at once: the step is done, and what is known of it
    KIND/KEY.failed.json why the last attempt failed; removed when another one begins
    KIND/KEY.log         what all attempts said; each begins with a line `started ...`
    KIND/KEY.lock        locked while a process works on the step; the lock ends with its process

So two drivers, on one machine or on a shared file system, never do a step twice or at the same time.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxner.files.atomic import write_text
from ctxner.files.locks import exclusive
from jobs.experiment.keys import StepKind
from jobs.experiment.results import StepFacts

RESULT = "result.json"  # what a training, a calibration and a scoring say of themselves
_STARTED = "started "
_TAIL_BYTES = 20_000
_RESULT: dict[StepKind, tuple[str, ...]] = {  # files of a step that later steps read; what else there is may change
    "index": ("CURRENT", "v*/**/*"),
    "contexts": ("_SUCCESS", "*.parquet"),
    "shuffle": ("*.parquet",),
    "train": (RESULT, "model/*"),
    "calibrate": (RESULT, "model/*"),
    "score": (RESULT, "*.html"),
}


@dataclass(frozen=True, slots=True)
class Step:
    """One step, by kind and key."""

    kind: StepKind
    key: str


@dataclass(frozen=True, slots=True)
class Store:
    """A store of steps' results below a folder, which every node must reach."""

    root: Path

    def folder(self, step: Step) -> Path:
        """What the step made."""
        return self.root / step.kind / step.key

    def done(self, step: Step) -> StepFacts | None:
        """Facts of a finished step; None when it is not finished, or what it made is gone or cut short."""
        path = self._beside(step, "done.json")
        if not path.is_file() or not self._is_whole(step):
            return None
        return StepFacts.model_validate_json(path.read_text(encoding="utf-8"))

    def was_done(self, step: Step) -> bool:
        """Whether the step was finished once, whatever has become of its result."""
        return self._beside(step, "done.json").is_file()

    def _is_whole(self, step: Step) -> bool:
        folder, listed = self.folder(step), self._beside(step, "files.json")
        if not folder.is_dir() or not listed.is_file():  # stores of before have no list
            return folder.is_dir()
        try:
            return all((folder / name).stat().st_size == size for name, size in read_made(listed).items())
        except FileNotFoundError:
            return False

    def finish(self, step: Step, facts: StepFacts) -> None:
        """Declare the step done."""
        folder = self.folder(step)
        files = {file for pattern in _RESULT[step.kind] for file in folder.glob(pattern) if file.is_file()}
        sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in sorted(files)}
        write_text(self._beside(step, "files.json"), json.dumps(sizes, ensure_ascii=False) + "\n")
        write_text(self._beside(step, "done.json"), facts.model_dump_json(indent=1) + "\n")

    def failure(self, step: Step) -> str | None:
        """Why the last attempt failed; None when it did not."""
        path = self._beside(step, "failed.json")
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["error"])
        except FileNotFoundError:
            return None

    def fail(self, step: Step, error: str, exit_code: int) -> None:
        """Note why an attempt failed, and the exit code (`jobs.exit_codes`) that this means."""
        failure = {"error": error, "exit_code": exit_code}
        write_text(self._beside(step, "failed.json"), json.dumps(failure, ensure_ascii=False) + "\n")

    def exit_code(self, step: Step) -> int:
        """The exit code that the last failure means."""
        return int(read_made(self._beside(step, "failed.json")).get("exit_code", 1))

    @contextmanager
    def claim(self, step: Step) -> Iterator[None]:
        """Be the only one who works on the step.

        Raises:
            BlockingIOError: Another process does.
        """
        with exclusive(self._beside(step, "lock"), wait=False, remove=True):
            self._beside(step, "failed.json").unlink(missing_ok=True)
            yield

    def is_running(self, step: Step) -> bool:
        """Whether a process works on the step; found out without a lock of its own that would stop one."""
        path = self._beside(step, "lock")
        if not path.exists():
            return False
        try:
            with exclusive(path, wait=False, remove=True):
                return False
        except BlockingIOError:
            return True

    def log(self, step: Step) -> Path:
        """File to which all attempts of the step write."""
        return self._beside(step, "log")

    def attempts(self, step: Step) -> int:
        """How often the step has been started."""
        try:
            with self.log(step).open(encoding="utf-8", errors="replace") as lines:
                return sum(line.startswith(_STARTED) for line in lines)
        except FileNotFoundError:
            return 0

    def last_line(self, step: Step) -> str:
        """The last line that the step wrote; empty without any."""
        try:
            with self.log(step).open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - _TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def forget_damaged(self, step: Step) -> None:
        """Remove what is left of a finished step that is not whole any more; for its holder."""
        if self.was_done(step) and not self._is_whole(step):
            shutil.rmtree(self.folder(step), ignore_errors=True)
            self._beside(step, "done.json").unlink()

    def _beside(self, step: Step, suffix: str) -> Path:
        return self.root / step.kind / f"{step.key}.{suffix}"


def started_line(step: Step, when: str, host: str, process: int) -> str:
    """The line with which an attempt begins in the step's log."""
    return f"{_STARTED}{step.kind} {step.key} at {when} on {host}, process {process}\n"


def read_made(path: Path) -> dict[str, Any]:
    """A JSON object that a step has written."""
    tree = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(tree, dict)
    return tree
