"""The retriever: searches an index in a JVM, and caches the passages for sentences that come again."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ray.serve.handle import DeploymentHandle

from ctxner.retrieval.index.fetch import fetch_index, index_manifest
from ctxner.retriever import Retriever
from ctxner.schema import ScoredPassage, Sentence
from serving.answers import Retrieved
from serving.batching import Batcher, Item
from serving.latency import Latency
from serving.meters import BatchMeter
from serving.policy import CHECKS, POLICY
from serving.replicas.reranker import RerankerReplica
from serving.replicas.shared import listen_on_loopback
from serving.settings import ServeSettings, index_version

Key = tuple[tuple[str, ...], tuple[tuple[str, str], ...]]  # words and abbreviations of a sentence


class RetrieverReplica:
    """Searches an index in a JVM, has the passages re-ranked, and caches them.

    Args:
        settings: Settings of the application.
        release: Versions of what is served; not read, but a new value makes Serve roll in new replicas.
        reranker: Replicas that order the passages; None: this replica orders them, if re-ranking is on.
    """

    def __init__(self, settings: dict[str, Any], release: str, reranker: DeploymentHandle | None) -> None:
        listen_on_loopback()
        serve_settings = ServeSettings(**settings)
        assert serve_settings.index is not None
        self.settings, self.slow = serve_settings.retrieval, serve_settings.slow_ms / 1000
        self.thread = ThreadPoolExecutor(1, "lucene")  # the only Python thread that calls the JVM
        self.retriever = self.thread.submit(self._open, serve_settings).result()
        manifest = self.retriever.searcher.manifest
        self.index = index_version(manifest)
        self.folder, self.num_documents = str(serve_settings.index), manifest.num_documents
        self.inside = RerankerReplica(settings) if serve_settings.retrieval.rerank and reranker is None else None
        self.rerank: Any = self.inside.rerank if self.inside else reranker and reranker.rerank.remote
        self.reranking, self.num_skipped = Latency(), 0
        self.cache: OrderedDict[Key, tuple[ScoredPassage, ...]] = OrderedDict()
        self.most_cached = serve_settings.cached_sentences
        self.meter = BatchMeter()
        self.checks = [Sentence(str(n), tuple(text.split())) for n, text in enumerate(CHECKS)]
        self.search = Batcher(self._search, POLICY.batch_sentences, self.thread)
        self.thread.submit(self._search, [Item(self.checks, 1, 0)]).result()

    def _open(self, serve_settings: ServeSettings) -> Retriever:
        """Open the index in the thread that searches it, and load the first tagger if the settings name one."""
        folder: Any = serve_settings.index
        if source := serve_settings.index_source:
            folder = fetch_index(source, folder, index_manifest(folder, source))
        retriever = Retriever(
            serve_settings.retrieval, folder=folder, num_threads=serve_settings.threads, device=serve_settings.device
        )
        assert retriever.searcher
        assert not serve_settings.retrieval.tagger or retriever.first_tagger
        return retriever

    async def check_health(self) -> None:
        """Check that the index answers, and the re-ranker if it is in this replica; errors of the re-ranker are raised.

        Raises:
            RuntimeError: The index cannot be searched.
        """
        if self.inside is not None:
            await self.inside.check_health()
        results = await self.search(Item(self.checks, len(self.checks), math.inf))
        if failed := next((result.error for result in results if result.error), None):
            raise RuntimeError(f"{self.folder}: cannot be searched ({failed})")

    async def retrieve(self, sentences: Sequence[Sentence], seconds: float) -> Retrieved:
        """Passages for each sentence.

        Args:
            sentences: Sentences to look up.
            seconds: Time limit; passages that cannot be re-ranked within it come in the order of the search.
        """
        until = time.time() + seconds
        if self.slow:
            await asyncio.sleep(self.slow)
        known = [self._cached(sentence) for sentence in sentences]
        unknown = [sentence for sentence, passages in zip(sentences, known, strict=True) if passages is None]
        self.meter.cached(len(sentences) - len(unknown), len(unknown))
        retrieved = iter(await self._retrieve(unknown, until) if unknown else ())
        return Retrieved([next(retrieved) if passages is None else passages for passages in known], self.index)

    async def describe(self) -> dict[str, Any]:
        """The index's folder, its version, and its number of passages."""
        return {"index": self.folder, "version": self.index, "passages": self.num_documents}

    def _cached(self, sentence: Sentence) -> tuple[ScoredPassage, ...] | None:
        if (key := _key(sentence)) in self.cache:
            self.cache.move_to_end(key)
        return self.cache.get(key)

    async def _retrieve(self, sentences: Sequence[Sentence], until: float) -> list[tuple[ScoredPassage, ...] | None]:
        results = await self.search(Item(sentences, len(sentences), until))
        hits = [result.hits for result in results]
        kept = None
        if self.rerank is not None:
            started, left = time.perf_counter(), until - time.time()
            if self.reranking.expected(len(sentences)) < left or self._tries_anyway():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, left)):
                        kept = await self.rerank(sentences, hits, left)
                self.reranking.add(len(sentences), time.perf_counter() - started)
        is_whole = kept is not None or self.rerank is None
        if kept is None:
            kept = self.retriever.keep_as_found(sentences, hits)
        answers: list[tuple[ScoredPassage, ...] | None] = []
        for sentence, result, passages in zip(sentences, results, kept, strict=True):
            answers.append(None if result.error else passages)
            if is_whole and not result.error and self.most_cached:
                self.cache[_key(sentence)] = passages
                if len(self.cache) > self.most_cached:
                    self.cache.popitem(last=False)
        return answers

    def _tries_anyway(self) -> bool:
        """Whether to re-rank although it seems too slow: true now and then, as re-ranking may be faster now."""
        self.num_skipped += 1
        return self.num_skipped % POLICY.skips_per_try == 0

    def _search(self, items: Sequence[Item]) -> list[Any]:
        """Results for each item. Sentences get new ids, as different callers use the same ids."""
        flat = [
            Sentence(str(n), sentence.words, abbreviations=sentence.abbreviations)
            for n, sentence in enumerate(item_sentence for item in items for item_sentence in item.work)
        ]
        results = iter(self.retriever.search(flat))
        return [[next(results) for _ in item.work] for item in items]


def _key(sentence: Sentence) -> Key:
    return sentence.words, sentence.abbreviations
