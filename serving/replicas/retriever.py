"""The retriever: searches an index in a JVM, and caches the passages for sentences that come again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ray.serve.handle import DeploymentHandle

from ctxner.retrieval.index.fetch import index_here
from ctxner.retriever import Retriever
from ctxner.schema import ScoredPassage, Sentence
from serving.answers import Retrieved
from serving.batching import Batcher, Item
from serving.latency import Latency
from serving.meters import BatchMeter
from serving.passage_cache import PassageCache
from serving.policy import CHECKS, POLICY
from serving.replicas.reranker import RerankerReplica
from serving.replicas.shared import listen_on_loopback
from serving.settings import ServeSettings, index_version

CHECKED = [Sentence(str(n), tuple(text.split())) for n, text in enumerate(CHECKS)]
_LAST_ANSWERS_SECONDS = 60  # after which an old version of the index is closed; requests have shorter deadlines
logger = logging.getLogger("ray.serve")


class OpenIndex:
    """A version of an index that is open, with the passages of the sentences that came last.

    Args:
        retriever: Retriever whose index is not open yet; it is opened here.
        thread: The thread that searches.
        cache: Its cache, empty.
    """

    def __init__(self, retriever: Retriever, thread: ThreadPoolExecutor, cache: PassageCache) -> None:
        manifest = retriever.searcher.manifest
        self.retriever, self.version, self.num_passages = retriever, index_version(manifest), manifest.num_documents
        self.search = Batcher(self.search_all, POLICY.batch_sentences, thread)
        self.cache = cache

    def search_all(self, items: Sequence[Item]) -> list[Any]:
        """Results for each item. Sentences get new ids, as different callers use the same ids."""
        flat = [
            Sentence(str(n), sentence.words, abbreviations=sentence.abbreviations)
            for n, sentence in enumerate(item_sentence for item in items for item_sentence in item.work)
        ]
        results = iter(self.retriever.search(flat))
        return [[next(results) for _ in item.work] for item in items]


class RetrieverReplica:
    """Searches an index in a JVM, has the passages re-ranked, and caches them.

    A new version of the index is opened in place, while the old one answers (`reconfigure`).

    Args:
        settings: Settings of the application.
        release: Versions of the models; not read, but a new value makes Serve roll in new replicas.
        reranker: Replicas that order the passages; None: this replica orders them, if re-ranking is on.
    """

    def __init__(self, settings: dict[str, Any], release: str, reranker: DeploymentHandle | None) -> None:
        listen_on_loopback()
        serve_settings = ServeSettings(**settings)
        assert serve_settings.index is not None
        self.settings, self.slow = serve_settings, serve_settings.slow_ms / 1000
        self.thread = ThreadPoolExecutor(1, "lucene")  # the only Python thread that calls the JVM
        self.problem = ""  # of the last version that could not be opened
        self.opened_index = self.thread.submit(self._open).result()
        self.inside = RerankerReplica(settings) if serve_settings.retrieval.rerank and reranker is None else None
        self.rerank: Any = self.inside.rerank if self.inside else reranker and reranker.rerank.remote
        self.reranking, self.num_skipped = Latency(), 0
        self.meter = BatchMeter()

    def _open(self, former: Retriever | None = None) -> OpenIndex:
        """Open the index in the thread that searches it, load the first tagger if the settings name one, and search."""
        settings, folder = self.settings, self.settings.index
        assert folder is not None
        folder = index_here(folder, settings.index_source)
        retriever = (
            former.opened_anew()
            if former
            else Retriever(settings.retrieval, folder=folder, num_threads=settings.threads, device=settings.device)
        )
        assert not settings.retrieval.tagger or retriever.first_tagger
        cache = PassageCache(settings.cached_sentences, settings.cached_bytes)
        opened = OpenIndex(retriever, self.thread, cache)
        (results,) = opened.search_all([Item(CHECKED, 1, 0)])
        if error := next((result.error for result in results if result.error), None):
            raise ValueError(f"{folder}: cannot be searched ({error})")
        return opened

    async def reconfigure(self, user_config: dict[str, str]) -> None:
        """Open the folder's current version of the index, unless it is open; called by Serve when the version changes.

        Questions that wait are answered from the old version, and its passages are forgotten. Whatever is wrong with
        the new one, the old one goes on, and `opened` says why.
        """
        old = self.opened_index
        if user_config.get("index") == old.version:
            return
        try:
            self.opened_index = await asyncio.wrap_future(self.thread.submit(self._open, old.retriever))
            self.problem = ""
            close = old.retriever.searcher.close
            asyncio.get_running_loop().call_later(_LAST_ANSWERS_SECONDS, self.thread.submit, close)
        except Exception as error:  # a replica that raises here is ended by Serve
            self.problem = f"{type(error).__name__}: {error}"
            logger.exception("the new index could not be opened; the old one goes on")

    async def opened(self) -> tuple[str, str]:
        """Version of the index that is open, and why a newer one is not."""
        return self.opened_index.version, self.problem

    async def check_health(self) -> None:
        """Check that the index answers, and the re-ranker if it is in this replica; errors of the re-ranker are raised.

        Raises:
            RuntimeError: The index cannot be searched.
        """
        if self.inside is not None:
            await self.inside.check_health()
        results = await self.opened_index.search(Item(CHECKED, len(CHECKED), math.inf))
        if failed := next((result.error for result in results if result.error), None):
            raise RuntimeError(f"{self.settings.index}: cannot be searched ({failed})")

    async def retrieve(self, sentences: Sequence[Sentence], seconds: float) -> Retrieved:
        """Passages for each sentence.

        Args:
            sentences: Sentences to look up.
            seconds: Time limit; passages that cannot be re-ranked within it come in the order of the search.
        """
        until, index = time.time() + seconds, self.opened_index  # a newer one may come before the answer
        if self.slow:
            await asyncio.sleep(self.slow)
        known = [index.cache.get(sentence) for sentence in sentences]
        unknown = [sentence for sentence, passages in zip(sentences, known, strict=True) if passages is None]
        self.meter.cached(len(sentences) - len(unknown), len(unknown))
        retrieved = iter(await self._retrieve(index, unknown, until) if unknown else ())
        return Retrieved([next(retrieved) if passages is None else passages for passages in known], index.version)

    async def describe(self) -> dict[str, Any]:
        """The name of the index's folder, its version, and its number of passages."""
        index = self.opened_index
        return {"index": Path(self.settings.index or "").name, "version": index.version, "passages": index.num_passages}

    async def _retrieve(
        self, index: OpenIndex, sentences: Sequence[Sentence], until: float
    ) -> list[tuple[ScoredPassage, ...] | None]:
        results = await index.search(Item(sentences, len(sentences), until))
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
            kept = index.retriever.keep_as_found(sentences, hits)
        answers: list[tuple[ScoredPassage, ...] | None] = []
        for sentence, result, passages in zip(sentences, results, kept, strict=True):
            answers.append(None if result.error else passages)
            if is_whole and not result.error:
                index.cache.add(sentence, passages)
        return answers

    def _tries_anyway(self) -> bool:
        """Whether to re-rank although it seems too slow: true now and then, as re-ranking may be faster now."""
        self.num_skipped += 1
        return self.num_skipped % POLICY.skips_per_try == 0
