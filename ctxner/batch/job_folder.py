"""The folder of a Ray Data job, with its input files and its finished rows; it outlives a killed job.

    inputs/      Parquet files that the job reads; replaced when the job changes
    rows/        rows done so far, in any order and any number of files; each row has a `position`
    checkpoint/  Ray Data's record of the rows that are complete
    scratch/     temporary files of the final join
    job.json     everything that the rows depend on

Behind a URI the job's folder lies in the store, where all nodes read and write it; the driver stages and joins in a
folder of its own node, and uploads the result at the end.

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
from ctxner.files.node_copies import CACHE_VARIABLE, copy_files, work_folder
from ctxner.files.storage import (
    arrow_filesystem,
    explained,
    filesystem,
    names_in,
    put_folder,
    read_bytes,
    remove,
)
from ctxner.files.uris import is_uri

MAX_MANIFEST_BYTES = 1 << 24  # of job.json and _SUCCESS

_LAYOUT = 2  # raised when rows or checkpoints of an older version of ctxner cannot be continued


@dataclass(frozen=True)
class JobFolder:
    """A job's folder.

    Attributes:
        path: Path of the folder, reachable from every node unless there is a store.
        num_rows: Number of rows that the job reads; it makes the same number.
        store: URI of the folder that all nodes read and write, `path` being the driver's; None: there is only `path`.
    """

    path: Path
    num_rows: int
    store: str | None = None
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

    def shared(self, folder: Path) -> dict[str, Any]:
        """A folder of the job as all nodes find it: its `path`, and its pyarrow `filesystem` (None: local)."""
        if self.store is None:
            return {"path": str(folder), "filesystem": None}
        filesystem, path = arrow_filesystem(f"{self.store}/{folder.name}")
        return {"path": path, "filesystem": filesystem}

    def num_done(self) -> int:
        """Number of complete rows. Each checkpoint file is opened only once, since these files never change."""
        where = self.shared(self.checkpoint)
        names = (
            names_in(f"{self.store}/checkpoint") if self.store else (path.name for path in self.checkpoint.glob("*"))
        )
        for name in names:
            if name.endswith(".parquet") and name not in self._sizes and ".pending" not in name:
                path = f"{where['path']}/{name}"
                self._sizes[name] = pq.read_metadata(path, filesystem=where["filesystem"]).num_rows
        return sum(self._sizes.values())

    def joined(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """All rows in the order of their positions, as a stream of tables, in bounded memory.

        Raises:
            RuntimeError: A position has no row, or two rows.
        """
        self._fetch_rows()
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

    def _fetch_rows(self) -> None:
        if self.store is None:
            return
        uri = f"{self.store}/rows"
        files, root = filesystem(uri)
        with explained(uri):
            listed = files.find(root, detail=True)
        shutil.rmtree(self.rows, ignore_errors=True)
        self.rows.mkdir()
        if listed:
            advice = f"set {CACHE_VARIABLE} to a folder on a larger disk of the driver's node"
            copy_files(uri, listed, [self.rows / name.rsplit("/", 1)[-1] for name in listed], advice)

    def deliver(self) -> None:
        """Upload the result, which lies beside the folder, `_SUCCESS` last; without a store it is in place already."""
        if self.store is None:
            return
        result, uri = self.path.parent, self.store.rpartition("/")[0]
        remove(f"{uri}/{SUCCESS}")
        for folder in result.iterdir():
            if folder.is_dir() and not folder.name.startswith("."):
                remove(f"{uri}/{folder.name}")  # else documents of an older result would stay in it
        put_folder(result, uri, last=SUCCESS, keep=True)

    def remove(self) -> None:
        """Delete the folder at the end of the job; with a store, the driver's copy of the result too."""
        if self.store is None:
            shutil.rmtree(self.path)
            return
        remove(self.store)
        shutil.rmtree(self.path.parent)


def open_job(folder: Path, name: str, write: Callable[[Path], tuple[int, Mapping[str, Any]]]) -> JobFolder:
    """Write the files that a job reads, and keep the rows in its folder if they belong to the same job.

    Args:
        folder: Folder of the result, or its URI.
        name: Name of the job's folder in it; its rows are deleted if they belong to another job.
        write: Function that writes Parquet files into a folder; returns the number of rows and all that they depend on.
    """
    path, store = work_folder(folder) / name, f"{folder}/{name}" if is_uri(folder) else None
    fresh = aside_of(path)
    (fresh / "inputs").mkdir(parents=True)
    try:
        num_rows, job = write(fresh / "inputs")
        text = json.dumps({"layout": _LAYOUT, **job}, indent=1, sort_keys=True, default=str)
        (fresh / "job.json").write_text(text, encoding="utf-8")
        if store is not None:
            _stage(fresh, store)
        elif not (path / "job.json").is_file() or (path / "job.json").read_text(encoding="utf-8") != text:
            put_in_place(fresh, path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    job_folder = JobFolder(path, num_rows, store)
    job_folder.rows.mkdir(parents=True, exist_ok=True)
    if store is not None:  # the result's manifest is added to
        with suppress(FileNotFoundError):
            (path.parent / SUCCESS).write_bytes(read_bytes(f"{folder}/{SUCCESS}", MAX_MANIFEST_BYTES))
    return job_folder


def _stage(fresh: Path, store: str) -> None:
    """Upload a job's files, unless the store has the same job; `job.json` comes last, so that half a job is no job."""
    with suppress(FileNotFoundError):
        if read_bytes(f"{store}/job.json", MAX_MANIFEST_BYTES) == (fresh / "job.json").read_bytes():
            return
    remove(f"{store}/job.json")
    put_folder(fresh, store, last="job.json")


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
