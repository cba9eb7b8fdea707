"""The actors of a retrieval job: they predict, search and re-rank, each with one part of `ctxner.retriever`.

Their method `look_up` adds values to rows of sentences; `ctxner.batch.tagging_actors` calls it for parts of documents.
Each search actor has one JVM and each re-rank actor one encoder. Both start in the actor's constructor, never in the
driver.

A sentence that fails is a row with an `error` and no passages, whatever the exception and whatever shares its batch: a
batch that fails is tried again sentence by sentence. Only an error of a broken actor (`is_broken`) ends the job here;
`ctxner.batch.retrieval_files` ends it where too many sentences have an error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from ctxner.batch.pools import num_threads
from ctxner.batch.retrieval_files import row_schema
from ctxner.config import IndexConfig, RetrievalConfig
from ctxner.files.contexts import Context, context_row
from ctxner.retrieval.index.fetch import index_here
from ctxner.retrieval.index.versions import IndexManifest
from ctxner.retriever import Retriever
from ctxner.schema import Sentence, pairs_of, passage_row, scored_passage

logger = logging.getLogger(__name__)

_MAX_ERROR = 500  # characters of a row's error
Rows = Sequence[dict[str, Any]]  # each row has `sentence_id`, `words` and the values of earlier actors


class LooksUp(Protocol):
    """A retrieval actor, as tagging jobs use it."""

    def look_up(self, rows: Rows) -> None:
        """Add values to the rows, in place."""


class Predict:
    """Finds mentions with a trained model, without passages (a Ray Data actor)."""

    def __init__(self, retrieval: Mapping[str, Any]) -> None:
        self.retriever = _on_device(RetrievalConfig(**retrieval))
        assert self.retriever.first_tagger

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Add the columns `predicted` and `failed`, a reason or null."""
        rows = batch.to_pylist()
        _each(rows, self.look_up, lambda row, reason: row.update(predicted=[], failed=reason))
        column = pa.array([row["predicted"] for row in rows], pa.list_(pa.list_(pa.int32(), 2)))
        failed = pa.array([row.get("failed") for row in rows], pa.string())
        return batch.append_column("predicted", column).append_column("failed", failed)

    def look_up(self, rows: Rows) -> None:
        """Add `predicted`: the first word of each mention and one past its last word."""
        predicted = self.retriever.predict(_sentences(rows))
        for row in rows:
            row["predicted"] = predicted[row["sentence_id"]]


class Search:
    """Searches passages for a batch of sentences by BM25 (a Ray Data actor)."""

    def __init__(self, index: Mapping[str, Any], manifest: IndexManifest, retrieval: Mapping[str, Any]) -> None:
        where, settings = IndexConfig(**index), RetrievalConfig(**retrieval)
        folder = index_here(where.folder, where.source, manifest)
        threads = num_threads(settings.threads, settings.search_actors)
        self.retriever = Retriever(settings, folder=folder, num_threads=threads)
        assert self.retriever.searcher

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows of a contexts file, with the column `position`."""
        rows = batch.to_pylist()
        _each([row for row in rows if row.get("failed") is None], self.look_up, _fail)
        for row in rows:
            if row.get("failed") is not None:
                _fail(row, row["failed"])
        return pa.Table.from_pylist(rows, schema=row_schema())

    def look_up(self, rows: Rows) -> None:
        """Add `query`, `passages` and `error`; without re-ranking, also mark the passages that are dropped."""
        sentences = _sentences(rows)
        predicted = {row["sentence_id"]: [(start, end) for start, end in row.get("predicted") or ()] for row in rows}
        results = self.retriever.search(sentences, predicted=predicted)
        hits = [result.hits for result in results]
        if not self.retriever.settings.rerank:
            hits = self.retriever.keep_as_found(sentences, hits)
        for row, sentence, result, passages in zip(rows, sentences, results, hits, strict=True):
            row |= context_row(sentence.id, Context(sentence.words, result.query, passages, result.error))


class Rerank:
    """Re-ranks the hits of a batch of sentences by BERTScore (a Ray Data actor)."""

    def __init__(self, retrieval: Mapping[str, Any]) -> None:
        self.retriever = _on_device(RetrievalConfig(**retrieval))
        assert self.retriever.reranker

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The rows with their passages re-ordered and the dropped ones marked."""
        rows = batch.to_pylist()
        _each([row for row in rows if row["error"] is None], self.look_up, _fail)
        return pa.Table.from_pylist(rows, schema=row_schema())

    def look_up(self, rows: Rows) -> None:
        """Re-order the passages of each row and mark those that are dropped."""
        hits = [tuple(map(scored_passage, row["passages"])) for row in rows]
        for row, passages in zip(rows, self.retriever.keep(_sentences(rows), hits), strict=True):
            row["passages"] = [passage_row(scored) for scored in passages]


def is_broken(error: Exception, *, num_parts: int) -> bool:
    """Whether an error tells of a broken actor, so that each further part or sentence would fail too.

    A batch that does not fit into memory may fit part by part, a single part must.
    """
    import torch

    if isinstance(error, torch.AcceleratorError):  # no call to the device succeeds after it
        return True
    return num_parts == 1 and isinstance(error, MemoryError | torch.OutOfMemoryError)


def message_of(error: Exception) -> str:
    """The error of a row."""
    return f"{type(error).__name__}: {error}"[:_MAX_ERROR]


def _each(rows: Rows, look_up: Callable[[Rows], None], fail: Callable[[dict[str, Any], str], None]) -> None:
    """Look all rows up, or if that fails each alone; `fail` marks a row that fails even then."""
    if not rows:
        return
    try:
        look_up(rows)
    except Exception as error:
        if is_broken(error, num_parts=len(rows)):
            raise
        if len(rows) == 1:
            fail(rows[0], message_of(error))
            return
        logger.warning("retrieval fails for %d sentences, each is tried alone: %s", len(rows), error)
        for row in rows:
            _each([row], look_up, fail)


def _fail(row: dict[str, Any], reason: str) -> None:
    row |= {"query": row.get("query") or "", "passages": [], "error": reason}


def _on_device(settings: RetrievalConfig) -> Retriever:
    """A retriever whose encoders run on the actor's device, with the actor's share of the node's threads."""
    import torch

    torch.set_num_threads(num_threads(settings.threads, settings.rerank_actors, settings.gpus))
    return Retriever(settings, device="cuda" if settings.gpus else "cpu")


def _sentences(rows: Rows) -> list[Sentence]:
    return [
        Sentence(row["sentence_id"], tuple(row["words"]), abbreviations=pairs_of(row.get("abbreviations")))
        for row in rows
    ]
