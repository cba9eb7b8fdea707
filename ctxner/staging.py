"""The files of one retrieval job: its sentences, the rows done so far, and one ordered Parquet file a split at the end.

The job's folder `.retrieving` lies inside the contexts folder and outlives a killed job. A job over the same sentences,
index and settings goes on from the rows that are there (Ray Data's checkpoint says which); any other starts afresh.
Rows are joined again by position, so that order and the number of workers leave no trace.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ctxner.contexts import storable
from ctxner.schema import Sentence, context_schema

SUCCESS = "_SUCCESS"
_WORK = ".retrieving"
_ROWS_A_FILE = 4096


def sentence_schema() -> pa.Schema:
    """A staged sentence; `sentence_id` carries its split, `position` its place in the whole job."""
    return pa.schema([context_schema().field("sentence_id"), context_schema().field("words"), ("position", pa.int64())])


def row_schema() -> pa.Schema:
    """A context and the position of its sentence."""
    return context_schema().append(pa.field("position", pa.int64()))


@dataclass(frozen=True)
class Stage:
    """A job's folder.

    Attributes:
        folder: Of the contexts files.
        splits: Names, in order.
        ends: One past the position of each split's last sentence.
    """

    folder: Path
    splits: tuple[str, ...]
    ends: tuple[int, ...]

    @property
    def num_sentences(self) -> int:
        """Of all splits."""
        return self.ends[-1]

    @property
    def sentences(self) -> Path:
        """Folder of the sentences' files."""
        return self.folder / _WORK / "sentences"

    @property
    def rows(self) -> Path:
        """Folder of the rows' files, in any order."""
        return self.folder / _WORK / "rows"

    @property
    def checkpoint(self) -> Path:
        """Folder that says which rows are complete; Ray Data's."""
        return self.folder / _WORK / "checkpoint"

    def num_done(self) -> int:
        """Sentences whose rows are complete."""
        done = [path for path in self.checkpoint.glob("*.parquet") if ".pending" not in path.name]
        return sum(pq.read_metadata(path).num_rows for path in done)


