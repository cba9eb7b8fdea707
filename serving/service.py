"""Turns a request's texts into sentences, chunks and answers. HTTP is in `serving.web`, streams of lines are in
`serving.streams`; `serving.routing` decides which view answers.
"""

from __future__ import annotations

import asyncio
import math
import operator
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from ctxner.schema import Example, Passage, ScoredPassage, Sentence
from ctxner.texts import as_scored, sentences_of
from serving.admission import Caller, Room, Turns, most_pieces_of, pieces_read, refuse_rate
from serving.answers import Answer, Trace, counts
from serving.api import (
    EntityOut,
    GivenPassage,
    How,
    PassageOut,
    SentenceOut,
    TagRequest,
    TagResponse,
    TextOut,
    Versions,
)
from serving.bodies import Held, parsed
from serving.draining import Draining
from serving.errors import RefusedError, UnavailableError
from serving.policy import POLICY
from serving.routing import Routing
from serving.settings import Limits

_CHUNK_SENTENCES, _CHUNK_PIECES = 64, 6000  # per chunk; small requests run between the chunks of a long list
_LOOKED_UP_PIECES = 128  # of a sentence's passages, on average, where the context view is asked for
ANYONE = Caller()


class Meter(Protocol):
    """Receiver of counts; `serving.meters` passes them to Ray."""

    def answered(self, views: Mapping[Any, int], reasons: Mapping[Any, int], seconds: Mapping[str, float]) -> None:
        """Add the sentences of a request by view and by reason, and the seconds per stage."""

    def waiting(self, pieces: int) -> None:
        """Set the number of pieces in work or waiting."""

    def requested(self, status: int) -> None:
        """Count a request that has ended with this HTTP status."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text of a request, its sentences, and the passages that the caller gives for it."""

    text: str
    sentences: Sequence[Sentence]
    passages: tuple[ScoredPassage, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """Checked texts with options for tagging.

    Attributes:
        texts: The texts, each with its sentences.
        how: The options.
        given: Whether the caller gave passages.
        pieces: Approximate number of pieces of each sentence, in the order of the texts.
        read: Approximate number of pieces of the given passages.
    """

    texts: Sequence[Text]
    how: How
    given: bool
    pieces: Sequence[int]
    read: int


class Service:
    """Tags the texts of requests.

    Args:
        routing: Router between the views.
        limits: Limits of requests.
        meter: Receiver of counts.
        describe: Coroutine function that returns the answer of `/v1/models`.
        ready: Coroutine function that returns for each group, by name, whether it can answer.
        metrics: Coroutine function that returns the metrics of the whole cluster, in Prometheus' text format.
        callers: Number of keys; with several, each has its share of what may wait.
    """

    def __init__(
        self,
        routing: Routing,
        limits: Limits,
        meter: Meter,
        *,
        describe: Callable[[], Awaitable[dict[str, Any]]],
        ready: Callable[[], Awaitable[dict[str, bool]]],
        metrics: Callable[[], Awaitable[str]],
        callers: int = 1,
    ) -> None:
        self.routing, self.limits, self.meter = routing, limits, meter
        self.describe, self.ready, self.metrics = describe, ready, metrics
        self.room, self.requests = Room(limits.pieces, callers), Room(limits.requests, callers)
        self.held, self.draining = Held(limits.held_bytes), Draining()
        self.callers, self.stream_turns = callers, dict[str | None, Turns]()  # by the caller's name
        self.last_asked = -math.inf  # when the last request came that is no stream, by `time.perf_counter`

    @contextmanager
    def entered(self, caller: Caller) -> Iterator[None]:
        """Count an open request of the caller.

        Raises:
            RefusedError: The server is ending, or too many requests are open.
        """
        self.draining.refuse()
        if not self.requests.fits(caller, 1):
            message = f"{self.requests.held} requests are open; try again later"
            raise RefusedError(503, "overload", message, retry_after=self.routing.load.seconds(0))
        self.requests.enter(caller, 1)
        try:
            yield
        finally:
            self.requests.leave(caller, 1)

    async def tag(self, raw: bytes, request_id: str, caller: Caller = ANYONE) -> TagResponse:
        """The answer to a request's body.

        Raises:
            RefusedError: The request exceeds a limit, cannot be answered in time, or no view can answer.
            ValidationError: The body is not as described.
        """
        started = self.last_asked = time.perf_counter()
        work = await parsed(self._parsed, raw, self.limits)
        if caller.pieces is not None:
            refuse_rate(caller.pieces.take(sum(work.pieces) + work.read), "pieces")
        trace = Trace()
        answers_by_text = await self.answers(work, caller, trace)
        answers = [answer for text_answers in answers_by_text for answer in text_answers]
        views, reasons = counts(answers)
        trace.add("total", started)
        self.meter.answered(views, reasons, trace.seconds)
        passages = work.how.return_passages
        return TagResponse(
            results=[text_out(*pair, passages) for pair in zip(work.texts, answers_by_text, strict=True)],
            versions=_versions(answers),
            views=views,
            reasons=reasons,
            timings_ms={name: round(1000 * second, 2) for name, second in trace.seconds.items()},
            request_id=request_id,
        )

    def _parsed(self, raw: bytes) -> Work:
        request = TagRequest.model_validate_json(raw)
        if (number := request.num_texts) > self.limits.texts:
            raise RefusedError(
                413, "too_many_texts", f"{number} texts, at most {self.limits.texts}; use /v1/tag/stream"
            )
        texts: Sequence[str | tuple[str, ...]] = (
            request.texts if request.texts is not None else [tuple(sentence) for sentence in request.sentences or ()]
        )
        return self.work(texts, request.passages, request)

    def work(
        self, texts: Sequence[str | tuple[str, ...]], given: Sequence[Sequence[GivenPassage]] | None, how: How
    ) -> Work:
        """The texts, split and checked.

        Raises:
            RefusedError: They exceed a limit.
        """
        passages = [()] * len(texts) if given is None else given
        split = [self._split(*text) for text in zip(texts, passages, range(len(texts)), strict=True)]
        if (num := sum(len(text.sentences) for text in split)) > self.limits.sentences:
            raise RefusedError(413, "too_many_sentences", f"{num} sentences, at most {self.limits.sentences}")
        pieces = [most_pieces_of(sentence.words) for text in split for sentence in text.sentences]
        if pieces and (longest := max(pieces)) > self.limits.sentence_pieces:
            message = f"a sentence of about {longest} pieces, at most {self.limits.sentence_pieces}; split it"
            raise RefusedError(413, "too_long", message)
        read = sum(pieces_read(text.passages) for text in split)
        if self.room.is_too_much(total := sum(pieces) + read):
            raise RefusedError(413, "too_long", f"about {total} pieces, which can never wait here; send fewer at once")
        return Work(split, how, given is not None, pieces, read)

    def _split(self, text: str | tuple[str, ...], given: Sequence[GivenPassage], number: int) -> Text:
        whole = text if isinstance(text, str) else " ".join(text)
        if len(whole) > self.limits.text_chars:
            raise RefusedError(
                413, "too_long", f"text {number} has {len(whole)} characters, at most {self.limits.text_chars}"
            )
        if sum(len(passage.text) for passage in given) > self.limits.passage_chars:
            raise RefusedError(
                413, "too_long", f"the passages of text {number} exceed {self.limits.passage_chars} characters"
            )
        passages = as_scored(
            Passage(passage.id or f"given-{rank}", passage.source, passage.text, passage.title)
            for rank, passage in enumerate(given, start=1)
        )
        return Text(whole, sentences_of(text, str(number)), passages)

    async def answers(self, work: Work, caller: Caller, trace: Trace, *, waits: bool = False) -> list[list[Answer]]:
        """Answers for each sentence of each text, in the order of the texts.

        Args:
            work: What to tag.
            caller: Who sent it.
            trace: Trace of the request, to which the seconds of each stage are added.
            waits: Whether to wait for room, within the deadline, where there is none.

        Raises:
            RefusedError: The work cannot be done in time, no view can answer, or the server ended before.
        """
        # Without a threshold, `auto` cannot tell which sentences to look up, so all are looked up.
        view = "context" if work.how.view == "auto" and self.routing.threshold is None else work.how.view
        seconds = min(work.how.deadline_ms or math.inf, self.limits.timeout_ms) / 1000
        until = asyncio.get_running_loop().time() + seconds
        examples = [Example(sentence, text.passages) for text in work.texts for sentence in text.sentences]
        pieces = sum(work.pieces) + work.read
        if waits:
            await self.room.wait(caller, pieces, seconds)
        self._admit(pieces, until - asyncio.get_running_loop().time(), caller)
        self.room.enter(caller, pieces)
        self.meter.waiting(self.room.held)
        turns = asyncio.Semaphore(POLICY.chunks_per_request)
        looked_up = _LOOKED_UP_PIECES if view == "context" else 0

        async def answer(chunk: Sequence[int]) -> list[Answer]:
            size = sum(work.pieces[place] for place in chunk)
            turn = caller.turns.turn(size + looked_up * len(chunk)) if caller.turns else nullcontext()
            async with turns, turn:
                return await self.routing.answer(
                    [examples[place] for place in chunk],
                    view=view,
                    given=work.given,
                    until=until,
                    trace=trace,
                    pieces=size,
                )

        # Sentences of similar length share a chunk, so that the encoder pads little.
        order = sorted(range(len(examples)), key=work.pieces.__getitem__)
        tasks = [asyncio.ensure_future(answer(chunk)) for chunk in _chunks(order, work.pieces)]
        try:
            answers = [answer for chunk in await self.draining.finish(asyncio.gather(*tasks)) for answer in chunk]
        except UnavailableError as error:
            raise RefusedError(503, "unavailable", str(error), retry_after=error.retry_after) from None
        finally:
            for task in tasks:
                task.cancel()
            self.room.leave(caller, pieces)
            self.meter.waiting(self.room.held)
        placed = iter([answer for _, answer in sorted(zip(order, answers, strict=True), key=operator.itemgetter(0))])
        return [[next(placed) for _ in text.sentences] for text in work.texts]

    def _admit(self, pieces: int, seconds: float, caller: Caller) -> None:
        """Refuse a request at once if too much waits or if it can hardly be answered in time.

        Raises:
            RefusedError: The request is refused, with status 503.
        """
        if not self.room.fits(caller, pieces):
            wanted = self.routing.load.seconds(0)
            raise RefusedError(503, "overload", "too much is waiting; try again later", retry_after=wanted)
        is_free = not self.room.held and pieces <= POLICY.free_pieces
        if (wanted := self.routing.load.seconds(pieces)) > POLICY.waited_share * seconds and not is_free:
            raise RefusedError(
                503, "overload", "cannot be answered within its deadline now; try again later", retry_after=wanted
            )


def _chunks(order: Sequence[int], pieces: Sequence[int]) -> list[list[int]]:
    chunks: list[list[int]] = []
    size = 0
    for place in order:
        if not chunks or len(chunks[-1]) == _CHUNK_SENTENCES or size + pieces[place] > _CHUNK_PIECES:
            chunks.append([])
            size = 0
        chunks[-1].append(place)
        size += pieces[place]
    return chunks


def text_out(text: Text, answers: Sequence[Answer], return_passages: bool) -> TextOut:
    """A text's answer, with places in characters."""
    entities, sentences = [], []
    for number, (sentence, answer) in enumerate(zip(text.sentences, answers, strict=True)):
        prediction = answer.prediction
        _, offsets = sentence.located()
        entities += [
            EntityOut(text=e.text, type=e.type, start=e.start, end=e.end, confidence=e.confidence, sentence=number)
            for e in prediction.entities
        ]
        sentences.append(
            SentenceOut(
                start=offsets[0][0],
                end=offsets[-1][1],
                view=answer.view,
                reason=answer.reason,
                entropy=max(0.0, prediction.entropy),
                passages=[_passage_out(passage) for passage in prediction.passages] if return_passages else None,
            )
        )
    return TextOut(entities=entities, sentences=sentences)


def _passage_out(scored: ScoredPassage) -> PassageOut:
    passage = scored.passage
    return PassageOut(
        id=passage.id,
        source=passage.source,
        title=passage.title,
        text=passage.text,
        bm25_score=scored.bm25_score,
        rerank_score=scored.rerank_score,
        dropped=scored.dropped,
    )


def _versions(answers: Sequence[Answer]) -> Versions:
    models = sorted({answer.model for answer in answers})
    indexes = sorted({answer.index for answer in answers if answer.index})
    return Versions(model=",".join(models), index=",".join(indexes) or None)
