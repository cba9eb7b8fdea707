"""Settings -> the searcher and the re-ranker that batch jobs, single texts and servers share.

Both start heavy things (a JVM, an encoder), each in the process that uses it. Which passages are kept is
`ctxner.retrieval`; spreading them over actors is `ctxner.batch.retrieve` and `serving`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ctxner.config import RetrievalConfig
from ctxner.encoders import packaged_encoder
from ctxner.retrieval.near_duplicates import keep_first
from ctxner.schema import ScoredPassage, Sentence

if TYPE_CHECKING:
    from ctxner.retrieval.rerank.reranker import BERTScoreReranker
    from ctxner.retrieval.search.bm25 import BM25Searcher


def decided(settings: RetrievalConfig) -> RetrievalConfig:
    """Settings with `dtype: auto` decided once, by this node's CPU unless there are GPUs, so that all actors agree."""
    if settings.dtype != "auto" or not settings.rerank:
        return settings
    from ctxner.retrieval.rerank.encoder import native_dtype

    return settings.model_copy(update={"dtype": "bfloat16" if settings.gpus else native_dtype("cpu")})


def open_searcher(folder: str | Path, settings: RetrievalConfig, *, num_threads: int = 2) -> BM25Searcher:
    """A searcher of the index in a folder; errors as of the class."""
    from ctxner.retrieval.search.bm25 import BM25Searcher

    return BM25Searcher(
        folder,
        k1=settings.k1,
        b=settings.b,
        query_mode=settings.query,
        max_query_terms=settings.max_query_terms,
        drop_near_duplicates=settings.drop_near_duplicates,
        num_threads=num_threads,
    )


def load_reranker(settings: RetrievalConfig, *, device: str = "cpu") -> BERTScoreReranker:
    """The re-ranker of the settings; errors as of the class."""
    from ctxner.retrieval.rerank.reranker import BERTScoreReranker

    return BERTScoreReranker(
        settings.encoder or packaged_encoder(),
        layer=settings.layer,
        use_idf=settings.idf,
        dtype=settings.dtype,
        device=device,
        cache=settings.cache,
        cache_bytes=int(settings.cache_gib * 2**30),
    )


def keep_as_found(
    sentence: Sentence, hits: tuple[ScoredPassage, ...], settings: RetrievalConfig
) -> tuple[ScoredPassage, ...]:
    """What is kept of a sentence's hits where they are not re-ranked."""
    return keep_first(
        " ".join(sentence.words), hits, depth=settings.keep, drop_near_duplicates=settings.drop_near_duplicates
    )
