"""The re-ranker: an encoder that orders each sentence's passages, inside a retriever or in separate replicas."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from ctxner.retriever import Retriever
from ctxner.schema import Passage, ScoredPassage, Sentence
from serving.batching import Batcher, Item
from serving.policy import CHECKS, POLICY
from serving.replicas.shared import listen_on_loopback, model_thread
from serving.settings import ServeSettings


class RerankerReplica:
    """Orders each sentence's passages with an encoder, batch by batch in one thread."""

    def __init__(self, settings: dict[str, Any]) -> None:
        listen_on_loopback()
        serve_settings = ServeSettings(**settings)
        self.thread = model_thread(serve_settings)
        self.retriever = Retriever(serve_settings.retrieval, device=serve_settings.device)
        self.reranker = self.thread.submit(lambda: self.retriever.reranker).result()
        self.batcher = Batcher(self._rerank, POLICY.batch_sentences, self.thread)
        self.thread.submit(self._check).result()

    async def check_health(self) -> None:
        """Check that the encoder can score passages; its errors are raised."""
        await asyncio.get_running_loop().run_in_executor(self.thread, self._check)

    async def rerank(
        self, sentences: Sequence[Sentence], hits: Sequence[tuple[ScoredPassage, ...]], seconds: float
    ) -> list[tuple[ScoredPassage, ...]] | None:
        """Each sentence's passages, best first; None if their batch did not start within `seconds`."""
        return await self.batcher(Item((sentences, hits), len(sentences), time.time() + seconds))

    def _rerank(self, items: Sequence[Item]) -> list[list[tuple[ScoredPassage, ...]] | None]:
        timely = [item for item in items if not item.is_late]
        answers = iter(
            self.retriever.keep(
                [work for item in timely for work in item.work[0]],
                [work for item in timely for work in item.work[1]],
            )
        )
        return [[next(answers) for _ in item.work[0]] if item in timely else None for item in items]

    def _check(self) -> None:
        sentences = [Sentence(str(n), tuple(text.split())) for n, text in enumerate(CHECKS)]
        hits = [(ScoredPassage(Passage("check", "", CHECKS[0] + " Bergen is a city ."), 1.0, 1),)] * len(sentences)
        self.reranker.rerank(sentences, hits, depth=1)
