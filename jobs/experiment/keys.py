"""What each step of a cell depends on, and its hash: the step is done when its result bears this hash.

A key holds settings that results depend on and the contents of files, by SHA-256; never paths, `Runtime` settings,
machines or times. It does not hold the commit, which results state beside it: a commit to the docs would otherwise
throw hours of runs away. A study's `code` is part of every key when it is set. Keys need neither Ray nor torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from ctxner.config import Config, Section
from ctxner.encoders import packaged_encoder
from ctxner.files.hashes import folder_sha256
from ctxner.files.node_copies import local
from ctxner.training.export.provenance import file_hashes, sha256, start_hashes
from jobs.experiment.study import Cell

StepKind = Literal["index", "contexts", "shuffle", "train", "calibrate", "score"]
KINDS: tuple[StepKind, ...] = ("index", "contexts", "shuffle", "train", "calibrate", "score")  # each needs those before
_LAYOUT = 1  # raised when a step writes another result from the same settings
_TRAINING_SPLITS = ("train", "dev")
_LENGTH = 16  # hexadecimal digits of a key
_PATHS = {"corpus", "folder", "source", "train", "dev", "contexts", "also", "unlabelled"}  # their contents count
_PATHS |= {"encoder", "warm_start", "tagger"}
# Settings that came after results had been made, each with the value that means what was done before: with it they are
# no part of a key, so that a new setting does not throw away what is done.
ADDED: tuple[tuple[str, Any], ...] = (("wrapped", False), ("attention_dropout", None), ("word_shapes", False))


class MissingFileError(ValueError):
    """A data set or a corpus is not there: a study's cells for data that a user lacks are left out, and told."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of a cell by kind, each with all that it depends on; a cell may need no index and no contexts."""

    facts: dict[StepKind, dict[str, Any]]

    def keys(self) -> dict[StepKind, str]:
        """Hashes of all steps that the cell needs, first step first."""
        return {kind: digest(self.facts[kind]) for kind in KINDS if kind in self.facts}


