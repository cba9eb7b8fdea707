"""The folder of a Ray Data job, with its input files and its finished rows; it outlives a killed job.

    inputs/      Parquet files that the job reads; replaced when the job changes
    rows/        rows done so far, in any order and any number of files; each row has a `position`
    checkpoint/  Ray Data's record of the rows that are complete
    scratch/     temporary files of the final join
    job.json     everything that the rows depend on

The final join sorts the rows by position (`ctxner.batch.ordered_rows`), so the number of workers changes nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ctxner.batch.ordered_rows import ordered
from ctxner.files.atomic import aside_of, put_in_place, remove_leftovers, write_text
from ctxner.files.contexts import SUCCESS
from ctxner.files.locks import exclusive


@dataclass(frozen=True)
class JobFolder:
    """A job's folder.

    Attributes:
        path: Path of the folder, reachable from every node.
        num_rows: Number of rows that the job reads; it makes the same number.
    """

    path: Path
    num_rows: int
    _sizes: dict[str, int] = field(default_factory=dict, repr=False, compare=False)  # rows per checkpoint file

    @property
    def inputs(self) -> Path:
        """Folder of the files that the job reads."""
        return self.path / "inputs"

    @property
    def rows(self) -> Path:
        """Folder of the rows' files, in any order."""
        return self.path / "rows"

    @property
    def scratch(self) -> Path:
        """Folder for the temporary files of the final join."""
        return self.path / "scratch"

    @property
    def checkpoint(self) -> Path:
        """Folder in which Ray Data records the rows that are complete."""
        return self.path / "checkpoint"

    def num_done(self) -> int:
        """Number of complete rows. Each checkpoint file is opened only once, since these files never change."""
        for path in self.checkpoint.glob("*.parquet"):
            if path.name not in self._sizes and ".pending" not in path.name:
                self._sizes[path.name] = pq.read_metadata(path).num_rows
        return sum(self._sizes.values())

    def joined(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """All rows in the order of their positions, as a stream of tables, in bounded memory.

        Raises:
            RuntimeError: A position has no row, or two rows.
        """
        expected = 0
        for table in ordered(sorted(self.rows.glob("*.parquet")), schema, self.scratch):
            positions = table["position"].to_numpy()
            if not np.array_equal(positions, np.arange(expected, expected + len(positions))):
                break
            expected += len(positions)
            yield table
        if expected != self.num_rows:
            raise RuntimeError(
                f"{self.rows}: row {expected} of {self.num_rows} is missing or there twice; "
                f"remove {self.path} and run again"
            )

    def remove(self) -> None:
        """Delete the folder at the end of the job."""
        shutil.rmtree(self.path)


def open_job(path: Path, write: Callable[[Path], tuple[int, Mapping[str, Any]]]) -> JobFolder:
    """Write the files that a job reads, and keep the rows in its folder if they belong to the same job.

    Args:
        path: The job's folder; its rows are deleted if they belong to another job.
        write: Function that writes Parquet files into a folder; returns the number of rows and all that they depend on.
    """
    fresh = aside_of(path)
    (fresh / "inputs").mkdir(parents=True)
    try:
        num_rows, job = write(fresh / "inputs")
        text = json.dumps(job, indent=1, sort_keys=True, default=str)
        if not (path / "job.json").is_file() or (path / "job.json").read_text(encoding="utf-8") != text:
            (fresh / "job.json").write_text(text, encoding="utf-8")
            put_in_place(fresh, path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    job_folder = JobFolder(path, num_rows)
    job_folder.rows.mkdir(exist_ok=True)
    return job_folder


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other jobs out of the job folder `path`, by a lock beside it that is released when the process ends.

    At the end the lock file is removed; so is its folder, if it was made here and is empty.

    Raises:
        ValueError: Another job holds the lock.
    """
    with ExitStack() as stack:
        if not path.parent.exists():
            stack.callback(_remove_if_empty, path.parent)
        try:
            stack.enter_context(exclusive(path.with_name(f"{path.name}.lock"), wait=False, remove=True))
        except BlockingIOError:
            raise ValueError(f"{path.parent}: another job is at work here; wait for it or stop it") from None
        remove_leftovers(path.parent, path.name)
        yield


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def write_success(folder: Path, facts: Mapping[str, Any]) -> None:
    """Add `facts` to the JSON object in `folder/_SUCCESS`; its other keys stay."""
    path = folder / SUCCESS
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write_text(path, json.dumps({**before, **facts}, indent=1, default=str))
