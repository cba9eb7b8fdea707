"""The arguments of the application in `serve.yaml`, typed: what is served, within which limits, and for whom.

The number of replicas, their CPUs and GPUs, queues and addresses are Ray Serve's settings, in the same file.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import string
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from ctxner.config import RetrievalConfig, Section
from ctxner.config.section import Place
from ctxner.files.hashes import folder_sha256
from ctxner.files.node_copies import local
from ctxner.model.calibration_file import weights_sha256
from ctxner.retrieval.index.fetch import index_manifest
from ctxner.retrieval.index.versions import IndexManifest

KEYS_VARIABLE = "CTXNER_API_KEYS"  # name:key pairs, separated by commas
SHORTEST_KEY = 16  # characters; a caller with a shorter key is refused, whatever hashes the file holds
_NAME = re.compile(r"^[\w.-]{1,64}$")
_PLACEHOLDERS = ("none", "null", "undefined", "key", "secret", "password", "changeme", "test", "admin", "token", "me")


class ReloadLimits(Section):
    """Limits of the process that tries a new model and index before `kill -HUP` rolls them in."""

    memory_gib: PositiveFloat = 8  # without mapped files; models of more than two billion weights need more
    seconds: PositiveFloat = 300


class Limits(Section):
    """Limits of a request, and of the words that wait at a router."""

    body_bytes: PositiveInt = 4 << 20
    line_bytes: PositiveInt = 1 << 18  # per line of a stream
    lines: PositiveInt = 100_000  # per stream, blank ones too
    stream_bytes: PositiveInt = 256 << 20  # per stream
    streams: PositiveInt = 16  # open streams, per caller and router replica
    unread_bytes: PositiveInt = 1 << 14  # of unread answers, per buffer; a client 0.1 s away gets 0.3 MB/s with it
    text_chars: PositiveInt = 100_000
    texts: PositiveInt = 1000  # per request; longer lists: /v1/tag/stream
    sentences: PositiveInt = 5000  # per request, or per line of a stream
    passage_chars: PositiveInt = 20_000  # per text, over all passages that the caller gives for it
    timeout_ms: PositiveFloat = 30_000  # for requests without a deadline; also the longest deadline
    waiting_pieces: PositiveInt = 300_000  # in work or waiting, per router replica; above it requests get a 503
    waiting_words: PositiveInt | None = None  # the same in files of before; replaces waiting_pieces
    sentence_pieces: PositiveInt = 16_384  # per sentence: other requests wait while it is tagged
    requests: PositiveInt = 512  # open requests, per router replica; health and metrics do not count
    connections: PositiveInt = 256  # per address
    held_bytes: PositiveInt = 256 << 20  # bodies in memory, per router replica
    body_seconds: PositiveFloat = 20  # for the whole body of /v1/tag
    drain_seconds: PositiveFloat = 20  # after SIGTERM, for what is in work; the server ends within 2 s more
    idle_seconds: PositiveFloat = 60  # without a line or an answer, a stream ends
    key_requests_per_minute: PositiveInt | None = None  # of each key without a rate of its own, per router replica
    key_pieces_per_minute: PositiveInt | None = None  # the same in pieces

    @property
    def pieces(self) -> int:
        """Pieces that may be in work or waiting."""
        return self.waiting_words or self.waiting_pieces


@cache
def _guessable() -> frozenset[str]:
    """Hashes of what stands in a key's place by mistake: nothing, blanks, one or two characters, placeholders."""
    short = ("".join(pair) for size in (0, 1, 2) for pair in itertools.product(string.printable, repeat=size))
    written = (*_PLACEHOLDERS, *map(str.upper, _PLACEHOLDERS), f"${KEYS_VARIABLE}", "$KEY", "${KEY}")
    return frozenset(hashed(key + end) for key in (*short, *written) for end in ("", "\n"))


def _not_guessable(sha256: str) -> str:
    if sha256 in _guessable():
        raise ValueError("this is the hash of an empty or very short key, perhaps of an unset variable")
    return sha256


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$"), AfterValidator(_not_guessable)]


class ApiKey(Section):
    """A caller's name, the hash of its key, and its rate limit."""

    name: Annotated[str, Field(pattern=_NAME.pattern)]  # shown in the access log
    sha256: Sha256  # SHA-256 of the key; `ctxner api-key NAME` makes key and hash
    requests_per_minute: PositiveInt | None = None  # per router replica; None: limits.key_requests_per_minute
    pieces_per_minute: PositiveInt | None = None  # per router replica; None: limits.key_pieces_per_minute


