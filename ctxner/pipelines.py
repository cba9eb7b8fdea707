"""Ray Data pipelines. Sentences -> BM25 -> re-ranking -> contexts files.

Retrieval itself is `ctxner.retrieval`; this module spreads it over actors: one JVM in each search actor, one encoder in
each re-rank actor. The JVM starts in the actor's constructor, never in the driver.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data

from ctxner.config import Config, RetrievalConfig, packaged_encoder
from ctxner.contexts import Context, context_row, storable
from ctxner.retrieval.index import read_manifest
from ctxner.schema import Sentence, context_schema, passage_row, scored_passage

logger = logging.getLogger(__name__)

_SEARCH_BATCH = 512  # sentences a call: Lucene's part is short, so small batches keep the re-ranker fed


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
        return pa.Table.from_pylist(rows, schema=context_schema())


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
        return pa.Table.from_pylist(rows, schema=context_schema())


def retrieve(
    splits: Mapping[str, Sequence[Sentence]],
    config: Config,
    folder: Path,
    *,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Retrieve and re-rank passages for every sentence, and write `folder/<split>.parquet` and `folder/manifest.json`.

    Rows are in the order of the sentences, exactly one a sentence; a sentence whose search failed has an `error` and no
    passages. Files are written aside and renamed when all is done.

    Args:
        splits: Sentences by split; ids are unique within a split.
        config: Its index and retrieval sections.
        folder: Where to write; existing files of the same splits are replaced.
        on_progress: Called with the number of sentences done so far.

    Returns:
        The manifest: index, settings, counts, seconds.

    Raises:
        FileNotFoundError: No index there.
        ValueError: An unusable index, nothing to retrieve for, a sentence id twice, or too few CPUs.
    """
    started = time.perf_counter()
    index = read_manifest(config.index.folder)
    words = _table(splits)
    _check_resources(config)
    rows = _plan(words, config)
    folder.mkdir(parents=True, exist_ok=True)
    counts = _write(rows, list(splits), folder, on_progress)
    manifest = {
        "index": dataclasses.asdict(index),
        "retrieval": config.retrieval.model_dump(mode="json"),
        **counts,
        "seconds": round(time.perf_counter() - started, 2),
    }
    _replace_text(folder / "manifest.json", json.dumps(manifest, indent=1))
    return manifest


def _plan(words: pa.Table, config: Config) -> ray.data.Dataset:
    """The lazy pipeline; nothing runs until it is read."""
    settings = config.retrieval.model_dump()
    num_threads = max(1, (os.cpu_count() or 1) // config.retrieval.actors)
    pool = ray.data.ActorPoolStrategy
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    ray.data.DataContext.get_current().enable_progress_bars = (
        False  # the driver shows sentences, which is what one waits for
    )
    blocks = [words.slice(first, _SEARCH_BATCH) for first in range(0, len(words), _SEARCH_BATCH)]
    return (
        ray.data.from_arrow(blocks)
        .map_batches(
            Search,
            fn_constructor_args=(str(config.index.folder.resolve()), settings, num_threads),
            batch_size=_SEARCH_BATCH,
            batch_format="pyarrow",
            compute=pool(size=1),
            num_cpus=0.5,
        )
        .map_batches(
            Rerank,
            fn_constructor_args=(settings, num_threads),
            batch_size=config.retrieval.batch_sentences,
            batch_format="pyarrow",
            compute=pool(size=config.retrieval.actors),
            num_cpus=0.5,
        )
    )


def _table(splits: Mapping[str, Sequence[Sentence]]) -> pa.Table:
    """All sentences as rows whose id carries the split, so that one pass serves all splits."""
    rows = []
    for split, sentences in splits.items():
        seen: set[str] = set()
        for sentence in sentences:
            if sentence.id in seen:
                raise ValueError(f"{split}: sentence id {sentence.id!r} occurs twice; ids must be unique in a split")
            seen.add(sentence.id)
            rows.append({"sentence_id": f"{split}\t{sentence.id}", "words": list(storable(sentence.words))})
    if not rows:
        raise ValueError(f"no sentences to retrieve for in {', '.join(splits) or 'no split'}")
    return pa.Table.from_pylist(
        rows, schema=pa.schema([context_schema().field("sentence_id"), context_schema().field("words")])
    )


def _write(
    rows: ray.data.Dataset, splits: Sequence[str], folder: Path, on_progress: Callable[[int], None] | None
) -> dict[str, int]:
    """Stream the rows into one file a split, aside, and rename all of them at the end."""
    aside = {split: folder / f".{split}.parquet.{os.getpid()}" for split in splits}
    writers = {split: pq.ParquetWriter(path, context_schema()) for split, path in aside.items()}
    counts = {"sentences": 0, "errors": 0, "without_query": 0, "kept_passages": 0}
    try:
        for batch in rows.iter_batches(batch_size=None, batch_format="pyarrow"):
            table: pa.Table = batch.cast(context_schema())  # type: ignore[union-attr]
            _count(table, counts)
            for split, part in _by_split(table):
                writers[split].write_table(part)
            if on_progress:
                on_progress(counts["sentences"])
        for split, writer in writers.items():
            writer.close()
            aside[split].rename(folder / f"{split}.parquet")
    finally:
        for split, path in aside.items():
            writers[split].close()
            path.unlink(missing_ok=True)
    return counts


def _by_split(table: pa.Table) -> list[tuple[str, pa.Table]]:
    """The rows of each split, with the split taken off their ids again."""
    keys = [key.split("\t", 1) for key in table["sentence_id"].to_pylist()]
    names = np.array([split for split, _ in keys])
    table = table.set_column(0, "sentence_id", pa.array([sentence_id for _, sentence_id in keys], pa.string()))
    return [(split, table.filter(pa.array(names == split))) for split in dict.fromkeys(names.tolist())]


def _count(table: pa.Table, counts: dict[str, int]) -> None:
    counts["sentences"] += len(table)
    counts["errors"] += sum(error is not None for error in table["error"].to_pylist())
    counts["without_query"] += sum(not query for query in table["query"].to_pylist())
    counts["kept_passages"] += sum(
        passage["dropped"] is None for passages in table["passages"].to_pylist() for passage in passages
    )


def _check_resources(config: Config) -> None:
    """Refuse what the cluster cannot schedule, instead of waiting for it."""
    if not ray.is_initialized():
        ray.init()
    have, wanted = ray.cluster_resources().get("CPU", 0), 1 + 0.5 * (1 + config.retrieval.actors)
    if have < wanted:
        raise ValueError(
            f"retrieval.actors={config.retrieval.actors} wants {wanted:g} CPUs (half of one an actor, one for Ray "
            f"Data), but the cluster has {have:g}; lower retrieval.actors or add nodes"
        )


def _replace_text(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.rename(path)
