"""`ctxner retrieve`: data files -> contexts files, by BM25 and BERTScore re-ranking on Ray Data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctxner.config import SPLITS, Config
from ctxner.conll import read_sentences
from ctxner.schema import Sentence
from jobs.cluster import connect
from jobs.console import progress


def run(config: Config, splits: Sequence[str]) -> dict[str, Any]:
    """Retrieve for the splits; returns the manifest. What is wrong with the files is found before Ray starts."""
    from ctxner.retrieval.index import read_manifest

    sentences, folder = read_splits(config, splits), contexts_folder(config)
    read_manifest(config.index.folder)
    connect()
    from ctxner.pipelines import retrieve

    with progress("retrieving for sentences", sum(map(len, sentences.values()))) as done:
        manifest = retrieve(sentences, config, folder, on_progress=done)
    return {"folder": str(folder), **manifest}


def plan(config: Config, splits: Sequence[str]) -> dict[str, Any]:
    """What `run` would do; checks the data and the index."""
    from ctxner.retrieval.index import read_manifest

    sentences, index = read_splits(config, splits), read_manifest(config.index.folder)
    return {
        "sentences": {split: len(own) for split, own in sentences.items()},
        "passages_in_index": index.num_documents,
        "pairs_at_most": config.retrieval.depth * sum(map(len, sentences.values())),
        "folder": str(contexts_folder(config)),
    }


def read_splits(config: Config, splits: Sequence[str]) -> dict[str, list[Sentence]]:
    """The sentences of the wanted splits; all that the config names by default."""
    wanted = splits or [split for split in SPLITS if getattr(config.data, split)]
    if not wanted:
        raise ValueError("no data set; give --set data.test=FILE or a --config with a data section")
    format = config.data.column_format()
    return {split: read_sentences(config.data.path(split), format).sentences for split in wanted}


def contexts_folder(config: Config) -> Path:
    """Where contexts files go."""
    if config.data.contexts is None:
        raise ValueError(
            "data.contexts is not set; give the folder to write contexts to, e.g. --set data.contexts=runs/contexts"
        )
    return config.data.contexts
