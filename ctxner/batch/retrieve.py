"""Ray Data pipelines. Sentences -> BM25 -> re-ranking -> contexts files.

Retrieval itself is `ctxner.retrieval`; this module spreads it over actors: one JVM in each search actor, one encoder in
each re-rank actor. The JVM starts in the actor's constructor, never in the driver.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from ctxner.batch.job_folder import alone
from ctxner.batch.pools import Pool, check_resources, num_threads, run
from ctxner.batch.retrieval_files import job_path, publish, row_schema, stage
from ctxner.config import Config, IndexConfig, RetrievalConfig
from ctxner.files.contexts import Context, context_row
from ctxner.retrieval.index.fetch import index_manifest
from ctxner.retrieval.index.versions import IndexManifest
from ctxner.retriever import decided, keep_as_found, load_reranker, open_searcher
from ctxner.schema import Example, ScoredPassage, Sentence, context_schema, passage_row, scored_passage

_SEARCH_BATCH = 512  # sentences a call: Lucene's part is short, so small batches keep the re-ranker fed


class Predict:
    """Mentions that a trained model finds without passages (a Ray Data actor)."""

    def __init__(self, retrieval: Mapping[str, Any]) -> None:
        import torch

        from ctxner.predictor import Tagger

        settings = RetrievalConfig(**retrieval)
        assert settings.tagger
        torch.set_num_threads(num_threads(settings.threads, settings.rerank_actors))
        self.tagger = Tagger.from_pretrained(settings.tagger, device="cuda" if settings.gpus else "cpu")

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Add the column `predicted`: first word and one past the last of each mention."""
        examples = [Example(Sentence(row["sentence_id"], tuple(row["words"]))) for row in batch.to_pylist()]
        found = iter(self.tagger.predict([example for example in examples if example.sentence.words], view="plain"))
        spans = [next(found).spans if example.sentence.words else () for example in examples]
        column = [[(span.start, span.end) for span in sentence_spans] for sentence_spans in spans]
        return batch.append_column("predicted", pa.array(column, pa.list_(pa.list_(pa.int32(), 2))))


class Search:
    """BM25 over a batch of sentences (a Ray Data actor)."""

    def __init__(self, index: Mapping[str, Any], manifest: IndexManifest, retrieval: Mapping[str, Any]) -> None:
        from ctxner.retrieval.index.fetch import fetch_index

        settings, self.config = IndexConfig(**index), RetrievalConfig(**retrieval)
        source, folder = settings.source, settings.folder
        self.searcher = open_searcher(
            fetch_index(source, folder, manifest) if source else folder,
            self.config,
            num_threads=num_threads(self.config.threads, self.config.search_actors),
        )

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Add query, passages and error to sentence_id and words; without re-ranking, thin the passages out."""
        rows = batch.to_pylist()
        sentences = [Sentence(row["sentence_id"], tuple(row["words"])) for row in rows]
        predicted = {row["sentence_id"]: [tuple(span) for span in row.get("predicted") or ()] for row in rows}
        found = self.searcher.search(sentences, depth=self.config.depth, predicted=predicted)
        contexts = [
            Context(sentence.words, hit.query, self._kept(sentence, hit.hits), hit.error)
            for sentence, hit in zip(sentences, found, strict=True)
        ]
        found_rows = pa.Table.from_pylist(
            [context_row(sentence.id, context) for sentence, context in zip(sentences, contexts, strict=True)],
            schema=context_schema(),
        )
        return found_rows.append_column("position", batch["position"])

    def _kept(self, sentence: Sentence, hits: tuple[ScoredPassage, ...]) -> tuple[ScoredPassage, ...]:
        return hits if self.config.rerank else keep_as_found(sentence, hits, self.config)


class Rerank:
    """BERTScore over a batch of sentences and their hits (a Ray Data actor)."""

    def __init__(self, retrieval: Mapping[str, Any]) -> None:
        import torch

        self.config = RetrievalConfig(**retrieval)
        torch.set_num_threads(num_threads(self.config.threads, self.config.rerank_actors))
        self.reranker = load_reranker(self.config, device="cuda" if self.config.gpus else "cpu")

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Re-order and thin out each row's passages."""
        rows = batch.to_pylist()
        kept = self.reranker.rerank(
            [Sentence(row["sentence_id"], tuple(row["words"])) for row in rows],
            [[scored_passage(passage) for passage in row["passages"]] for row in rows],
            depth=self.config.keep,
            drop_near_duplicates=self.config.drop_near_duplicates,
        )
        for row, passages in zip(rows, kept, strict=True):
            row["passages"] = [passage_row(scored) for scored in passages]
        return pa.Table.from_pylist(rows, schema=row_schema())


def retrieve(
    splits: Mapping[str, Iterable[Sentence]],
    config: Config,
    folder: Path,
    *,
    on_staged: Callable[[int], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Retrieve and re-rank passages for every sentence, and write `folder/<split>.parquet` and `folder/_SUCCESS`.

    Rows are in the order of the sentences, exactly one a sentence; a sentence whose search failed has an `error` and no
    passages. A job that was killed goes on where it was when called again with the same arguments.

    Args:
        splits: Sentences by split, streamed; ids are unique within a split.
        config: Its index and retrieval sections.
        folder: Where to write, reachable from every node; existing files of the same splits are replaced.
        on_staged: Called with the number of all sentences once they have been read and found sound; Ray is not asked
            for anything before, so this is the place to connect.
        on_progress: Called with the number of sentences done so far.

    Returns:
        The manifest: index, settings, counts, seconds.

    Raises:
        FileNotFoundError: No index there.
        ValueError: An unusable index, nothing to retrieve for, a sentence id twice, or too few CPUs.
    """
    started = time.perf_counter()
    config = config.model_copy(update={"retrieval": decided(config.retrieval)})
    index = index_manifest(config.index.folder, config.index.source)
    manifest: dict[str, Any] = {
        "index": dataclasses.asdict(index),
        "retrieval": config.retrieval.results_settings(),
    }
    with alone(job_path(folder.resolve())):
        staged = stage(splits, folder.resolve(), manifest)
        job = staged.job
        manifest["staging_seconds"] = round(time.perf_counter() - started, 2)
        if on_staged:
            on_staged(job.num_rows)
        if not ray.is_initialized():
            ray.init()
        pools = retrieval_pools(config, index)
        check_resources(pools)
        num_resumed = job.num_done()
        if num_resumed < job.num_rows:
            run(job, pools, id_column="sentence_id", on_progress=on_progress)
        manifest |= {"resumed_from": num_resumed, "seconds": round(time.perf_counter() - started, 2)}
        counts = publish(staged, manifest)
    if on_progress:
        on_progress(job.num_rows)
    return {**manifest, **counts}


def retrieval_pools(config: Config, index: IndexManifest) -> list[Pool]:
    """The actors that a sentence passes through."""
    settings, where = config.retrieval, config.index.model_copy(update={"folder": config.index.folder.resolve()})
    tree, name, num = settings.model_dump(), "retrieval.rerank_actors", settings.rerank_actors
    search = (where.model_dump(), index, tree)
    pools = [
        Pool(Search, search, _SEARCH_BATCH, "retrieval.search_actors", settings.search_actors, settings.actor_cpus)
    ]
    if settings.tagger:
        pools.insert(0, Pool(Predict, (tree,), _SEARCH_BATCH, name, num, settings.actor_cpus, settings.gpus))
    if settings.rerank:
        pools.append(Pool(Rerank, (tree,), settings.batch_sentences, name, num, settings.actor_cpus, settings.gpus))
    return pools
