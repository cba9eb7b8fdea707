"""Turns a request's texts into sentences, chunks and answers. HTTP is in `serving.web`; `serving.routing` decides
which view answers.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import operator
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import ValidationError

from ctxner.schema import Example, Passage, ScoredPassage, Sentence
from ctxner.texts import as_scored, sentences_of
from serving.answers import Answer, Trace, counts
from serving.api import (
    EntityOut,
    GivenPassage,
    How,
    PassageOut,
    SentenceOut,
    StreamedText,
    TagRequest,
    TagResponse,
    TextOut,
    Versions,
    explain,
)
from serving.errors import RefusedError, UnavailableError
from serving.policy import POLICY
from serving.routing import Routing
from serving.settings import Limits

_CHUNK_SENTENCES, _CHUNK_WORDS = 64, 2000  # per chunk; small requests run between the chunks of a long list


class Meter(Protocol):
    """Receiver of counts; `serving.meters` passes them to Ray."""

    def answered(self, views: Mapping[Any, int], reasons: Mapping[Any, int], seconds: Mapping[str, float]) -> None:
        """Add the sentences of a request by view and by reason, and the seconds per stage."""

    def waiting(self, words: int) -> None:
        """Set the number of words in work or waiting."""

    def requested(self, status: int) -> None:
        """Count a request that has ended with this HTTP status."""


@dataclass(frozen=True, slots=True)
class _Text:
    """A text of a request, its sentences, and the passages that the caller gives for it."""

    text: str
    sentences: Sequence[Sentence]
    passages: tuple[ScoredPassage, ...]


class Service:
    """Tags the texts of requests.

    Args:
        routing: Router between the views.
        limits: Limits of requests.
        meter: Receiver of counts.
        describe: Coroutine function that returns the answer of `/v1/models`.
        ready: Coroutine function that returns for each group, by name, whether it can answer.
        metrics: Coroutine function that returns the metrics of the whole cluster, in Prometheus' text format.
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
    ) -> None:
        self.routing, self.limits, self.meter = routing, limits, meter
        self.describe, self.ready, self.metrics = describe, ready, metrics
        self._words = 0  # in work or waiting, of all accepted requests

    async def tag(self, request: TagRequest, request_id: str) -> TagResponse:
        """The answer to a request.

        Raises:
            RefusedError: The request exceeds a limit, cannot be answered in time, or no view can answer.
        """
        started = time.perf_counter()
        number = request.num_texts
        if number > self.limits.texts:
            raise RefusedError(
                413, "too_many_texts", f"{number} texts, at most {self.limits.texts}; use /v1/tag/stream"
            )
        texts: Sequence[str | tuple[str, ...]] = (
            request.texts if request.texts is not None else [tuple(sentence) for sentence in request.sentences or ()]
        )
        given = [()] * number if request.passages is None else request.passages
        split = [self._split(*request_text) for request_text in zip(texts, given, range(number), strict=True)]
        self._check_sentences(split)
        trace = Trace()
        answers_by_text = await self._answers(split, request, request.passages is not None, trace)
        answers = [answer for text_answers in answers_by_text for answer in text_answers]
        views, reasons = counts(answers)
        trace.add("total", started)
        self.meter.answered(views, reasons, trace.seconds)
        return TagResponse(
            results=[_text_out(*pair, request.return_passages) for pair in zip(split, answers_by_text, strict=True)],
            versions=_versions(answers),
            views=views,
            reasons=reasons,
            timings_ms={name: round(1000 * second, 2) for name, second in trace.seconds.items()},
            request_id=request_id,
        )

    async def stream(self, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """One JSON answer per input line that is not blank, in order; a line that cannot be tagged gets an `error`.

        An answer never waits for the next line. Reading pauses while `POLICY.lines_per_stream` answers are not sent.
        """
        waiting = deque[asyncio.Task[TextOut]]()
        number = 0
        coming: asyncio.Task[bytes | None] | None = asyncio.ensure_future(_next(lines))
        try:
            while coming or waiting:
                takes = coming is not None and len(waiting) < POLICY.lines_per_stream
                watched: set[asyncio.Task[Any]] = {coming} if coming and takes else set()
                await asyncio.wait(watched | set(itertools.islice(waiting, 1)), return_when=asyncio.FIRST_COMPLETED)
                while waiting and waiting[0].done():
                    yield _as_line(waiting.popleft().result())
                if not (coming and takes and coming.done()):
                    continue
                line, coming = coming.result(), None
                if line is None:
                    continue
                number += bool(line.strip())
                if number > self.limits.lines:
                    waiting.append(asyncio.ensure_future(_failed(f"more than {self.limits.lines} lines")))
                    continue
                if line.strip():
                    waiting.append(asyncio.ensure_future(self._line(line)))
                coming = asyncio.ensure_future(_next(lines))
        finally:
            for task in (*waiting, *filter(None, [coming])):
                task.cancel()

    async def _line(self, line: bytes) -> TextOut:
        try:
            if len(line) > self.limits.line_bytes:
                raise RefusedError(413, "too_long", f"a line of more than {self.limits.line_bytes} bytes")
            streamed = StreamedText.model_validate_json(line)
            text = streamed.text if streamed.text is not None else tuple(streamed.words or ())
            split = self._split(text, streamed.passages or (), 0)
            self._check_sentences([split])
            trace = Trace()
            answers = await self._answers([split], streamed, streamed.passages is not None, trace)
            self.meter.answered(*counts(answers[0]), trace.seconds)
            return _text_out(split, answers[0], streamed.return_passages)
        except ValidationError as error:
            return await _failed(explain(error, StreamedText))
        except RefusedError as error:
            return await _failed(str(error))

    def _split(self, text: str | tuple[str, ...], given: Sequence[GivenPassage], number: int) -> _Text:
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
        return _Text(whole, sentences_of(text, str(number)), passages)

    def _check_sentences(self, texts: Sequence[_Text]) -> None:
        if (num := sum(len(text.sentences) for text in texts)) > self.limits.sentences:
            raise RefusedError(413, "too_many_sentences", f"{num} sentences, at most {self.limits.sentences}")

    async def _answers(self, texts: Sequence[_Text], how: How, given: bool, trace: Trace) -> list[list[Answer]]:
        """Answers for each sentence of each text, in the order of the texts."""
        # Without a threshold, `auto` cannot tell which sentences to look up, so all are looked up.
        view = "context" if how.view == "auto" and self.routing.threshold is None else how.view
        seconds = min(how.deadline_ms or math.inf, self.limits.timeout_ms) / 1000
        until = asyncio.get_running_loop().time() + seconds
        examples = [Example(sentence, text.passages) for text in texts for sentence in text.sentences]
        words = sum(len(example.sentence.words) for example in examples)
        self._admit(words, seconds)
        self._words += words
        self.meter.waiting(self._words)
        turns = asyncio.Semaphore(POLICY.chunks_per_request)

        async def answer(chunk: Sequence[Example]) -> list[Answer]:
            async with turns:
                return await self.routing.answer(chunk, view=view, given=given, until=until, trace=trace)

        # Sentences of similar length share a chunk, so that the encoder pads little.
        order = sorted(range(len(examples)), key=lambda place: len(examples[place].sentence.words))
        tasks = [asyncio.ensure_future(answer(chunk)) for chunk in _chunks([examples[place] for place in order])]
        try:
            answers = [answer for texts_answers in await asyncio.gather(*tasks) for answer in texts_answers]
        except UnavailableError as error:
            raise RefusedError(503, "unavailable", str(error), retry_after=error.retry_after) from None
        finally:
            for task in tasks:
                task.cancel()
            self._words -= words
            self.meter.waiting(self._words)
        placed = iter([answer for _, answer in sorted(zip(order, answers, strict=True), key=operator.itemgetter(0))])
        return [[next(placed) for _ in text.sentences] for text in texts]

    def _admit(self, words: int, seconds: float) -> None:
        """Refuse a request at once if too many words wait or if it can hardly be answered in time.

        Raises:
            RefusedError: The request is refused, with status 503.
        """
        if self._words + words > self.limits.waiting_words and self._words:
            wanted = self.routing.load.seconds(0)
            raise RefusedError(503, "overload", "too much is waiting; try again later", retry_after=wanted)
        if (wanted := self.routing.load.seconds(words)) > POLICY.waited_share * seconds and self._words:
            raise RefusedError(
                503, "overload", "cannot be answered within its deadline now; try again later", retry_after=wanted
            )


def _chunks(examples: Sequence[Example]) -> list[list[Example]]:
    chunks: list[list[Example]] = []
    words = 0
    for example in examples:
        num_words = len(example.sentence.words)
        if not chunks or len(chunks[-1]) == _CHUNK_SENTENCES or words + num_words > _CHUNK_WORDS:
            chunks.append([])
            words = 0
        chunks[-1].append(example)
        words += num_words
    return chunks


def _text_out(text: _Text, answers: Sequence[Answer], return_passages: bool) -> TextOut:
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


async def _next(lines: AsyncIterator[bytes]) -> bytes | None:
    return await anext(lines, None)


async def _failed(message: str) -> TextOut:
    return TextOut(entities=[], sentences=[], error=message)


def _as_line(text: TextOut) -> bytes:
    return text.model_dump_json(exclude_none=True).encode() + b"\n"
