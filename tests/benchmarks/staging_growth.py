"""Time and memory of the driver's part of retrieval as sentences grow: reading, staging, counting, publishing.

`python -m tests.benchmarks.staging_growth [SENTENCES ...]` (default 10000 100000 1000000) prints one JSON line a part
and size; each runs in a process of its own. The rows that Ray Data would write are written here: blocks of 512 rows
with six passages each, eight blocks a file. `near` mixes up neighbouring blocks, as actors do; `scattered` mixes up all
of them, which no job does. Memory is resident: the peak, and what the process had before the first sentence. Times are
of the CPU, so that other work on the machine counts little.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ctxner.batch.job_folder import JobFolder
from ctxner.batch.retrieval_files import Stage, job_path, publish, row_schema, stage
from ctxner.files.jsonl import write_jsonl
from ctxner.files.lines import ReadCounts
from ctxner.files.sentences import iter_sentences
from ctxner.schema import Sentence

SIZES = (10_000, 100_000, 1_000_000)
BLOCK, BLOCKS_A_FILE, NEIGHBOURS = 512, 8, 32
WORDS = [f"word{n}" for n in range(5000)]


def main(sizes: list[int]) -> None:
    """Print the JSON lines of all sizes."""
    for size in sizes:
        for layout in ("near", "scattered"):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                if layout == "near":
                    apart(write_file, folder, size)
                    _measured("read", size, read, folder)
                _measured("stage" if layout == "near" else None, size, stage_synthetic, folder, size)
                apart(write_rows, folder, size, layout)
                if layout == "near":
                    _measured("num_done", size, count, folder, size)
                _measured(f"publish {layout}", size, publish_rows, folder, size)


def read(folder: Path) -> float:
    """CPU seconds to stream a JSONL file."""
    started = time.process_time()
    for _ in iter_sentences(folder / "some.jsonl", counts=ReadCounts()):
        pass
    return time.process_time() - started


def stage_synthetic(folder: Path, size: int) -> float:
    """CPU seconds to stage."""
    started = time.process_time()
    stage({"test": sentences(size)}, folder, {})
    return time.process_time() - started


def count(folder: Path, size: int) -> float:
    """CPU seconds to count what is done, once it has been counted before."""
    staged = _staged(folder, size)
    assert staged.job.num_done() == size
    started = time.process_time()
    staged.job.num_done()
    return time.process_time() - started


def publish_rows(folder: Path, size: int) -> float:
    """CPU seconds to join all rows."""
    started = time.process_time()
    assert publish(_staged(folder, size), {})["sentences"] == size
    return time.process_time() - started


def sentences(size: int) -> Iterator[Sentence]:
    """Sentences of 5 to 35 words."""
    rng = random.Random(0)
    for number in range(size):
        yield Sentence(f"s-{number}", tuple(rng.choices(WORDS, k=rng.randint(5, 35))))


def write_file(folder: Path, size: int) -> None:
    """The sentences as JSON lines."""
    write_jsonl(sentences(size), folder / "some.jsonl")


def write_rows(folder: Path, size: int, layout: str) -> None:
    """Rows and checkpoints of all staged sentences."""
    staged, rng = _staged(folder, size), random.Random(0)
    staged.job.checkpoint.mkdir(exist_ok=True)
    blocks = list(range(0, size, BLOCK))
    window = NEIGHBOURS if layout == "near" else len(blocks)
    order = [block for some in _parts(blocks, window) for block in rng.sample(some, len(some))]
    for number, some in enumerate(_parts(order, BLOCKS_A_FILE)):
        rows = pa.concat_tables(_block(start, min(BLOCK, size - start)) for start in some)
        pq.write_table(
            rows, staged.job.rows / f"{rng.random()}-{number:06d}.parquet", row_group_size=BLOCK * BLOCKS_A_FILE
        )
        pq.write_table(rows.select(["sentence_id"]), staged.job.checkpoint / f"{number}.parquet")


def _staged(folder: Path, size: int) -> Stage:
    return Stage(folder, JobFolder(job_path(folder), size), ("test",), (size,))


def _parts(blocks: list[int], size: int) -> Iterator[list[int]]:
    return (blocks[start : start + size] for start in range(0, len(blocks), size))


def _block(start: int, length: int) -> pa.Table:
    rng = random.Random(start)

    def text(num_words: int) -> str:
        return " ".join(rng.choices(WORDS, k=num_words))

    def passage(rank: int) -> dict[str, Any]:
        name = f"p-{rng.randrange(10**6)}"
        scores = {"bm25_score": rng.random(), "bm25_rank": rank, "rerank_score": rng.random()}
        return {"id": name, "source": "some", "title": "", "text": text(30), **scores, "dropped": None}

    pool = [[passage(rank) for rank in range(6)] for _ in range(16)]
    columns = {
        "sentence_id": [f"test\ts-{number}" for number in range(start, start + length)],
        "words": [text(20).split() for _ in range(length)],
        "query": [text(8) for _ in range(length)],
        "passages": [pool[number % len(pool)] for number in range(length)],
        "error": [None] * length,
        "position": np.arange(start, start + length),
    }
    return pa.table(columns, schema=row_schema())


def _measured(part: str | None, size: int, work: Callable[..., float], *arguments: Any) -> None:
    seconds, before, peak = apart(with_memory, work, *arguments)
    if part:
        figures = {"cpu_seconds": round(seconds, 4), "sentences_per_cpu_second": round(size / seconds)}
        memory = {"mb_before": round(before), "mb_peak": round(peak)}
        print(json.dumps({"part": part, "sentences": size, **figures, **memory}), flush=True)


def with_memory(work: Callable[..., float], *arguments: Any) -> tuple[float, float, float]:
    before = _memory("VmRSS")
    return work(*arguments), before, _memory("VmHWM")


def _memory(field: str) -> float:
    """MB of this process, by its name in /proc."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns, run in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or list(SIZES))
