"""Re-ranking against the package bert-score on the same pairs: same encoder, layer and number of threads.

The pool is 120 sentences of WNUT-17's dev split with the first 16 passages of a `weighted` query over the shared
social-wiki-news, six of which are kept; where that is absent, sentences of the demo's invented world. bert-score runs
as it comes: float32, batches of 64, all pairs in one call. Ours has the default settings, scores every pair, and starts
with an empty cache (`rerank_cold`, writing it included) or with all texts in it (`rerank_warm`). They take turns, so
that another load on the machine slows all; the ratio is the median of the rounds'. Models are loaded beforehand.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from scipy.stats import kendalltau

from ctxner.config import RetrievalConfig
from ctxner.demo import make_world, write_world
from ctxner.encoders import packaged_encoder
from ctxner.files.sentences import read_sentences
from ctxner.retriever import decided
from ctxner.schema import Passage, ScoredPassage, Sentence

NAMES = ["rerank_cold", "rerank_warm"]
DATA = Path(__file__).parents[3] / "shared" / "data"
_FLOORS = {"rerank_cold": 3.0, "rerank_warm": 20.0}
_SENTENCES, _DEPTH, _KEEP = 120, 16, 6
_LAYERS = 6
_ROUNDS = 3

Result = TypeVar("Result")
Hits = tuple[ScoredPassage, ...]


def main(names: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yield pairs a second of both, and how alike the rankings are, averaged over sentences."""
    import bert_score

    from ctxner.retrieval.rerank.reranker import BERTScoreReranker

    settings = decided(RetrievalConfig())
    reference = bert_score.BERTScorer(model_type=packaged_encoder(), num_layers=_LAYERS, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        sentences, hits = _pool()
        passages = [hit.passage.text for found in hits for hit in found]
        texts = [" ".join(own.words) for own, found in zip(sentences, hits, strict=True) for _ in found]
        times: dict[str, list[float]] = {name: [] for name in ("reference", *NAMES)}
        for number in range(_ROUNDS):
            ours = BERTScoreReranker(packaged_encoder(), dtype=settings.dtype, cache=Path(folder, str(number)))

            def rerank(ours: BERTScoreReranker = ours) -> list[Hits]:
                return ours.rerank(sentences, hits, depth=_KEEP, drop_near_duplicates=False)

            expected = _timed(lambda: reference.score(passages, texts), times["reference"])[2].tolist()
            found = _timed(rerank, times["rerank_cold"])
            assert _timed(rerank, times["rerank_warm"]) == found
    for name in names:
        ratios = [theirs / own for theirs, own in zip(times["reference"], times[name], strict=True)]
        yield {
            "benchmark": name,
            "floor": _FLOORS[name],
            "unit": "pairs/s",
            "ratio": round(statistics.median(ratios), 1),
            "ours": round(len(texts) / statistics.median(times[name])),
            "reference": round(len(texts) / statistics.median(times["reference"])),
            **_agreement(hits, found, expected),
            "dtype": settings.dtype,
            "pairs": len(texts),
        }


def _agreement(hits: Sequence[Hits], found: Sequence[Hits], expected: Sequence[float]) -> dict[str, float]:
    """Share of the reference's best six among ours, and Kendall's tau over all passages of a sentence."""
    overlaps, taus = [], []
    scores = iter(expected)
    for own_hits, own_found in zip(hits, found, strict=True):
        theirs = {hit.passage.id: next(scores) for hit in own_hits}
        if len(theirs) > _KEEP:
            best = sorted(theirs, key=lambda name: -theirs[name])[:_KEEP]
            overlaps.append(len({hit.passage.id for hit in own_found[:_KEEP]} & set(best)) / _KEEP)
            ours = [hit.rerank_score for hit in own_found]
            taus.append(kendalltau([theirs[hit.passage.id] for hit in own_found], ours).statistic)
    known = [tau for tau in taus if not math.isnan(tau)]
    return {"top6_overlap": round(statistics.mean(overlaps), 4), "kendall_tau": round(statistics.mean(known), 4)}


def _timed(function: Callable[[], Result], times: list[float]) -> Result:
    started = time.perf_counter()
    result = function()
    times.append(time.perf_counter() - started)
    return result


def _pool() -> tuple[list[Sentence], list[Hits]]:
    """From a process of its own: no JVM here, since a later benchmark may start Ray."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_rerank"]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    sentences, hits = [], []
    for number, (words, texts) in enumerate(map(json.loads, lines)):
        sentences.append(Sentence(str(number), tuple(words)))
        hits.append(
            tuple(ScoredPassage(Passage(text, "", text), 1.0 / rank, rank) for rank, text in enumerate(texts, 1))
        )
    return sentences, hits


def _search() -> None:
    """Print the pool, one JSON line a sentence."""
    from ctxner.retrieval.index.build import build_index
    from ctxner.retrieval.search.bm25 import BM25Searcher

    with tempfile.TemporaryDirectory() as folder:
        corpus = DATA / "corpora" / "social-wiki-news.jsonl.gz"
        if corpus.is_file():
            split: Sequence[Sentence] = read_sentences(DATA / "wnut17" / "dev.conll").sentences
        else:
            world = make_world(num_train=0, num_dev=_SENTENCES, num_test=0)
            write_world(world, Path(folder))
            split, corpus = world.dev, Path(folder, "corpus.jsonl")
        sentences = split[:: max(1, len(split) // _SENTENCES)][:_SENTENCES]
        build_index([corpus], Path(folder, "index"))
        found = BM25Searcher(Path(folder, "index"), query_mode="weighted").search(sentences, depth=_DEPTH)
    for sentence, result in zip(sentences, found, strict=True):
        print(json.dumps([sentence.words, list(dict.fromkeys(hit.passage.text for hit in result.hits))]))


if __name__ == "__main__":
    _search()
