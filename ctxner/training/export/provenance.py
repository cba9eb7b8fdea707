"""Describes a model's origin: hashes and counts of its data files, the index that was searched, versions, the config.

It is written beside every model as `training.json`; the model card (`ctxner.training.export.card`) is made from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ctxner import __version__
from ctxner.files.contexts import SUCCESS
from ctxner.files.folders import parts
from ctxner.files.node_copies import local
from ctxner.files.paths import sentence_files
from ctxner.labels import gold_spans
from ctxner.schema import Example

PROVENANCE_FILE = "training.json"
_START_FILES = ("config.json", "*.safetensors", "tokenizer*", "vocab*", "merges.txt", "*token*.json", "*.model")
_LIBRARIES = ("torch", "transformers", "deepspeed", "ray")
_INDEX_FACTS = ("version", "corpus_sha256", "corpus_files", "num_documents", "language", "unit", "lucene_version")


def data_provenance(
    files: Mapping[str, Path], examples: Mapping[str, Sequence[Example]], contexts: Path | None
) -> dict[str, Any]:
    """Counts of each split, and the SHA-256 of the files that it was read from.

    Args:
        files: File, folder or pattern of each split.
        examples: Sentences of each split, joined to their passages.
        contexts: Folder of the contexts files; None without contexts.

    Returns:
        For each split `files` (name -> SHA-256), `sentences`, `words`, `mentions` (by type), `sentences_with_passages`
        and, if contexts are given, `contexts` (name -> SHA-256) and `retrieval` (facts from the retrieval job's entry
        in `_SUCCESS`; None if there is no entry).

    Raises:
        OSError: A file cannot be read.
    """
    contexts = contexts and local(contexts)
    manifests = retrieval_manifests(contexts)
    provenance = {}
    for split, path in files.items():
        split_examples = examples[split]
        provenance[split] = {
            "files": file_hashes(path),
            "sentences": len(split_examples),
            "words": sum(len(example.sentence.words) for example in split_examples),
            "mentions": dict(sorted(_mentions(split_examples).items())),
            "sentences_with_passages": sum(map(has_passages, split_examples)),
        }
        if contexts is not None:
            provenance[split]["contexts"] = file_hashes(contexts / f"{split}.parquet")
            provenance[split]["retrieval"] = manifests.get(split)
    return provenance


def has_passages(example: Example) -> bool:
    """Whether the example's context view has any passages."""
    return any(scored.dropped is None for scored in example.passages)


def file_hashes(path: Path) -> dict[str, str]:
    """SHA-256 of each file of a split, keyed by its path relative to the deepest folder that holds all of them."""
    files = list(dict.fromkeys(file for unit in sentence_files(path) for file in parts(unit)))
    above = os.path.commonpath([file.absolute().parent for file in files])
    return {file.absolute().relative_to(above).as_posix(): sha256(file) for file in files}


def start_hashes(path: str) -> dict[str, str]:
    """SHA-256 of the config, weights and tokenizer in a model's folder; empty for a hub id."""
    files = {file for pattern in _START_FILES for file in Path(path).glob(pattern) if file.is_file()}
    return {file.name: sha256(file) for file in sorted(files)}


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Versions of ctxner, Python and the libraries that training uses."""
    return {"ctxner": __version__, "python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}


def write_provenance(provenance: Mapping[str, Any], folder: Path) -> None:
    """Write `training.json` into a model's folder."""
    (folder / PROVENANCE_FILE).write_text(json.dumps(provenance, indent=1, ensure_ascii=False), encoding="utf-8")


def _mentions(examples: Sequence[Example]) -> Counter[str]:
    return Counter(span.type for example in examples for span in gold_spans(example.sentence))


def retrieval_manifests(contexts: Path | None) -> dict[str, Any]:
    """Facts about each split's retrieval that determine its passages: the index and the settings."""
    contexts = contexts and local(contexts)
    if contexts is None or not (contexts / SUCCESS).is_file():
        return {}
    manifests = json.loads((contexts / SUCCESS).read_text(encoding="utf-8"))
    return {
        split: {
            "index": {name: manifest["index"].get(name) for name in _INDEX_FACTS},
            "settings": manifest["retrieval"],
        }
        for split, manifest in manifests.items()
    }