def stage(splits: Mapping[str, Iterable[Sentence]], folder: Path, settings: Mapping[str, Any]) -> Stage:
    """Write the sentences for Ray Data to read, and find out whether rows of this very job are there already.

    Sentences are streamed: memory does not grow with them, but for eight bytes each.

    Args:
        splits: Sentences by split; ids are unique within a split.
        folder: Of the contexts files.
        settings: Whatever else the rows depend on.

    Raises:
        ValueError: No sentence at all, or a sentence id twice.
    """
    work = folder / _WORK
    fresh = work.with_name(f"{_WORK}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    (fresh / "sentences").mkdir(parents=True)
    try:
        ends, digest = _write_sentences(splits, fresh / "sentences")
        job = {"sentences": digest, "splits": dict(zip(splits, ends, strict=True)), **settings}
        text = json.dumps(job, indent=1, sort_keys=True, default=str)
        if not (work / "job.json").is_file() or (work / "job.json").read_text(encoding="utf-8") != text:
            (fresh / "job.json").write_text(text, encoding="utf-8")
            shutil.rmtree(work, ignore_errors=True)
            fresh.rename(work)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    staged = Stage(folder, tuple(splits), tuple(ends))
    staged.rows.mkdir(exist_ok=True)
    return staged


def publish(staged: Stage, manifest: Mapping[str, Any]) -> dict[str, int]:
    """Join the rows into one file a split, in the order of the sentences, and say so in `_SUCCESS`.

    Files are written aside and renamed when all are complete; then the job's folder goes.

    Args:
        staged: A job whose rows are all there.
        manifest: What `_SUCCESS` says of each of its splits, beside the counts; what it said of others stays.

    Returns:
        Counts over all its splits: `sentences`, `errors`, `without_query` and `kept_passages`.

    Raises:
        RuntimeError: A sentence has no row, or two.
    """
    aside = {split: staged.folder / f".{split}.parquet.{os.getpid()}" for split in staged.splits}
    writers = {split: pq.ParquetWriter(path, context_schema()) for split, path in aside.items()}
    counts = {split: dict.fromkeys(("sentences", "errors", "without_query", "kept_passages"), 0) for split in writers}
    expected = 0
    try:
        for table in _ordered(sorted(staged.rows.glob("*.parquet"))):
            positions = table["position"].to_numpy()
            if not np.array_equal(positions, np.arange(expected, expected + len(positions))):
                break
            for split, part in _by_split(table, staged, expected):
                _count(part, counts[split])
                writers[split].write_table(part)
            expected += len(positions)
        if expected != staged.num_sentences:
            raise RuntimeError(
                f"{staged.rows}: row {expected} of {staged.num_sentences} is missing or there twice; "
                f"remove {staged.rows.parent} and run again"
            )
        for split, writer in writers.items():
            writer.close()
            aside[split].rename(staged.folder / f"{split}.parquet")
    finally:
        for split, path in aside.items():
            writers[split].close()
            path.unlink(missing_ok=True)
    _write_success(staged, {split: {**manifest, **own} for split, own in counts.items()})
    shutil.rmtree(staged.rows.parent)
    return {name: sum(own[name] for own in counts.values()) for name in next(iter(counts.values()))}


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other jobs out of a contexts folder; the lock ends with the process.

    Raises:
        ValueError: Another job holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{_WORK}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: another retrieval job is at work here; wait for it or stop it") from None
        yield


def _count(part: pa.Table, counts: dict[str, int]) -> None:
    passages = pa.chunked_array(
        [chunk.flatten() for chunk in part["passages"].chunks], part["passages"].type.value_type
    )
    counts["sentences"] += len(part)
    counts["errors"] += len(part) - part["error"].null_count
    counts["without_query"] += pc.sum(pc.equal(part["query"], "")).as_py() or 0
    counts["kept_passages"] += pc.struct_field(passages, "dropped").null_count if len(passages) else 0


def _write_success(staged: Stage, manifests: Mapping[str, Any]) -> None:
    path, aside = staged.folder / SUCCESS, staged.folder / f".{SUCCESS}.{os.getpid()}"
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    aside.write_text(json.dumps({**before, **manifests}, indent=1), encoding="utf-8")
    aside.rename(path)


def _write_sentences(splits: Mapping[str, Iterable[Sentence]], folder: Path) -> tuple[list[int], str]:
    """One past the last position of each split, and a digest of all sentences."""
    digest, ends, position = hashlib.sha256(), [], 0
    rows: list[dict[str, Any]] = []
    for split, sentences in splits.items():
        hashes = array("Q")
        for sentence in sentences:
            key, words = f"{split}\t{sentence.id}", storable(sentence.words)
            digest.update("\0".join((key, *words)).encode("utf-8", "surrogatepass") + b"\n")
            hashes.append(_hash(sentence.id))
            rows.append({"sentence_id": key, "words": words, "position": position})
            position += 1
            if len(rows) == _ROWS_A_FILE:
                _flush(rows, folder)
        _refuse_repeats(split, hashes, folder, rows)
        ends.append(position)
    if not position:
        raise ValueError(f"no sentences to retrieve for in {', '.join(splits) or 'no split'}")
    _flush(rows, folder)
    return ends, digest.hexdigest()


def _flush(rows: list[dict[str, Any]], folder: Path) -> None:
    if rows:
        path = folder / f"{rows[0]['position']:012d}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=sentence_schema()), path)
        rows.clear()


def _hash(sentence_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(sentence_id.encode("utf-8", "replace"), digest_size=8).digest(), "big")


def _refuse_repeats(split: str, hashes: Sequence[int], folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """ValueError when two ids of the split are equal; equal hashes alone are looked into, not believed."""
    values, counts = np.unique(np.asarray(hashes, dtype=np.uint64), return_counts=True)
    suspects = {int(value) for value in values[counts > 1]}
    if not suspects:
        return
    seen: set[str] = set()
    written = (pq.read_table(path)["sentence_id"].to_pylist() for path in sorted(folder.glob("*.parquet")))
    for key in (*(key for keys in written for key in keys), *(row["sentence_id"] for row in rows)):
        own, sentence_id = key.split("\t", 1)
        if own != split or _hash(sentence_id) not in suspects:
            continue
        if sentence_id in seen:
            raise ValueError(f"{split}: sentence id {sentence_id!r} occurs twice; ids must be unique in a split")
        seen.add(sentence_id)


def _ordered(paths: Sequence[Path]) -> Iterator[pa.Table]:
    """All rows by position; in memory are only files whose ranges of positions overlap."""
    firsts = {path: pc.min(pq.read_table(path, columns=["position"])["position"]).as_py() for path in paths}
    waiting = row_schema().empty_table()
    order = [path for path in sorted(paths, key=lambda path: firsts[path] or 0) if firsts[path] is not None]
    for number, path in enumerate(order):
        table = pq.read_table(path).select(row_schema().names).cast(row_schema())
        waiting = pa.concat_tables([waiting, table]).sort_by("position")
        if number + 1 < len(order):
            ready = pc.sum(pc.less(waiting["position"], firsts[order[number + 1]])).as_py() or 0
            yield waiting.slice(0, ready)
            waiting = waiting.slice(ready)
    yield waiting


def _by_split(table: pa.Table, staged: Stage, first: int) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each split, with the split taken off their ids again and without positions."""
    start = 0
    for split, end in zip(staged.splits, staged.ends, strict=True):
        part = table.drop_columns("position").slice(max(0, start - first), max(0, end - max(start, first)))
        start = end
        if len(part):
            ids = [key.split("\t", 1)[1] for key in part["sentence_id"].to_pylist()]
            yield split, part.set_column(0, "sentence_id", pa.array(ids, pa.string()))
