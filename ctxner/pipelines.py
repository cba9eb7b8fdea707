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

from ctxner.config import Config, IndexConfig, RetrievalConfig, packaged_encoder
from ctxner.contexts import Context, context_row
from ctxner.retrieval.fetch import index_manifest
from ctxner.retrieval.keep import keep_first
from ctxner.retrieval.versions import IndexManifest
from ctxner.schema import Example, ScoredPassage, Sentence, context_schema, passage_row, scored_passage
from ctxner.staging import Stage, alone, publish, row_schema, stage

logger = logging.getLogger(__name__)

_SEARCH_BATCH = 512  # sentences a call: Lucene's part is short, so small batches keep the re-ranker fed
_OTHER_CPUS = 2  # left for Ray Data's own tasks: with none, a resumed job would wait for ever
_PROGRESS_SECONDS = 2.0


class Predict:
    """Mentions that a trained model finds without passages (a Ray Data actor)."""

    def __init__(self, retrieval: Mapping[str, Any]) -> None:
        import torch

        from ctxner.predictor import Tagger

        settings = RetrievalConfig(**retrieval)
        assert settings.tagger
        torch.set_num_threads(_num_threads(settings, settings.rerank_actors))
        self.tagger = Tagger.from_pretrained(settings.tagger, device="cuda" if settings.gpus else "cpu")

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Add the column `predicted`: first word and one past the last of each mention."""
        examples = [Example(Sentence(row["sentence_id"], tuple(row["words"]))) for row in batch.to_pylist()]
        found = iter(self.tagger.predict([own for own in examples if own.sentence.words], view="plain"))
        spans = [next(found).spans if own.sentence.words else () for own in examples]
        column = [[(span.start, span.end) for span in own] for own in spans]
        return batch.append_column("predicted", pa.array(column, pa.list_(pa.list_(pa.int32(), 2))))


class Search:
    """BM25 over a batch of sentences (a Ray Data actor)."""

    def __init__(self, index: Mapping[str, Any], manifest: IndexManifest, retrieval: Mapping[str, Any]) -> None:
        from ctxner.retrieval.bm25 import BM25Searcher
        from ctxner.retrieval.fetch import fetch_index

        settings, self.config = IndexConfig(**index), RetrievalConfig(**retrieval)
        source, folder = settings.source, settings.folder
        self.searcher = BM25Searcher(
            fetch_index(source, folder, manifest) if source else folder,
            k1=self.config.k1,
            b=self.config.b,
            query_mode=self.config.query,
            max_query_terms=self.config.max_query_terms,
            drop_near_duplicates=self.config.drop_near_duplicates,
            num_threads=_num_threads(self.config, self.config.search_actors),
        )

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Add query, passages and error to sentence_id and words; without re-ranking, thin the passages out."""
        rows = batch.to_pylist()
        sentences = [Sentence(row["sentence_id"], tuple(row["words"])) for row in rows]
        predicted = {row["sentence_id"]: [tuple(span) for span in row.get("predicted", ())] for row in rows}
        found = self.searcher.search(sentences, depth=self.config.depth, predicted=predicted)
        contexts = [
            Context(own.words, hit.query, self._kept(own, hit.hits), hit.error)
            for own, hit in zip(sentences, found, strict=True)
        ]
        found_rows = pa.Table.from_pylist(
            [context_row(own.id, context) for own, context in zip(sentences, contexts, strict=True)],
            schema=context_schema(),
        )
        return found_rows.append_column("position", batch["position"])

    def _kept(self, sentence: Sentence, hits: tuple[ScoredPassage, ...]) -> tuple[ScoredPassage, ...]:
        if self.config.rerank:
            return hits
        return keep_first(
            " ".join(sentence.words),
            hits,
            depth=self.config.keep,
            drop_near_duplicates=self.config.drop_near_duplicates,
        )


