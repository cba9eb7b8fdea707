"""Passages that lie in a run's own folder: `ctxner train` retrieves them, later commands renew those that do not fit.

Contexts that the config places elsewhere are never touched here; `ctxner retrieve` writes them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ctxner.config import Config
from ctxner.files.contexts import SUCCESS, fitting_contexts, read_contexts
from ctxner.files.sentences import read_sentences
from ctxner.files.storage import read_bytes
from ctxner.files.uris import is_uri
from jobs import retrieve
from jobs.cluster import prepare

logger = logging.getLogger(__name__)

_MAX_BYTES = 1 << 24  # of a manifest


def contexts_in(folder: Path) -> Path:
    """The place of the passages in the folder of a run."""
    from ctxner.training.checkpoints.resume import CONTEXTS_FOLDER

    return folder.absolute() / CONTEXTS_FOLDER


def placed(config: Config, folder: Path) -> Config:
    """The config with contexts in the run's folder, where it needs some, has none and names an index.

    Args:
        config: Settings of the run.
        folder: Folder of the run.
    """
    names_index = config.index.source is not None or "folder" in config.index.model_fields_set
    if config.data.contexts is not None or config.loss.mode == "plain" or not names_index:
        return config
    data = config.data.model_copy(update={"contexts": contexts_in(folder)})
    return config.model_copy(update={"data": data})


def to_retrieve(config: Config, splits: Sequence[str]) -> dict[str, str]:
    """The splits whose passages are missing or stale, each with the reason.

    Passages are stale when the index, the settings of retrieval or its models are others now, or a sentence is new.
    """
    assert config.data.contexts is not None
    prepare()
    from ctxner.batch.retrieve import retrieval_key
    from ctxner.retrieval.index.fetch import index_manifest
    from ctxner.retriever import decided

    settled = config.model_copy(update={"retrieval": decided(config.retrieval)})
    key = retrieval_key(settled, index_manifest(config.index.folder, config.index.source))
    key = json.loads(json.dumps(key, default=str))
    manifests = dict[str, Any]()
    with suppress(FileNotFoundError):
        manifests = json.loads(read_bytes(config.data.contexts / SUCCESS, _MAX_BYTES))
    reasons = {split: _reason(config, split, key, manifests.get(split)) for split in splits}
    return {split: reason for split, reason in reasons.items() if reason}


def renew(config: Config, reasons: dict[str, str]) -> None:
    """Retrieve for the splits, as `ctxner retrieve` does."""
    for split, reason in reasons.items():
        logger.info("retrieving passages for %s: %s", split, reason)
    if reasons:
        retrieve.run(config, list(reasons))


def _reason(config: Config, split: str, key: dict[str, Any], manifest: dict[str, Any] | None) -> str | None:
    data, path = config.data, config.data.contexts_path(split)
    assert path is not None
    if manifest is None or is_uri(path) or not path.is_file():
        return "there are none yet"
    if any(manifest.get(name) != value for name, value in key.items()):
        return "the index or the settings of retrieval have changed"
    num_sentences = {"train": data.train_sentences, "dev": data.first_dev_sentences()}.get(split)
    sentences = read_sentences(data.path(split), data.column_format()).sentences[:num_sentences]
    num_new = len(sentences) - len(fitting_contexts(sentences, read_contexts(path)))
    return f"{num_new} of {len(sentences)} sentences are new" if num_new else None
