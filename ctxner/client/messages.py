"""Typed messages to and from a ctxner server: request bodies, answers and errors. `ctxner.client.http` sends them.

This module needs only the standard library. Error messages never contain texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, TypeVar

T = TypeVar("T")
View = Literal["auto", "plain", "context"]
Words = Sequence[str]
GivenPassage = str | Mapping[str, str]  # the text, or a mapping with text and any of id, title, source

CHUNK_LINES = 256
# The client sends the whole body before it reads. A body that fits into the sockets' buffers can be sent even while the
# server waits for its answers to be read; with a longer body both sides could wait forever.
CHUNK_BYTES = 1 << 16
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Entity:
    """A mention, `text[start:end]` in characters; for a sentence given as words, in its words joined by spaces.

    Attributes:
        text: The covered text.
        type: Entity type, e.g. `person`.
        start: First character.
        end: One past the last character.
        confidence: Probability of exactly this span and type.
        sentence: Index of its sentence in `TextResult.sentences`.
    """

    text: str
    type: str
    start: int
    end: int
    confidence: float
    sentence: int


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage that was read beside a sentence, or that was not read for the reason in `dropped`."""

    id: str
    source: str
    title: str
    text: str
    bm25_score: float | None = None
    rerank_score: float | None = None
    dropped: str | None = None


@dataclass(frozen=True, slots=True)
class SentenceResult:
    """A sentence: its place in characters, the view that answered, its entropy in nats, why no other view answered."""

    start: int
    end: int
    view: str
    entropy: float
    reason: str | None = None
    passages: tuple[Passage, ...] | None = None


@dataclass(frozen=True, slots=True)
class TextResult:
    """The entities and sentences of one text; `error` says why a streamed line could not be tagged."""

    entities: tuple[Entity, ...]
    sentences: tuple[SentenceResult, ...]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Versions:
    """Versions of the model and of the index that gave the answer."""

    model: str
    index: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The server's answer to `tag`.

    Attributes:
        results: One result per text, in order.
        versions: Versions of the model and the index.
        views: Number of sentences by the view that answered.
        reasons: Number of sentences by the reason why the context view, or the view asked for, did not answer.
        timings_ms: Milliseconds of the server's stages, and `total`.
        request_id: Id of the request in the server's log.
    """

    results: tuple[TextResult, ...]
    versions: Versions
    views: Mapping[str, int]
    reasons: Mapping[str, int]
    timings_ms: Mapping[str, float]
    request_id: str


class ClientError(Exception):
    """The server gave no usable answer.

    Attributes:
        status: HTTP status; None without an answer.
        code: Error code for programs: the server's, or `timeout`, `connection`, `bad_answer` or `http`.
        message: Explanation for people.
        request_id: Id of the request in the server's log; None if unknown.
        retry_after: Seconds after which another try may succeed; None if the server does not say.
    """

    def __init__(
        self,
        status: int | None,
        code: str,
        message: str,
        request_id: str | None = None,
        *,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{status or 'no answer'}, {code}: {message}" + (f" ({request_id})" if request_id else ""))
        self.status, self.code, self.message, self.request_id = status, code, message, request_id
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer that is not parsed yet."""

    status: int
    body: bytes
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Lines that are sent in one request."""

    body: bytes
    num_lines: int


class Chunks:
    """Groups lines into chunks that the server accepts and that cannot block the connection."""

    def __init__(self, how: Mapping[str, Any], most_lines: int) -> None:
        self.how, self.most_lines = how, most_lines
        self._lines: list[bytes] = []
        self._num_bytes = self._number = 0

    def add(self, text: str | Words) -> Chunk | None:
        """Add a line; if it does not fit into the current chunk, return that chunk and start a new one."""
        kind = {"text": text} if isinstance(text, str) else {"words": list(text)}
        _check(text, f"line {self._number}")
        line = _json({**kind, **self.how}) + b"\n"
        is_full = len(self._lines) == self.most_lines or self._num_bytes + len(line) > CHUNK_BYTES
        full = self.rest() if is_full else None
        self._lines.append(line)
        self._num_bytes += len(line)
        self._number += 1
        return full

    def rest(self) -> Chunk | None:
        """Return the lines of the current chunk and start a new one; None if it has no lines."""
        lines, self._lines, self._num_bytes = self._lines, [], 0
        return Chunk(b"".join(lines), len(lines)) if lines else None


def how_to(view: View, deadline_ms: float | None, return_passages: bool) -> dict[str, Any]:
    """The options that all texts of a request share; options at the server's default are left out, except `view`."""
    deadline = {} if deadline_ms is None else {"deadline_ms": deadline_ms}
    return {"view": view, **deadline, **({"return_passages": True} if return_passages else {})}