def digest(facts: Any) -> str:
    """Short SHA-256 of JSON."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def settings_of(cell: Cell) -> dict[str, Any]:
    """The settings that a cell's results depend on, without paths: they need no data to compute.

    A result states their hash, so a report tells results of other settings even where the data is not.
    """
    tree = {name: _settings(section) for name, section in cell.config if name != "tagging"}
    return {**tree, "contexts": cell.contexts, **_unlabelled(cell), **_calibrated(cell)}


def _unlabelled(cell: Cell) -> dict[str, str]:
    return {"rest": cell.unlabelled} if cell.unlabelled else {}


def _calibrated(cell: Cell) -> dict[str, Any]:
    return {"calibrate": cell.calibrate.model_dump(exclude_none=True)} if cell.calibrate else {}


def steps_of(cell: Cell, *, split: str, code: str | None = None) -> Steps:
    """The steps of a cell.

    Args:
        cell: Cell of a study.
        split: Split that is scored.
        code: Marker that makes other keys of the same settings.

    Raises:
        MissingFileError: A data file or corpus that the cell needs is not there.
        ValueError: A file or a setting cannot be used.
    """
    try:
        return Steps(_facts(cell, split, {"layout": _LAYOUT, **({} if code is None else {"code": code})}))
    except MissingFileError:
        raise
    except (OSError, ValueError) as error:
        where = ",".join(f"{axis}={value}" for axis, value in cell.coordinates.items())
        raise ValueError(f"cell {where}: {error}") from None


def _facts(cell: Cell, split: str, common: dict[str, Any]) -> dict[StepKind, dict[str, Any]]:
    config, facts = cell.config, dict[StepKind, dict[str, Any]]()
    data, splits = config.data, dict(_split_hashes(config))
    for name in (*_TRAINING_SPLITS, split, *([cell.calibrate.split] if cell.calibrate else [])):
        data.path(name)  # raises with the splits that there are
    contexts: Any = None
    if cell.contexts in ("index", "data", "shuffled", "random"):
        if config.index.corpus or cell.contexts == "data":
            from_data = {"training sentences": splits["train"], "columns": _columns(data)}
            corpus = from_data if cell.contexts == "data" else [_hashes(path) for path in config.index.corpus]
            facts["index"] = {**common, **_settings(config.index), "corpus": corpus}
            index: Any = digest(facts["index"])
        else:
            index = _given_index(config)
        facts["contexts"] = {
            **common,
            "index": index,
            "retrieval": _settings(config.retrieval),
            "models": _retrieval_models(config),
            "splits": splits,
            "columns": _columns(data),
        }
        if cell.contexts in ("shuffled", "random"):
            facts["shuffle"] = {**common, "contexts": digest(facts["contexts"]), "kind": cell.contexts}
        contexts = digest(facts.get("shuffle", facts["contexts"]))
    elif cell.contexts == "files":
        if data.contexts is None:
            raise ValueError("contexts: files, but data.contexts is not set; --set data.contexts=FOLDER")
        contexts = {name: _hashes(path) for name in splits if (path := data.contexts_path(name)) and path.exists()}
    facts["train"] = {
        **common,
        **{name: _settings(getattr(config, name)) for name in ("data", "model", "loss", "optim", "run")},
        "splits": {name: splits[name] for name in _TRAINING_SPLITS},
        "also": [_further(further) for further in data.also],
        "unlabelled": data.unlabelled and _hashes(data.unlabelled),
        "start": _start(config),
        "contexts": _training_contexts(facts, splits, contexts) if reads_contexts(config) else None,
        **_unlabelled(cell),
    }
    model = {"train": digest(facts["train"])}
    if cell.calibrate:
        name = cell.calibrate.split
        read = _training_contexts(facts, splits, contexts) if name in _TRAINING_SPLITS else contexts
        fitted = {"splits": {name: splits[name]}, "contexts": read}
        facts["calibrate"] = {**common, **model, **fitted, **_calibrated(cell)}
        model["calibrate"] = digest(facts["calibrate"])
    facts["score"] = {
        **common,
        **model,
        "contexts": contexts,
        "split": split,
        "splits": {name: splits[name] for name in ("train", split)},
    }
    return facts


def _training_contexts(facts: Mapping[StepKind, dict[str, Any]], splits: Mapping[str, Any], contexts: Any) -> Any:
    """What training reads of the contexts: those of its own splits, so that another test set trains no other model."""
    if "contexts" not in facts:
        return {name: contexts.get(name) for name in _TRAINING_SPLITS} if isinstance(contexts, dict) else contexts
    if facts["contexts"]["retrieval"]["idf"]:  # counted over all sentences of the retrieval
        return contexts
    retrieved = digest({**facts["contexts"], "splits": {name: splits[name] for name in _TRAINING_SPLITS}})
    return [retrieved, facts["shuffle"]["kind"]] if "shuffle" in facts else retrieved


def reads_contexts(config: Config) -> bool:
    """Whether training reads passages: a plain model that is scored in the plain view does not."""
    return config.loss.mode != "plain" or config.run.dev_views == "both"


def _settings(section: Section) -> dict[str, Any]:
    """Settings that results depend on, without paths and without later settings that are off."""
    every = section.results_settings()
    return {name: value for name, value in every.items() if name not in _PATHS and (name, value) not in ADDED}


def _columns(data: Section) -> dict[str, Any]:
    names = ("token_column", "tag_column", "scheme", "repair", "labels", "encoding", "overlaps", "wrapped")
    every = {name: getattr(data, name) for name in names}
    return {name: value for name, value in every.items() if (name, value) not in ADDED}


def _further(further: Any) -> dict[str, Any]:
    hashes = {name: _hashes(path) for name in ("train", "contexts") if (path := getattr(further, name))}
    return {**hashes, **_columns(further)}


def _split_hashes(config: Config) -> Mapping[str, Any]:
    return {name: _hashes(config.data.path(name)) for name in config.data.named_splits()}


def _hashes(path: Path) -> Any:
    """Hash of a file, whose name does not count, or hashes of the files in a folder or of a pattern, by name.

    Raises:
        MissingFileError: There is none.
    """
    try:
        path = local(path)
    except FileNotFoundError as error:
        raise MissingFileError(str(error)) from None
    if not path.exists() and not any(char in path.name for char in "*?["):
        raise MissingFileError(f"{path}: no such file or folder")
    if path.is_file():
        return _hash(str(path), path.stat().st_mtime_ns)
    return _folder_hashes(path) if path.is_dir() else file_hashes(path)


def _folder_hashes(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    return {file.relative_to(folder).as_posix(): _hash(str(file), file.stat().st_mtime_ns) for file in files}


@lru_cache(maxsize=10_000)
def _hash(path: str, changed: int) -> str:
    return sha256(Path(path))


@lru_cache(maxsize=100)
def _model_hashes(path: str) -> Any:
    """Hashes of a model's files; its name when it is a hub id."""
    return start_hashes(path) or path


@lru_cache(maxsize=100)
def _model_hash(path: str) -> str:
    """One hash over a model's files; its name when it is a hub id."""
    return folder_sha256(path) or path


def _start(config: Config) -> Any:
    return _model_hashes(config.model.warm_start or config.model.encoder or packaged_encoder())


def _retrieval_models(config: Config) -> dict[str, Any]:
    settings = config.retrieval
    encoder = (settings.encoder or packaged_encoder()) if settings.rerank else None
    models = {"tagger": settings.tagger, "encoder": encoder}
    return {name: _model_hash(model) for name, model in models.items() if model is not None}


def _given_index(config: Config) -> dict[str, Any]:
    from ctxner.retrieval.index.fetch import index_manifest

    manifest = index_manifest(config.index.folder, config.index.source)
    return {"corpus_sha256": manifest.corpus_sha256, "language": manifest.language}
