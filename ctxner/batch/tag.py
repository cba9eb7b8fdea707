"""The driver of a tagging job on Ray Data: documents -> (plain view ->) (search -> re-rank -> context view) -> rows.

A row is a part of a document, so a long document is spread over actors and a killed job continues where it was.
`ctxner.batch.tagging_actors` holds the actors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from ctxner import __version__
from ctxner.batch.annotation_files import check_spacy
from ctxner.batch.job_folder import alone, write_success
from ctxner.batch.pools import Pool, check_resources, room, run
from ctxner.batch.retrieve import retrieval_key, retrieval_pools
from ctxner.batch.tagged_formats import WITH_WORDS, Format
from ctxner.batch.tagging_actors import LookUp, TagContext, TagPlain
from ctxner.batch.tagging_files import job_path, publish_documents, stage_documents
from ctxner.config import Config
from ctxner.files.documents import Document
from ctxner.files.hashes import folder_sha256
from ctxner.files.node_copies import local
from ctxner.files.ray_token import private_token
from ctxner.model.calibration_file import Calibration, auto_threshold, weights_sha256
from ctxner.model.tagger import saved_types
from ctxner.retrieval.index.fetch import index_manifest
from ctxner.retrieval.index.versions import IndexManifest
from ctxner.retriever import decided

_PARTS_PER_SEARCH = 512  # parts per call of a retrieval actor


def tag(
    documents: Iterable[Document],
    config: Config,
    model: str,
    folder: Path,
    *,
    formats: Sequence[Format] = ("parquet",),
    on_staged: Callable[[int], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Tag documents, and write the files of each format and `folder/_SUCCESS`.

    The result has exactly one row per document, in the order of the documents. A killed job continues where it was if
    it is called again with the same arguments.

    Args:
        documents: Stream of documents to tag.
        config: Config of which the section tagging is used, and for views with passages also index and retrieval.
        model: Folder that every node can read, its URI, or a hub id.
        folder: Folder to write to, reachable from every node, or its URI; existing files are replaced.
        formats: Formats of the result.
        on_staged: Called with the number of parts after they have been read and checked. Ray is not used before this
            call, so the caller can connect to Ray here.
        on_progress: Called with the number of parts done so far.

    Returns:
        The manifest: model, index, settings, counts, seconds.

    Raises:
        FileNotFoundError: There is no index.
        ValueError: No usable model or index, no threshold for `auto`, no documents, too few CPUs or GPUs, no spaCy for
            its format, or at the end a larger share of documents with an error than `tagging.max_errors`.
    """
    started = time.perf_counter()
    if "spacy" in formats:
        check_spacy()
    config, index, manifest = settled(config, model)
    with_words = not WITH_WORDS.isdisjoint(formats)
    manifest["with_words"] = with_words
    with alone(job_path(folder)):
        job = stage_documents(documents, folder, manifest, formats)
        work = job.path.parent
        manifest["staging_seconds"] = round(time.perf_counter() - started, 2)
        if on_staged:
            on_staged(job.num_rows)
        if not ray.is_initialized():
            with private_token():
                ray.init()
        pools = _pools(config, model, index, manifest["threshold"], with_words=with_words)
        check_resources(pools)
        num_resumed, tagging_started = job.num_done(), time.perf_counter()
        if num_resumed < job.num_rows:
            run(job, pools, on_progress=on_progress)
        tagging_seconds = time.perf_counter() - tagging_started
        counts = publish_documents(job, work, formats, max_errors=config.tagging.max_errors)
        manifest |= {**counts, "resumed_from": num_resumed, "tagging_seconds": round(tagging_seconds, 2)}
        manifest["seconds"] = round(time.perf_counter() - started, 2)
        write_success(work, manifest)
        job.deliver()
        job.remove()
    if on_progress:
        on_progress(job.num_rows)
    return manifest


def settled(config: Config, model: str) -> tuple[Config, IndexManifest | None, dict[str, Any]]:
    """The config with its open settings decided, the index, and everything that the rows depend on.

    The index is None in the plain view; otherwise it is the current version, which the whole job searches. Models count
    with all their files: a new calibration.json or tokenizer changes rows as new weights do.

    Raises:
        FileNotFoundError, ValueError: See `tag`.
    """
    settings = config.tagging
    here = local(model)
    saved_types(here)
    row_settings: dict[str, Any] = {
        "model": model,
        "weights": weights_sha256(Path(here)),
        "model_files": folder_sha256(here),
        "ctxner": __version__,
        "tagging": settings.results_settings(),
    }
    if settings.view == "plain":
        return config, None, {**row_settings, "threshold": None}
    threshold = None
    if settings.view == "auto":
        threshold = auto_threshold(Calibration.load(Path(here)), settings.threshold)
    config = config.model_copy(update={"retrieval": decided(config.retrieval)})
    index = index_manifest(config.index.folder, config.index.source)
    return config, index, {**row_settings, "threshold": threshold, **retrieval_key(config, index)}


def _pools(
    config: Config, model: str, index: IndexManifest | None, threshold: float | None, *, with_words: bool
) -> list[Pool]:
    """The pools of actors that a part passes through, in order."""
    settings, is_auto = config.tagging, config.tagging.view == "auto"
    retrieval = list[Pool]()
    if index is not None:
        pools = retrieval_pools(config, index)
        retrieval = [
            replace(pool, actor=LookUp, arguments=(pool.actor, *pool.arguments), batch_size=_PARTS_PER_SEARCH)
            for pool in pools
        ]
    if settings.actors is None:
        num_actors, cpus = room(settings.actor_cpus, settings.gpus, 1 + is_auto, retrieval)
        settings = settings.model_copy(update={"actors": num_actors, "actor_cpus": cpus})

    def tagger(actor: type, *arguments: Any) -> Pool:
        arguments = (model, settings.model_dump(), *arguments, with_words)
        each = settings.actors or 1, settings.actor_cpus, settings.gpus
        return Pool(actor, arguments, settings.batch_documents, "tagging.actors", *each)

    if settings.view == "plain":
        return [tagger(TagPlain, None)]
    return [*([tagger(TagPlain, threshold)] if is_auto else []), *retrieval, tagger(TagContext)]
