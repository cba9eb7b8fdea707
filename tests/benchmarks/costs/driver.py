"""What the driver does per sentence before and after Ray's part, and the memory that it takes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks import staging_growth
from tests.benchmarks.costs.rounding import rounded

_STAGED = (200_000, 800_000)  # memory levels off at some 100,000 before it grows by the sentence


def driver() -> dict[str, Any]:
    """Staging and joining, by the slope between two sizes."""
    small, large = _STAGED
    figures: dict[str, list[tuple[float, float]]] = {}
    for size in _STAGED:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for part, work, arguments in _driver_parts(folder, size):
                seconds, _, peak = staging_growth.apart(staging_growth.with_memory, work, *arguments)
                figures.setdefault(part, []).append((seconds, peak))
    slopes = {
        part: [(after - before) / (large - small) for before, after in zip(*values, strict=True)]
        for part, values in figures.items()
    }
    return {
        name: {
            "unit": "sentence",
            "driver_s": rounded(sum(slopes[part][0] for part in parts)),
            "driver_bytes": max(0, round(max(slopes[part][1] for part in parts) * 1e6)),
        }
        for name, parts in {
            "retrieve.stage": ("read", "stage"),
            "retrieve.join": ("publish",),
            "tag.stage": ("stage documents",),
            "tag.join": ("publish documents",),
        }.items()
    }


def _driver_parts(folder: Path, size: int) -> Iterator[tuple[str, Callable[..., float], tuple[Any, ...]]]:
    staging_growth.apart(staging_growth.write_file, folder, size)
    yield "read", staging_growth.read, (folder,)
    yield "stage", staging_growth.stage_synthetic, (folder, size)
    staging_growth.apart(staging_growth.write_rows, folder, size, "near")
    yield "publish", staging_growth.publish_rows, (folder, size)
    yield "stage documents", stage_documents, (folder,)
    staging_growth.apart(write_tagged, folder)
    yield "publish documents", publish_documents, (folder, size)


def stage_documents(folder: Path) -> float:
    """CPU seconds to stage the sentences of a file as documents."""
    from ctxner.batch import tagging_files
    from ctxner.files.documents import iter_documents

    started = time.process_time()
    tagging_files.stage_documents(iter_documents(folder / "some.jsonl"), folder / "tagged", {})
    return time.process_time() - started


def write_tagged(folder: Path) -> None:
    """Rows of all staged documents, each with one sentence and two entities."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ctxner.batch.tagging_files import job_path, tagged_schema

    job = job_path(folder / "tagged")
    entity = {"text": "word1 word2", "type": "person", "start": 0, "end": 11, "confidence": 0.9, "sentence": 0}
    sentence = {"start": 0, "end": 100, "view": "plain", "entropy": 0.5}
    for path in sorted((job / "inputs").glob("*.parquet")):
        rows = pq.read_table(path, columns=["position", "document", "start", "id", "text"]).to_pylist()
        made = [{**row, "entities": [entity, entity], "sentences": [sentence], "error": None} for row in rows]
        pq.write_table(pa.Table.from_pylist(made, schema=tagged_schema()), job / "rows" / path.name)


def publish_documents(folder: Path, size: int) -> float:
    """CPU seconds to join them."""
    from ctxner.batch import tagging_files
    from ctxner.batch.job_folder import JobFolder

    job = JobFolder(tagging_files.job_path(folder / "tagged"), size)
    started = time.process_time()
    tagging_files.publish_documents(job, folder / "tagged", ["parquet"])
    return time.process_time() - started
