"""Ray Data pipelines. Sentences -> BM25 -> re-ranking -> contexts files.

Retrieval itself is `ctxner.retrieval`; this module spreads it over actors: one JVM in each search actor, one encoder in
each re-rank actor. The JVM starts in the actor's constructor, never in the driver.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data.checkpoint import CheckpointConfig

from ctxner.config import Config, RetrievalConfig, packaged_encoder
from ctxner.contexts import Context, context_row
from ctxner.retrieval.index import read_manifest
from ctxner.schema import Sentence, context_schema, passage_row, scored_passage
from ctxner.staging import Stage, alone, publish, row_schema, stage

logger = logging.getLogger(__name__)

_SEARCH_BATCH = 512  # sentences a call: Lucene's part is short, so small batches keep the re-ranker fed
_ACTOR_CPUS = 0.5  # what an actor reserves
_OTHER_CPUS = 2  # left for Ray Data's own tasks: with none, a resumed job would wait for ever
_PROGRESS_SECONDS = 2.0


class Search:
    """BM25 over a batch of sentences (a Ray Data actor)."""

    def __init__(self, index: str, retrieval: Mapping[str, Any], num_threads: int) -> None:
        from ctxner.retrieval.bm25 import BM25Searcher

        self.config = RetrievalConfig(**retrieval)
        self.searcher = BM25Searcher(
            index,
            k1=self.config.k1,
            b=self.config.b,
            query_mode=self.config.query,
            max_query_terms=self.config.max_query_terms,
            drop_near_duplicates=self.config.drop_near_duplicates,
            num_threads=num_threads,
        )

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Add query, passages and error to sentence_id and words."""
        sentences = [Sentence(row["sentence_id"], tuple(row["words"])) for row in batch.to_pylist()]
        found = self.searcher.search(sentences, depth=self.config.depth)
        contexts = [
            Context(own.words, hit.query, hit.hits, hit.error) for own, hit in zip(sentences, found, strict=True)
        ]
        rows = [context_row(own.id, context) for own, context in zip(sentences, contexts, strict=True)]
        found_rows = pa.Table.from_pylist(rows, schema=context_schema())
        return found_rows.append_column("position", batch["position"])


class Rerank:
    """BERTScore over a batch of sentences and their hits (a Ray Data actor)."""

    def __init__(self, retrieval: Mapping[str, Any], num_threads: int) -> None:
        import torch

        from ctxner.retrieval.rerank import BERTScoreReranker

        torch.set_num_threads(num_threads)
        self.config = RetrievalConfig(**retrieval)
        self.reranker = BERTScoreReranker(
            self.config.encoder or packaged_encoder(),
            layer=self.config.layer,
            use_idf=self.config.idf,
            dtype=self.config.dtype,
            device="cuda" if torch.cuda.is_available() else "cpu",
            cache=self.config.cache,
            cache_bytes=int(self.config.cache_gib * 2**30),
        )

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
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Retrieve and re-rank passages for every sentence, and write `folder/<split>.parquet` and `folder/_SUCCESS`.

    Rows are in the order of the sentences, exactly one a sentence; a sentence whose search failed has an `error` and no
    passages. A job that was killed goes on where it was when called again with the same arguments.

    Args:
        splits: Sentences by split, streamed; ids are unique within a split.
        config: Its index and retrieval sections.
        folder: Where to write, reachable from every node; existing files of the same splits are replaced.
        on_progress: Called with the number of sentences done so far.

    Returns:
        The manifest: index, settings, counts, seconds.

    Raises:
        FileNotFoundError: No index there.
        ValueError: An unusable index, nothing to retrieve for, a sentence id twice, or too few CPUs.
    """
    started = time.perf_counter()
    config = config.model_copy(update={"retrieval": config.retrieval.decided()})
    manifest: dict[str, Any] = {
        "index": dataclasses.asdict(read_manifest(config.index.folder)),
        "retrieval": config.retrieval.row_settings(),
    }
    _check_resources(config)
    with alone(folder):
        staged = stage(splits, folder.resolve(), manifest)
        num_resumed = staged.num_done()
        if num_resumed < staged.num_sentences:
            with _watched(staged, on_progress):
                _run(staged, config)
        manifest |= {"resumed_from": num_resumed, "seconds": round(time.perf_counter() - started, 2)}
        counts = publish(staged, manifest)
    if on_progress:
        on_progress(staged.num_sentences)
    return {**manifest, **counts}


def _run(staged: Stage, config: Config) -> None:
    """Read, search, re-rank, write; Ray Data keeps which rows are complete."""
    settings = config.retrieval
    num_threads = max(1, (os.cpu_count() or 1) // settings.actors)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # the driver shows sentences, which is what one waits for
    context.checkpoint_config = CheckpointConfig(
        id_column="sentence_id", checkpoint_path=str(staged.checkpoint), delete_checkpoint_on_success=False
    )
    context.checkpoint_config.checkpoint_actor_pool_max_size = 1
    try:
        (
            ray.data.read_parquet(str(staged.sentences))
            .repartition(target_num_rows_per_block=_SEARCH_BATCH)
            .map_batches(
                Search,
                fn_constructor_args=(str(config.index.folder.resolve()), settings.model_dump(), num_threads),
                batch_size=_SEARCH_BATCH,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=1),
                num_cpus=_ACTOR_CPUS,
            )
            .map_batches(
                Rerank,
                fn_constructor_args=(settings.model_dump(), num_threads),
                batch_size=settings.batch_sentences,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=settings.actors),
                num_cpus=_ACTOR_CPUS,
            )
            .write_parquet(str(staged.rows))
        )
    finally:
        context.checkpoint_config = None


@contextmanager
def _watched(staged: Stage, on_progress: Callable[[int], None] | None) -> Iterator[None]:
    """Report the complete sentences every second or so, from a thread, while Ray Data works."""
    ended = threading.Event()

    def watch() -> None:
        while on_progress and not ended.wait(_PROGRESS_SECONDS):
            on_progress(staged.num_done())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _check_resources(config: Config) -> None:
    """Refuse what the cluster cannot schedule, instead of waiting for it."""
    if not ray.is_initialized():
        ray.init()
    have, wanted = ray.cluster_resources().get("CPU", 0), _ACTOR_CPUS * (1 + config.retrieval.actors) + _OTHER_CPUS
    if have < wanted:
        raise ValueError(
            f"retrieval.actors={config.retrieval.actors} wants {wanted:g} CPUs ({_ACTOR_CPUS:g} an actor, "
            f"{_OTHER_CPUS} for reading, resuming and writing), but the cluster has {have:g}; lower retrieval.actors "
            "or add nodes"
        )