class ServeSettings(Section):
    """The settings from which the application is built."""

    model_config = ConfigDict(hide_input_in_errors=True)  # somebody may have written a key in place of its hash

    model: str  # folder that every node can read, or hub id
    plain_model: str | None = None  # for the plain view, e.g. a smaller model; None: `model`
    index: Place | None = None  # folder that every node can read, or URI; None: passages come from callers only
    index_source: str | None = None  # URI of an index; each node copies it once into the folder `index`
    retrieval: RetrievalConfig = RetrievalConfig()
    reranker: Literal["inside", "replicas"] = "inside"  # in the retriever, or in separate replicas (GPUs)
    threshold: NonNegativeFloat | None = None  # auto looks up above this entropy (nats); None: calibrated
    precision: Literal["float32", "bfloat16"] = "float32"
    device: Literal["cpu", "cuda"] = "cpu"  # on which all models run
    threads: PositiveInt = 1  # per replica; on CPUs, two replicas of 1 thread are twice as fast as one of 2
    batch_pieces: PositiveInt = 2048  # approximate size of a batch; requests in a batch are tagged together
    cached_sentences: Annotated[int, Field(ge=0)] = 20_000  # sentences whose passages a retriever caches
    cached_bytes: PositiveInt = 256 << 20  # of these sentences and passages, about
    limits: Limits = Limits()
    reload: ReloadLimits = ReloadLimits()
    keys: tuple[ApiKey, ...] = ()  # none: everyone who reaches the port; `ctxner serve` wants loopback
    hosts: tuple[str, ...] = ()  # names in the Host header that a server without keys answers to, besides loopback
    release: str = ""  # a new value makes new replicas; empty: made from the models' files
    slow_ms: NonNegativeFloat = 0  # delay before a retriever answers; only for drills

    @model_validator(mode="after")
    def _sound(self) -> ServeSettings:
        names = [key.name for key in self.keys]
        if len(set(names)) < len(names):
            raise ValueError("keys: two have the same name; give each its own")
        return self


def hashed(key: str) -> str:
    """The SHA-256 of a key, stored in its place. Keys are random and long, so a plain hash cannot be reversed."""
    return hashlib.sha256(key.encode()).hexdigest()


def keys_from(environment: Mapping[str, str]) -> tuple[ApiKey, ...]:
    """The keys in `CTXNER_API_KEYS`, hashed.

    Raises:
        ValueError: An entry is not `name:key`, or its key is too short; the message shows no key.
    """
    keys = []
    for number, item in enumerate(filter(None, environment.get(KEYS_VARIABLE, "").split(",")), start=1):
        name, _, key = item.strip().partition(":")
        if not _NAME.fullmatch(name) or len(key) < SHORTEST_KEY:
            raise ValueError(
                f"{KEYS_VARIABLE}: entry {number} is not name:key with a key of at least {SHORTEST_KEY} characters; "
                "`ctxner api-key NAME` makes one"
            )
        keys.append(ApiKey(name=name, sha256=hashed(key)))
    return tuple(keys)


def model_version(model: str) -> str:
    """First 12 digits of the weights' SHA-256; `hub` for a hub id."""
    return (weights_sha256(Path(local(model))) or "hub")[:12]


def index_version(manifest: IndexManifest) -> str:
    """Version of the index, and the first 12 digits of its corpus' SHA-256."""
    return f"{manifest.version}-{manifest.corpus_sha256[:12]}"


def index_wanted(settings: ServeSettings) -> dict[str, str]:
    """The `user_config` of the retrievers, which open another version of the index as soon as it changes.

    Raises:
        FileNotFoundError, ValueError: There is no index that can be read.
    """
    if settings.index is None:
        return {}
    return {"index": index_version(index_manifest(settings.index, settings.index_source))}


def release_of(models: Iterable[str]) -> str:
    """A name made of the models' files; a new name makes Serve roll in new replicas.

    A model has its `model_version` and six digits of a hash of all its files: a new calibration or tokenizer changes
    answers as new weights do.
    """
    return "-".join(".".join([model_version(model), *_files(model)]) for model in dict.fromkeys(models))


def _files(model: str) -> list[str]:
    """Six digits of the hash of all files of a model's folder; nothing for a hub id."""
    sha256 = folder_sha256(model)
    return [sha256[:6]] if sha256 else []
