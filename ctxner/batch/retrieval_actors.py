"""What each actor of a retrieval job does with a batch of rows: predict, search, re-rank, by `ctxner.retriever`.

One JVM lives in each search actor and one encoder in each re-rank actor. Both start in the actor's constructor, never
in the driver.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from ctxner.batch.pools import num_threads
from ctxner.batch.retrieval_files import row_schema
from ctxner.config import IndexConfig, RetrievalConfig
from ctxner.files.contexts import Context, context_row
from ctxner.retrieval.index.fetch import fetch_index
from ctxner.retrieval.index.versions import IndexManifest
from ctxner.retriever import Retriever
from ctxner.schema import Sentence, context_schema, passage_row, scored_passage


class Predict:
    """Mentions that a trained model finds without passages (a Ray Data actor)."""

    def __init__(self, retrieval: Mapping[str, Any]) -> None:
        self.retriever = _on_device(RetrievalConfig(**retrieval))
        assert self.retriever.first_tagger

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Add the column `predicted`: first word and one past the last of each mention."""
        sentences = _sentences(batch)
        predicted = self.retriever.predict(sentences)
        column = [predicted[sentence.id] for sentence in sentences]
        return batch.append_column("predicted", pa.array(column, pa.list_(pa.list_(pa.int32(), 2))))


class Search:
    """BM25 over a batch of sentences (a Ray Data actor)."""

    def __init__(self, index: Mapping[str, Any], manifest: IndexManifest, retrieval: Mapping[str, Any]) -> None:
        where, settings = IndexConfig(**index), RetrievalConfig(**retrieval)
        folder = fetch_index(where.source, where.folder, manifest) if where.source else where.folder
        threads = num_threads(settings.threads, settings.search_actors)
        self.retriever = Retriever(settings, folder=folder, num_threads=threads)
        assert self.retriever.searcher

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Add query, passages and error to sentence_id and words; without re-ranking, thin the passages out."""
        sentences = _sentences(batch)
        spans = batch["predicted"].to_pylist() if "predicted" in batch.column_names else [()] * len(sentences)
        predicted = {
            sentence.id: [(start, end) for start, end in ranges or ()]
            for sentence, ranges in zip(sentences, spans, strict=True)
        }
        results = self.retriever.search(sentences, predicted=predicted)
        hits = [result.hits for result in results]
        if not self.retriever.settings.rerank:
            hits = self.retriever.keep_as_found(sentences, hits)
        rows = [
            context_row(sentence.id, Context(sentence.words, result.query, passages, result.error))
            for sentence, result, passages in zip(sentences, results, hits, strict=True)
        ]
        return pa.Table.from_pylist(rows, schema=context_schema()).append_column("position", batch["position"])


class Rerank:
    """BERTScore over a batch of sentences and their hits (a Ray Data actor)."""

    def __init__(self, retrieval: Mapping[str, Any]) -> None:
        self.retriever = _on_device(RetrievalConfig(**retrieval))
        assert self.retriever.reranker

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Re-order and thin out each row's passages."""
        rows = batch.to_pylist()
        hits = [tuple(map(scored_passage, row["passages"])) for row in rows]
        for row, passages in zip(rows, self.retriever.keep(_sentences(batch), hits), strict=True):
            row["passages"] = [passage_row(scored) for scored in passages]
        return pa.Table.from_pylist(rows, schema=row_schema())


def _on_device(settings: RetrievalConfig) -> Retriever:
    """A retriever whose encoders compute on the actor's device, with its share of the node's threads."""
    import torch

    torch.set_num_threads(num_threads(settings.threads, settings.rerank_actors))
    return Retriever(settings, device="cuda" if settings.gpus else "cpu")


def _sentences(batch: pa.Table) -> list[Sentence]:
    rows = batch.select(["sentence_id", "words"]).to_pylist()
    return [Sentence(row["sentence_id"], tuple(row["words"])) for row in rows]
