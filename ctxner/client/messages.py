"""What goes to a ctxner server and what comes back, typed: bodies of requests, answers, errors. Nothing is sent here.

Only the standard library is needed. Errors never hold texts.
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
GivenPassage = str | Mapping[str, str]  # its text, or text and any of id, title and source

CHUNK_LINES = 256
# A client sends all of a body before it reads. What the sockets' buffers hold is sent even to a server that waits for
# its answers to be read; a longer body could leave both waiting for ever.
CHUNK_BYTES = 1 << 16
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Entity:
    """A mention: `text[start:end]` in characters; of a split sentence, of its words joined by spaces.

    Attributes:
        text: The covered text.
        type: Entity type, e.g. `person`.
        start: First character.
        end: One past the last character.
        confidence: Probability of exactly this span and type.
        sentence: Its place in `TextResult.sentences`.
    """

    text: str
    type: str
    start: int
    end: int
    confidence: float
    sentence: int


@dataclass(frozen=True, slots=True)
class Passage:
    """What was read beside a sentence, or, where `dropped` says why, was not."""

    id: str
    source: str
    title: str
    text: str
    bm25_score: float | None = None
    rerank_score: float | None = None
    dropped: str | None = None


@dataclass(frozen=True, slots=True)
class SentenceResult:
    """A sentence: its characters, which view answered, why not another one, and that view's entropy in nats."""

    start: int
    end: int
    view: str
    entropy: float
    reason: str | None = None
    passages: tuple[Passage, ...] | None = None


@dataclass(frozen=True, slots=True)
class TextResult:
    """What one text holds; `error` says why a streamed line could not be tagged."""

    entities: tuple[Entity, ...]
    sentences: tuple[SentenceResult, ...]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Versions:
    """Who answered."""

    model: str
    index: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    Attributes:
        results: One a text, in order.
        versions: Versions of the model and the index.
        views: Sentences by the view that answered.
        reasons: Sentences by why it was not the context view, or not the one that was asked for.
        timings_ms: Milliseconds of the server's stages, and `total`.
        request_id: In the server's log.
    """

    results: tuple[TextResult, ...]
    versions: Versions
    views: Mapping[str, int]
    reasons: Mapping[str, int]
    timings_ms: Mapping[str, float]
    request_id: str


class ClientError(Exception):
    """No answer.

    Attributes:
        status: HTTP's; None without an answer.
        code: The server's, for programs; or `timeout`, `connection`, `bad_answer`.
        message: For people.
        request_id: In the server's log, where it is known.
        retry_after: Seconds after which the server is worth another try, where it says so.
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
    """A good answer, unread."""

    status: int
    body: bytes
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Lines that are sent together."""

    body: bytes
    num_lines: int


class Chunks:
    """Cuts lines into chunks that a server takes, and that cannot block it."""

    def __init__(self, how: Mapping[str, Any], most_lines: int) -> None:
        self.how, self.most_lines = how, most_lines
        self._lines: list[bytes] = []
        self._num_bytes = self._number = 0

    def add(self, text: str | Words) -> Chunk | None:
        """Add a line; if it does not fit, the chunk before it."""
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
        """What is left."""
        lines, self._lines, self._num_bytes = self._lines, [], 0
        return Chunk(b"".join(lines), len(lines)) if lines else None


def how_to(view: View, deadline_ms: float | None, return_passages: bool) -> dict[str, Any]:
    """What texts share in a request; what the server presumes anyway is left out."""
    deadline = {} if deadline_ms is None else {"deadline_ms": deadline_ms}
    return {"view": view, **deadline, **({"return_passages": True} if return_passages else {})}


def tag_body(
    texts: str | Sequence[str] | Sequence[Words],
    passages: Sequence[GivenPassage] | Sequence[Sequence[GivenPassage]] | None,
    how: Mapping[str, Any],
) -> bytes:
    """The body of `/v1/tag`; see `AsyncClient.tag`.

    Raises:
        ValueError: See there.
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
    """Refuse what UTF-8 cannot hold; the text itself is not told."""
    for item in (text,) if isinstance(text, str) else text:
        if match := _SURROGATE.search(item):
            raise ValueError(
                f"{where} has a lone surrogate (character {match.start()}), which is no text; "
                "decode with errors='replace', or drop it"
            )


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def failure(status: int, body: bytes, headers: Mapping[str, str]) -> ClientError:
    """The server's `Problem`, or of one that is no ctxner (a proxy) its status."""
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
    """Seconds; the header gives them or a date."""
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
        ClientError: It is not what was wanted.
    """
    try:
        tree = [json.loads(line) for line in answer.body.splitlines()] if is_lines else json.loads(answer.body)
        return parse(tree)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        message = f"the answer is not as described ({type(error).__name__}); is this a ctxner server of this version?"
    raise ClientError(answer.status, "bad_answer", message, answer.request_id)


def results_of(chunk: Chunk, lines: Sequence[Mapping[str, Any]]) -> list[TextResult]:
    """Answers to a chunk's lines.

    Raises:
        ValueError: More or fewer than lines.
    """
    if len(lines) != chunk.num_lines:
        raise ValueError("not an answer a line")
    return [_text_result(line) for line in lines]


def reply(raw: Mapping[str, Any]) -> Reply:
    """An answer of `/v1/tag`."""
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
    """A dataclass of what it knows; a newer server may tell more."""
    known = {field.name: raw[field.name] for field in fields(kind) if field.name in raw}  # type: ignore[arg-type]
    return kind(**{**known, **changed})
