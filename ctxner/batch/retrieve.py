"""The driver of a retrieval job: sentences -> BM25 -> re-ranking -> contexts files, on Ray Data.

`ctxner.batch.retrieval_actors` holds the actors, and `ctxner.batch.retrieval_files` reads and writes the files.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ray

from ctxner import __version__
from ctxner.batch.job_folder import alone
from ctxner.batch.pools import Pool, check_resources, run
from ctxner.batch.retrieval_actors import Predict, Rerank, Search
from ctxner.batch.retrieval_files import job_path, publish, stage
from ctxner.config import Config
from ctxner.encoders import packaged_encoder
from ctxner.files.hashes import folder_sha256
from ctxner.files.ray_token import private_token
from ctxner.retrieval.index.fetch import index_manifest
from ctxner.retrieval.index.versions import IndexManifest
from ctxner.retriever import decided
from ctxner.schema import Sentence

_SEARCH_BATCH = 512  # sentences per call; a search is quick, so small batches keep the re-ranker busy


def retrieve(
    splits: Mapping[str, Iterable[Sentence]],
    config: Config,
    folder: Path,
    *,
    on_staged: Callable[[int], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Retrieve and re-rank passages for every sentence, and write `folder/<split>.parquet` and `folder/_SUCCESS`.

    Rows are in the order of the sentences, exactly one per sentence; a sentence whose retrieval failed has an `error`
    and no passages. A killed job continues where it was if it is called again with the same arguments.

    Args:
        splits: Sentences by split, streamed; ids are unique within a split.
        config: Config of which the sections index and retrieval, and `tagging.max_errors`, are used.
        folder: Folder that every node reaches, or its URI, to write to; existing files of the same splits are replaced.
        on_staged: Called with the number of all sentences after they have been read and checked. Ray is not used
            before this call, so the caller can connect to Ray here.
        on_progress: Called with the number of sentences done so far.

    Returns:
        The manifest: index, settings, counts, seconds.

    Raises:
        FileNotFoundError: There is no index.
        ValueError: An unusable index, no sentences, a repeated sentence id, too few CPUs or GPUs, or a larger share of
            sentences with an error than `tagging.max_errors`.
    """
    started = time.perf_counter()
    config = config.model_copy(update={"retrieval": decided(config.retrieval)})
    index = index_manifest(config.index.folder, config.index.source)
    manifest = {"ctxner": __version__, **retrieval_key(config, index)}
    with alone(job_path(folder)):
        staged = stage(splits, folder, manifest)
        job = staged.job
        manifest["staging_seconds"] = round(time.perf_counter() - started, 2)
        if on_staged:
            on_staged(job.num_rows)
        if not ray.is_initialized():
            with private_token():
                ray.init()
        pools = retrieval_pools(config, index)
        check_resources(pools)
        num_resumed = job.num_done()
        if num_resumed < job.num_rows:
            run(job, pools, on_progress=on_progress)
        manifest |= {"resumed_from": num_resumed, "seconds": round(time.perf_counter() - started, 2)}
        counts = publish(staged, manifest, max_errors=config.tagging.max_errors)
    if on_progress:
        on_progress(job.num_rows)
    return {**manifest, **counts}


def retrieval_key(config: Config, index: IndexManifest) -> dict[str, Any]:
    """Everything that retrieved passages depend on: the index, the settings, and the files of retrieval's models.

    Args:
        config: Config whose open settings are decided.
        index: Version of the index that is searched.
    """
    settings = config.retrieval
    encoder = (settings.encoder or packaged_encoder()) if settings.rerank else None
    models = {"tagger": settings.tagger, "encoder": encoder}
    return {
        "index": dataclasses.asdict(index),
        "retrieval": settings.results_settings(),
        "retrieval_models": {name: folder_sha256(model) for name, model in models.items() if model is not None},
    }


def retrieval_pools(config: Config, index: IndexManifest) -> list[Pool]:
    """The pools of actors that a sentence passes through, in order."""
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