def tag_body(
    texts: str | Sequence[str] | Sequence[Words],
    passages: Sequence[GivenPassage] | Sequence[Sequence[GivenPassage]] | None,
    how: Mapping[str, Any],
) -> bytes:
    """The body of `/v1/tag`; see `AsyncClient.tag`.

    Raises:
        ValueError: As for `AsyncClient.tag`.
    """
    listed = [texts] if isinstance(texts, str) else texts
    several: list[Any] = [item if isinstance(item, str) else list(item) for item in listed]
    kinds = {isinstance(item, str) for item in several}
    if len(kinds) != 1:
        raise ValueError("texts are mixed with lists of words; give one kind" if kinds else "there are no texts")
    for number, item in enumerate(several):
        _check(item, f"text {number}")
    body: dict[str, Any] = {"texts" if kinds == {True} else "sentences": several, **how}
    if passages is not None:
        given: list[Any] = [passages] if isinstance(texts, str) else list(passages)
        if len(given) != len(several) or any(isinstance(listed, (str, Mapping)) for listed in given):
            raise ValueError(
                f"{len(given)} given for {len(several)} texts as passages; wanted one list of them per text"
            )
        body["passages"] = [
            [{"text": passage} if isinstance(passage, str) else dict(passage) for passage in listed]
            for listed in map(list, given)
        ]
        for number, listed in enumerate(body["passages"]):
            for passage in listed:
                _check(list(passage.values()), f"a passage of text {number}")
    return _json(body)


def _check(text: str | Sequence[str], where: str) -> None:
    """Refuse text that UTF-8 cannot encode; the error does not repeat the text."""
    for item in (text,) if isinstance(text, str) else text:
        if match := _SURROGATE.search(item):
            raise ValueError(
                f"{where} has a lone surrogate (character {match.start()}), which is no text; "
                "decode with errors='replace', or drop it"
            )


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def failure(status: int, body: bytes, headers: Mapping[str, str]) -> ClientError:
    """The error in the server's answer; if the answer is not ctxner's (a proxy's), an error with the HTTP status."""
    try:
        problem = json.loads(body)
    except ValueError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    return ClientError(
        status,
        str(problem.get("error", "http")),
        str(problem.get("message", "an answer that is not a ctxner server's")),
        problem.get("request_id") or headers.get("x-request-id"),
        retry_after=_retry_after(headers.get("retry-after", "")),
    )


def _retry_after(value: str) -> float | None:
    """Seconds from a Retry-After header, which gives seconds or a date; None if it gives neither."""
    if value.isdecimal() and len(value) < 10:
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def parsed(parse: Any, answer: Answer, *, is_lines: bool = False) -> Any:
    """The answer's body, parsed.

    Raises:
        ClientError: The body is not of the expected form.
    """
    try:
        tree = [json.loads(line) for line in answer.body.splitlines()] if is_lines else json.loads(answer.body)
        return parse(tree)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        message = f"the answer is not as described ({type(error).__name__}); is this a ctxner server of this version?"
    raise ClientError(answer.status, "bad_answer", message, answer.request_id)


def results_of(chunk: Chunk, lines: Sequence[Mapping[str, Any]]) -> list[TextResult]:
    """Results for a chunk's lines, in order.

    Raises:
        ClientError: The server ended the stream early and says why.
        ValueError: The numbers of answers and lines differ.
    """
    if len(lines) != chunk.num_lines:
        if lines and "code" in lines[-1]:  # the server's reason why the stream ended early
            raise ClientError(200, str(lines[-1]["code"]), str(lines[-1].get("error", "the stream ended early")))
        raise ValueError("not an answer a line")
    return [_text_result(line) for line in lines]


def reply(raw: Mapping[str, Any]) -> Reply:
    """The parsed answer of `/v1/tag`."""
    results = tuple(map(_text_result, raw["results"]))
    return _made(Reply, raw, results=results, versions=_made(Versions, raw["versions"]))


def _text_result(raw: Mapping[str, Any]) -> TextResult:
    entities = tuple(_made(Entity, entity) for entity in raw["entities"])
    return _made(TextResult, raw, entities=entities, sentences=tuple(map(_sentence_result, raw["sentences"])))


def _sentence_result(raw: Mapping[str, Any]) -> SentenceResult:
    given = raw.get("passages")
    passages = None if given is None else tuple(_made(Passage, passage) for passage in given)
    return _made(SentenceResult, raw, passages=passages)


def _made(kind: type[T], raw: Mapping[str, Any], **changed: Any) -> T:
    """A dataclass made of the fields that it knows; a newer server may send more."""
    known = {field.name: raw[field.name] for field in fields(kind) if field.name in raw}  # type: ignore[arg-type]
    return kind(**{**known, **changed})
