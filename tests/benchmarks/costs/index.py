"""What an index costs: a build per passage, with the driver's part apart, and a query by mode and size of the index."""

from __future__ import annotations

import dataclasses
import resource
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ctxner.schema import Passage
from tests.benchmarks import growth, staging_growth, texts
from tests.benchmarks.costs.rounding import rounded

_BUILT = (50_000, 200_000)
_SEARCHED = (100_000, growth.KNOWLEDGE, 5_000_000)
_FOREIGN = 1000  # parts of which a reader reads one


def index() -> dict[str, Any]:
    """Builds of two sizes, texts and entries in turn; per passage is the slope, without the start of Java."""
    small, large = (staging_growth.apart(build, size) for size in _BUILT)
    slope = {name: (large[name] - small[name]) / (_BUILT[1] - _BUILT[0]) for name in small}
    write = {
        "unit": "passage",
        "cpu_s": rounded(slope["write"]),
        "scan_s": rounded(slope["scan"]),
        "start_s": rounded(max(0.0, small["write"] - slope["write"] * _BUILT[0])),
        "read_bytes": round(slope["read"]),
        "written_bytes": round(slope["written"]),
        "worker_bytes": round(small["memory"]),
    }
    check = {
        "unit": "passage",
        "driver_s": rounded(slope["check"]),
        "driver_bytes": max(0, round(slope["memory"])),
    }
    return {"text": {"passage_bytes": round(slope["read"])}, "index.write": write, "index.check": check}


def build(size: int) -> dict[str, float]:
    """CPU seconds, bytes and peak memory of one build, in this process."""
    from ctxner.retrieval.corpus.reader import CorpusReader
    from ctxner.retrieval.index.build import build_index, write_shards_in_turn

    spent = dict[str, float]()

    def write(*arguments: Any) -> Any:
        started = time.process_time()
        written = write_shards_in_turn(*arguments)
        spent["write"] = time.process_time() - started
        return written

    with tempfile.TemporaryDirectory() as name:
        corpora = [Path(name, f"{kind}.jsonl") for kind in ("texts", "entries")]
        for path, kind in zip(corpora, (texts.CORPORA[0], texts.CORPORA[-1]), strict=True):
            texts.write_passages(_renamed(texts.passages(size // 2, [kind]), path.stem), path)
        started = time.process_time()
        for _ in CorpusReader(corpora, part=0, num_parts=_FOREIGN):
            pass
        scanned = time.process_time() - started
        started = time.process_time()
        build_index(corpora, Path(name, "index"), write_shards=write)
        built = time.process_time() - started
        written = sum(path.stat().st_size for path in Path(name, "index").rglob("*") if path.is_file())
        return {
            **spent,
            "scan": scanned,
            "check": built - spent["write"],
            "read": sum(path.stat().st_size for path in corpora),
            "written": written,
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        }


def _renamed(passages: Iterable[Passage], name: str) -> Iterator[Passage]:
    return (dataclasses.replace(passage, id=f"{name}-{passage.id}") for passage in passages)


def search() -> dict[str, Any]:
    """CPU seconds per query by mode and size of the index."""
    lines = []
    for size in _SEARCHED:
        with tempfile.TemporaryDirectory() as folder:
            lines.append(growth.measure_passages(size, Path(folder)))
    return of_growth(lines)


def of_growth(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Stages of lines that `tests.benchmarks.growth passages` made."""
    lines = sorted(lines, key=lambda line: int(line["passages"]))
    last, stages = lines[-1], {}
    for mode in ("entries", "mentions", "weighted", "bag"):
        stages[f"search.{mode}"] = {
            "unit": "sentence",
            "cpu_s_at": {line["passages"]: line[mode]["cpu_ms_a_query"] / 1000 for line in lines},
            "copied_bytes": round(last["build"]["index_mib"] * 2**20 / last["passages"]),
            "worker_bytes": max(line[mode]["anonymous_mib"] for line in lines) << 20,
        }
    return stages
