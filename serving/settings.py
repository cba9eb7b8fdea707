"""The arguments of the application in `serve.yaml`, typed: what is served, within which bounds, and for whom.

How many replicas, their CPUs and GPUs, queues and addresses are Ray Serve's own settings, in the same file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from ctxner.config import RetrievalConfig, Section
from ctxner.model.calibration_file import weights_sha256
from ctxner.retrieval.index.versions import IndexManifest

KEYS_VARIABLE = "CTXNER_API_KEYS"  # name:key, separated by commas
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_NAME = re.compile(r"[\w.-]{1,64}")
_SHORTEST_KEY = 16


class Limits(Section):
    """Bounds of a request and of what waits."""

    body_bytes: PositiveInt = 4 << 20
    line_bytes: PositiveInt = 1 << 18  # a line of a stream
    lines: PositiveInt = 100_000  # of a stream
    text_chars: PositiveInt = 100_000
    texts: PositiveInt = 1000  # a request; longer lists: /v1/tag/stream
    sentences: PositiveInt = 5000  # a request
    passage_chars: PositiveInt = 20_000  # all of a sentence's together, when a caller gives them
    timeout_ms: PositiveFloat = 30_000  # without a deadline; and the longest deadline
    waiting_words: PositiveInt = 50_000  # in work or waiting, a router; more is refused with 503


class ApiKey(Section):
    """A caller."""

    name: Annotated[str, Field(pattern=_NAME.pattern)]  # in logs and metrics
    sha256: Sha256  # of the key; `ctxner api-key NAME` makes both
    requests_per_minute: PositiveInt | None = None  # a router replica; None: no limit


class ServeSettings(Section):
    """What the application is built from."""

    model: str  # folder that every node can read, or hub id
    plain_model: str | None = None  # of the plain view, where it is another one, e.g. a smaller
    index: Path | None = None  # folder that every node can read; None: passages come from callers only
    index_source: str | None = None  # URI of an index; each node copies it under `index` once
    retrieval: RetrievalConfig = RetrievalConfig()
    reranker: Literal["inside", "replicas"] = "inside"  # the retriever, or replicas of its own (GPUs)
    threshold: NonNegativeFloat | None = None  # nats of entropy above which auto looks up; None: as calibrated
    precision: Literal["float32", "bfloat16"] = "float32"
    device: Literal["cpu", "cuda"] = "cpu"  # of the models
    threads: PositiveInt = 1  # of a replica; on CPUs two replicas of one thread do twice what one of two does
    batch_pieces: PositiveInt = 2048  # about, of the requests that are answered together
    cached_sentences: Annotated[int, Field(ge=0)] = 20_000  # whose passages a retriever remembers
    limits: Limits = Limits()
    keys: tuple[ApiKey, ...] = ()  # none: whoever reaches the port; only on loopback
    release: str = ""  # any change of it makes new replicas; empty: the versions of models and index
    slow_ms: NonNegativeFloat = 0  # a retriever waits so long before it answers; for drills

    @model_validator(mode="after")
    def _sound(self) -> ServeSettings:
        names = [key.name for key in self.keys]
        if len(set(names)) < len(names):
            raise ValueError("keys: two have the same name; give each its own")
        return self


def hashed(key: str) -> str:
    """What is stored of a key. Keys are random and long, so a plain hash cannot be reversed."""
    return hashlib.sha256(key.encode()).hexdigest()


def keys_from(environment: Mapping[str, str]) -> tuple[ApiKey, ...]:
    """The keys in `CTXNER_API_KEYS`, hashed.

    Raises:
        ValueError: Not `name:key,...`, or a key that one could guess; keys are not shown.
    """
    keys = []
    for number, item in enumerate(filter(None, environment.get(KEYS_VARIABLE, "").split(",")), start=1):
        name, _, key = item.strip().partition(":")
        if not _NAME.fullmatch(name) or len(key) < _SHORTEST_KEY:
            raise ValueError(
                f"{KEYS_VARIABLE}: entry {number} is not name:key with a key of at least {_SHORTEST_KEY} characters; "
                "`ctxner api-key NAME` makes one"
            )
        keys.append(ApiKey(name=name, sha256=hashed(key)))
    return tuple(keys)


def model_version(model: str) -> str:
    """First digits of the weights' SHA-256; `hub` for a hub id."""
    return (weights_sha256(Path(model)) or "hub")[:12]


def index_version(manifest: IndexManifest) -> str:
    """Its version, and first digits of its corpus' SHA-256."""
    return f"{manifest.version}-{manifest.corpus_sha256[:12]}"


def release_of(models: Iterable[str], index: IndexManifest | None) -> str:
    """Names the versions of what is served; a new one makes Serve roll in new replicas."""
    versions = [model_version(model) for model in dict.fromkeys(models)]
    return "-".join([*versions, index_version(index) if index else "no-index"])
