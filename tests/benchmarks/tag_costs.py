"""What a sentence of `ctxner tag --view context` costs, part by part: milliseconds of one thread.

`python -m tests.benchmarks.tag_costs MODEL INDEX FILE [SENTENCES]` calls the job's own actors one after the other on
what it stages, without Ray, the first half to warm up; nothing is cached by the re-ranker. Prints a JSON line.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_BATCH = 512  # documents a call, as in the pipeline


def main(model: str, index: str, file: str, number: int) -> None:
    """Measure and print."""
    from ctxner.batch.retrieval_actors import Rerank, Search
    from ctxner.batch.tagging_actors import LookUp, TagContext
    from ctxner.batch.tagging_files import publish_documents, stage_documents
    from ctxner.config import parse_config
    from ctxner.files.documents import iter_documents
    from ctxner.retrieval.index.fetch import index_manifest
    from ctxner.retriever import decided

    config = parse_config({"index": {"folder": index}, "retrieval": {"threads": 1, "cache": None}})
    settings, spent = decided(config.retrieval).model_dump(), Counter[str]()
    stages: dict[str, Callable[[pa.Table], pa.Table]] = {
        "search": LookUp(Search, config.index.model_dump(), index_manifest(config.index.folder), settings),
        "rerank": LookUp(Rerank, settings),
        "rows": (tagger := TagContext(model, {"threads": 1, "view": "context"}, False)),
    }
    own = tagger.tagger.tagger
    _timed(own.views, "context", "views", spent)
    _timed(own.views, "collate", "views", spent)
    _timed(own.model, "word_vectors", "encoder", spent)
    for name in ("viterbi", "entropy", "segment_probability"):
        _timed(own.model.crf, name, "crf", spent)
    with tempfile.TemporaryDirectory() as folder:
        with _counted("staging", spent):
            job = stage_documents(islice(iter_documents(file), number), Path(folder), {})
        parts = pa.concat_tables(pq.read_table(path) for path in sorted(job.inputs.glob("*.parquet")))
        staged, num_timed = dict(spent), 0
        for start in range(0, len(parts), _BATCH):
            if start <= len(parts) // 2 < start + _BATCH:
                spent.clear()
                num_timed = len(parts) - start
            table = parts.slice(start, _BATCH)
            for name, stage in stages.items():
                with _counted(name, spent):
                    table = stage(table)
            pq.write_table(table, job.rows / f"{start}.parquet")
        with _counted("joining", joined := Counter[str]()):
            publish_documents(job, Path(folder), ["parquet"])
    spent["rows"] -= sum(spent[name] for name in ("views", "encoder", "crf"))
    each = {name: 1000 * seconds / num_timed for name, seconds in spent.items()}
    each |= {name: 1000 * seconds / len(parts) for name, seconds in {**staged, **joined}.items()}
    print(json.dumps({"sentences": num_timed, **{f"{name}_ms": round(ms, 2) for name, ms in each.items()}}))


@contextmanager
def _counted(name: str, spent: Counter[str]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    spent[name] += time.perf_counter() - started


def _timed(owner: Any, method: str, name: str, spent: Counter[str]) -> None:
    """Count the time that a method takes."""
    inner = getattr(owner, method)

    def timed(*arguments: Any, **named: Any) -> Any:
        with _counted(name, spent):
            return inner(*arguments, **named)

    setattr(owner, method, timed)


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]) if len(sys.argv) > 4 else 2048)
