"""Shards written at once on a real local Ray: the same index as one written in one process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray

SCRIPT = """
import json, sys
from jobs.cluster import connect
connect()
from ctxner.batch.index_shards import write_shards_on_ray
from ctxner.retrieval.index.build import build_index
seen = []
corpus, twice, folder = sys.argv[1:]
built = build_index([corpus], folder, num_shards=2, write_shards=write_shards_on_ray,
                    on_progress=lambda *done: seen.append(done))
errors = []
for paths in ([corpus, twice], [twice, "bad.jsonl"]):
    try:
        build_index(paths, folder, num_shards=2, write_shards=write_shards_on_ray)
    except ValueError as error:
        errors.append(str(error))
print(json.dumps({"hash": built.corpus_sha256, "last": seen[-1], "errors": errors}))
"""


def test_shards_on_ray_make_the_index_of_one_process(tmp_path: Path) -> None:
    from ctxner.retrieval.index.build import build_index
    from ctxner.retrieval.index.verify import verify_index
    from ctxner.retrieval.search.bm25 import BM25Searcher
    from ctxner.schema import Sentence

    corpus, twice = tmp_path / "c.jsonl", tmp_path / "twice.jsonl"
    passages = [{"id": f"p{n}", "contents": f"w{n % 7} w{n % 5} w{n % 3}"} for n in range(1001)]
    corpus.write_text("\n".join(map(json.dumps, passages)))
    twice.write_text('{"id": "new", "contents": "x"}\n{"id": "p7", "contents": "x"}')
    (tmp_path / "bad.jsonl").write_text('{"contents": "x"}\n{"contents": ""}')
    command = [sys.executable, "-c", SCRIPT, corpus.name, str(twice), "index"]  # a JVM must not start before Ray
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["last"] == [1001, 1.0]
    duplicate, bad = found["errors"]
    assert "twice.jsonl:2: id 'p7' was used before at c.jsonl:8" in duplicate
    assert (
        bad == f"{tmp_path / 'bad.jsonl'}:2: no text in 'contents' or 'text', and no 'title' (fields ['contents']); "
        "a passage needs a text, and an entry a title"
    )

    one = build_index([corpus], tmp_path / "one")
    assert verify_index(tmp_path / "index").corpus_sha256 == found["hash"] == one.corpus_sha256
    sentences = [Sentence(str(n), (f"w{n}", f"w{n + 1}")) for n in range(7)]
    for depth in (3, 1001):
        here, there = (BM25Searcher(tmp_path / name).search(sentences, depth=depth) for name in ("one", "index"))
        assert here == there