class Rerank:
    """BERTScore over a batch of sentences and their hits (a Ray Data actor)."""

    def __init__(self, retrieval: Mapping[str, Any]) -> None:
        import torch

        from ctxner.retrieval.rerank import BERTScoreReranker

        self.config = RetrievalConfig(**retrieval)
        torch.set_num_threads(_num_threads(self.config, self.config.rerank_actors))
        self.reranker = BERTScoreReranker(
            self.config.encoder or packaged_encoder(),
            layer=self.config.layer,
            use_idf=self.config.idf,
            dtype=self.config.dtype,
            device="cuda" if self.config.gpus else "cpu",
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
    config = config.model_copy(update={"retrieval": config.retrieval.decided()})
    index = index_manifest(config.index.folder, config.index.source)
    manifest: dict[str, Any] = {
        "index": dataclasses.asdict(index),
        "retrieval": config.retrieval.row_settings(),
    }
    with alone(folder):
        staged = stage(splits, folder.resolve(), manifest)
        manifest["staging_seconds"] = round(time.perf_counter() - started, 2)
        if on_staged:
            on_staged(staged.num_sentences)
        _check_resources(config.retrieval)
        num_resumed = staged.num_done()
        if num_resumed < staged.num_sentences:
            with _watched(staged, on_progress):
                _run(staged, config, index)
        manifest |= {"resumed_from": num_resumed, "seconds": round(time.perf_counter() - started, 2)}
        counts = publish(staged, manifest)
    if on_progress:
        on_progress(staged.num_sentences)
    return {**manifest, **counts}


def _run(staged: Stage, config: Config, index: IndexManifest) -> None:
    """Read, search, re-rank, write; Ray Data keeps which rows are complete."""
    settings, where = config.retrieval, config.index.model_copy(update={"folder": config.index.folder.resolve()})
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # the driver shows sentences, which is what one waits for
    context.checkpoint_config = CheckpointConfig(
        id_column="sentence_id", checkpoint_path=str(staged.checkpoint), delete_checkpoint_on_success=False
    )
    context.checkpoint_config.checkpoint_actor_pool_max_size = 1
    try:
        rows = ray.data.read_parquet(str(staged.sentences)).repartition(target_num_rows_per_block=_SEARCH_BATCH)
        own, num_encoders = settings.model_dump(), settings.rerank_actors
        if settings.tagger:
            rows = _mapped(rows, Predict, (own,), _SEARCH_BATCH, num_encoders, settings.actor_cpus, settings.gpus)
        arguments = (where.model_dump(), index, own)
        rows = _mapped(rows, Search, arguments, _SEARCH_BATCH, settings.search_actors, settings.actor_cpus, 0)
        if settings.rerank:
            batch_size = settings.batch_sentences
            rows = _mapped(rows, Rerank, (own,), batch_size, num_encoders, settings.actor_cpus, settings.gpus)
        rows.write_parquet(str(staged.rows))
    finally:
        context.checkpoint_config = None


def _mapped(
    rows: ray.data.Dataset,
    actor: type,
    arguments: tuple[Any, ...],
    batch_size: int,
    num_actors: int,
    num_cpus: float,
    num_gpus: float,
) -> ray.data.Dataset:
    """The rows as a pool of actors changes them; it starts with one actor and grows with the work."""
    return rows.map_batches(
        actor,
        fn_constructor_args=arguments,
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=num_actors),
        num_cpus=num_cpus,
        num_gpus=num_gpus or None,
    )


def _num_threads(settings: RetrievalConfig, num_actors: int) -> int:
    """Threads of one of so many actors, on the node where it is asked."""
    return settings.threads or max(1, (os.cpu_count() or 1) // num_actors)


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


def _check_resources(settings: RetrievalConfig) -> None:
    """Refuse what the cluster cannot schedule, instead of waiting for it."""
    if not ray.is_initialized():
        ray.init()
    have, num_encoders = ray.cluster_resources(), settings.rerank_actors * (settings.rerank + bool(settings.tagger))
    cpus = settings.actor_cpus * (settings.search_actors + num_encoders) + _OTHER_CPUS
    if have.get("CPU", 0) < cpus:
        raise ValueError(
            f"retrieval.search_actors={settings.search_actors} and {num_encoders} with an encoder (rerank_actors="
            f"{settings.rerank_actors}) want {cpus:g} CPUs ({settings.actor_cpus:g} an actor, {_OTHER_CPUS} for "
            f"reading, resuming and writing), but the cluster has {have.get('CPU', 0):g}; lower them, or add nodes"
        )
    if have.get("GPU", 0) < (gpus := settings.gpus * num_encoders):
        raise ValueError(
            f"retrieval.rerank_actors={settings.rerank_actors} want {gpus:g} GPUs ({settings.gpus:g} each), but the "
            f"cluster has {have.get('GPU', 0):g}; lower retrieval.rerank_actors, set retrieval.gpus=0, or add nodes"
        )
