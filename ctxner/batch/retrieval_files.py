"""The files of a retrieval job: its staged sentences, and at the end one ordered Parquet file per split.

The job's folder `.retrieving` (`ctxner.batch.job_folder`) lies inside the contexts folder and outlives a killed job. A
job with the same sentences, index and settings continues from the finished rows; any other job starts again. Memory
grows by eight bytes per sentence, and only while sentences are staged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ctxner.batch.job_folder import JobFolder, open_job, write_success
from ctxner.files.atomic import new_file, remove_leftovers
from ctxner.files.contexts import storable
from ctxner.files.node_copies import work_folder
from ctxner.files.unique_ids import IdHashes, refuse_repeats
from ctxner.schema import Sentence, context_schema

_WORK = ".retrieving"
_ROWS_PER_FILE = 4096


def sentence_schema() -> pa.Schema:
    """Schema of a staged sentence: `sentence_id` begins with the split, `position` is its place in the whole job."""
    return pa.schema(
        [
            context_schema().field("sentence_id"),
            context_schema().field("words"),
            ("abbreviations", pa.list_(pa.list_(pa.string()))),
            ("position", pa.int64()),
        ]
    )


def row_schema() -> pa.Schema:
    """Schema of a context with the position of its sentence."""
    return context_schema().append(pa.field("position", pa.int64()))


@dataclass(frozen=True)
class Stage:
    """A retrieval job.

    Attributes:
        folder: Folder of this node in which the contexts files are written.
        job: The job's folder; its inputs are sentences.
        splits: Names of the splits, in order.
        ends: One past the position of each split's last sentence.
    """

    folder: Path
    job: JobFolder
    splits: tuple[str, ...]
    ends: tuple[int, ...]


def job_path(folder: Path) -> Path:
    """The job's folder inside a contexts folder; for a URI, the driver's part of it."""
    return work_folder(folder) / _WORK


def stage(splits: Mapping[str, Iterable[Sentence]], folder: Path, settings: Mapping[str, Any]) -> Stage:
    """Write the sentences for Ray Data to read, and keep the finished rows if they belong to the same job.

    Sentences are streamed; memory grows by eight bytes per sentence.

    Args:
        splits: Sentences by split; ids are unique within a split.
        folder: Folder of the contexts files, or its URI.
        settings: Other settings that the rows depend on.

    Raises:
        ValueError: There are no sentences, or a sentence id is repeated.
    """
    ends: list[int] = []

    def write(inputs: Path) -> tuple[int, Mapping[str, Any]]:
        counts, digest = _write_sentences(splits, inputs)
        ends.extend(counts)
        return counts[-1], {"sentences": digest, "splits": dict(zip(splits, counts, strict=True)), **settings}

    job = open_job(folder, _WORK, write)
    return Stage(work_folder(folder), job, tuple(splits), tuple(ends))


def publish(staged: Stage, manifest: Mapping[str, Any], *, max_errors: float = 1.0) -> dict[str, int]:
    """Join the rows into one file per split, in the order of the sentences, and record the splits in `_SUCCESS`.

    Files get temporary names and are renamed when all are complete; then the job's folder is deleted.

    Args:
        staged: Job whose rows are all complete.
        manifest: Values to record in `_SUCCESS` for each split of the job, beside the counts; other splits stay.
        max_errors: Largest share of sentences, over all splits, that may have an error.

    Returns:
        Counts over all splits of the job: `sentences`, `errors`, `without_query`, `without_passage` (and
        without an error) and `kept_passages`.

    Raises:
        RuntimeError: A sentence has no row, or two rows.
        ValueError: More sentences have an error; nothing is written and the rows stay.
    """
    first_error: str | None = None
    names = ("sentences", "errors", "without_query", "without_passage", "kept_passages")
    counts = {split: dict.fromkeys(names, 0) for split in staged.splits}
    first = 0
    with ExitStack() as stack:
        paths = {split: staged.folder / f"{split}.parquet" for split in staged.splits}
        for path in paths.values():
            remove_leftovers(path.parent, path.name)
        aside = {split: stack.enter_context(new_file(path)) for split, path in paths.items()}
        writers = {
            split: stack.enter_context(pq.ParquetWriter(path, context_schema())) for split, path in aside.items()
        }
        for table in staged.job.joined(row_schema()):
            for split, part in _by_split(table, staged, first):
                _count(part, counts[split])
                first_error = first_error or next((e for e in part["error"].to_pylist() if e is not None), None)
                writers[split].write_table(part)
            first += len(table)
        num_errors = sum(count["errors"] for count in counts.values())
        if num_errors > max_errors * first:
            raise ValueError(
                f"{staged.folder}: retrieval failed for {num_errors} of {first} sentences, more than "
                f"tagging.max_errors={max_errors} allows; first: {first_error}. Mend the cause, remove "
                f"{staged.job.path} and call the job again; or call it again with a larger --set "
                "tagging.max_errors=SHARE, which writes the rows as they are"
            )
    write_success(staged.folder, {split: {**manifest, **count} for split, count in counts.items()})
    staged.job.deliver()
    staged.job.remove()
    return {name: sum(count[name] for count in counts.values()) for name in next(iter(counts.values()))}


def _count(part: pa.Table, counts: dict[str, int]) -> None:
    passages = pa.chunked_array(
        [chunk.flatten() for chunk in part["passages"].chunks], part["passages"].type.value_type
    )
    counts["sentences"] += len(part)
    counts["errors"] += len(part) - part["error"].null_count
    counts["without_query"] += pc.sum(pc.equal(part["query"], "")).as_py() or 0
    is_empty = pc.equal(pc.list_value_length(part["passages"]), 0)
    counts["without_passage"] += pc.sum(pc.and_(is_empty, pc.is_null(part["error"]))).as_py() or 0
    counts["kept_passages"] += pc.struct_field(passages, "dropped").null_count if len(passages) else 0


def _write_sentences(splits: Mapping[str, Iterable[Sentence]], folder: Path) -> tuple[list[int], str]:
    """Write the sentences; returns one past the last position of each split, and a digest of all sentences."""
    digest, ends, position = hashlib.sha256(), [], 0
    for split, sentences in splits.items():
        hashes, rest = IdHashes(), iter(sentences)
        while chunk := list(islice(rest, _ROWS_PER_FILE)):
            keys = [f"{split}\t{sentence.id}" for sentence in chunk]
            words = [storable(sentence.words) for sentence in chunk]
            short_forms = [[list(storable(pair)) for pair in sentence.abbreviations] for sentence in chunk]
            lines = (
                "\0".join((key, *word, *(form for pair in pairs for form in ("\1", *pair))))
                for key, word, pairs in zip(keys, words, short_forms, strict=True)
            )
            digest.update("".join(f"{line}\n" for line in lines).encode())
            for sentence in chunk:
                hashes.add(sentence.id)
            positions = np.arange(position, position + len(chunk))
            table = pa.table(
                [keys, pa.array(words, pa.list_(pa.string())), short_forms, positions], schema=sentence_schema()
            )
            pq.write_table(table, folder / f"{position:012d}.parquet")
            position += len(chunk)
        refuse_repeats(hashes, _places(split, folder))
        ends.append(position)
    if not position:
        raise ValueError(f"no sentences to retrieve for in {', '.join(splits) or 'no split'}")
    return ends, digest.hexdigest()


def _places(split: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Place and id of each sentence of a split, read from the job's inputs."""
    number = 0
    for path in sorted(folder.glob("*.parquet")):
        for key in pq.read_table(path, columns=["sentence_id"])["sentence_id"].to_pylist():
            split_of_key, sentence_id = key.split("\t", 1)
            if split_of_key == split:
                number += 1
                yield f"{split}: sentence {number}", sentence_id


def _by_split(table: pa.Table, staged: Stage, first: int) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each split, without positions, and with the split removed from their ids."""
    start = 0
    for split, end in zip(staged.splits, staged.ends, strict=True):
        part = table.drop_columns("position").slice(max(0, start - first), max(0, end - max(start, first)))
        start = end
        if len(part):
            ids = pc.utf8_slice_codeunits(part["sentence_id"], len(split) + 1)
            yield split, part.set_column(0, "sentence_id", ids)
