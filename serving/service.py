"""Answers requests in chunks, which take turns at the replicas. HTTP is in `serving.web`, streams of lines are in
`serving.streams`, texts and sentences in `serving.work`; `serving.routing` decides which view answers.
"""

from __future__ import annotations

import asyncio
import math
import operator
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

from serving.admission import Caller, Room, refuse_rate
from serving.answers import Answer, Trace, counts
from serving.api import TagRequest, TagResponse
from serving.bodies import Held, parsed
from serving.draining import Draining
from serving.errors import RefusedError, UnavailableError
from serving.policy import POLICY
from serving.routing import Routing
from serving.settings import Limits
from serving.turns import Flow, Turns
from serving.work import Work, text_out, versions_of, work_of

_CHUNK_SENTENCES, _CHUNK_PIECES = 64, 6000  # per chunk, at most; other requests go between the chunks of a long list
_LOOKED_UP_PIECES = 128  # of a looked-up sentence's passages, on average
_GAIN = 1 / 32  # of one request, in the share of sentences of the view `auto` that are looked up
ANYONE = Caller()


class Meter(Protocol):
    """Receiver of counts; `serving.meters` passes them to Ray."""

    def answered(self, views: Mapping[Any, int], reasons: Mapping[Any, int], seconds: Mapping[str, float]) -> None:
        """Add the sentences of a request by view and by reason, and the seconds per stage."""

    def waiting(self, pieces: int) -> None:
        """Set the number of pieces in work or waiting."""

    def requested(self, status: int) -> None:
        """Count a request that has ended with this HTTP status."""


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
        self._streams = Counter[str | None]()
        self.turns = Turns(lambda: routing.load.speed)
        self._looked_up = 0.0  # share of the sentences of the view `auto`, lately

    @contextmanager
    def entered(self, caller: Caller) -> Iterator[None]:
        """Count an open request of the caller.

        Raises:
            RefusedError: The server is ending, or too many requests are open.
        """
        self.draining.refuse()
        if not self.requests.fits(caller, 1):
            raise self._overloaded(f"{self.requests.held} requests are open")
        self.requests.enter(caller, 1)
        try:
            yield
        finally:
            self.requests.leave(caller, 1)

    @contextmanager
    def stream_entered(self, caller: Caller) -> Iterator[None]:
        """Count an open stream of the caller, which is an open request, too.

        Raises:
            RefusedError: The server is ending, or too many requests or streams of the caller are open.
        """
        if self._streams[caller.name] >= self.limits.streams:
            message = f"{self.limits.streams} streams are open, as many as one caller may have; send more lines in each"
            raise RefusedError(429, "streams", message, retry_after=1)
        with self.entered(caller):
            self._streams[caller.name] += 1
            try:
                yield
            finally:
                self._streams[caller.name] -= 1

    async def tag(self, raw: bytes, request_id: str, caller: Caller = ANYONE) -> TagResponse:
        """The answer to a request's body.

        Raises:
            RefusedError: The request exceeds a limit, cannot be answered in time, or no view can answer.
            ValidationError: The body is not as described.
        """
        started = time.perf_counter()
        work = await parsed(self._parsed, raw, self.limits)
        if caller.pieces is not None:
            refuse_rate(caller.pieces.take(work.size), "pieces")
        trace = Trace(request=request_id)
        answers_by_text = await self.answers(work, caller, trace)
        answers = [answer for text_answers in answers_by_text for answer in text_answers]
        views, reasons = counts(answers)
        trace.add("total", started)
        self.meter.answered(views, reasons, trace.seconds)
        passages = work.how.return_passages
        return TagResponse(
            results=[text_out(*pair, passages) for pair in zip(work.texts, answers_by_text, strict=True)],
            versions=versions_of(answers),
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
        work = work_of(texts, request.passages, request, self.limits)
        if self.room.is_too_much(2 * work.size):
            message = f"about {work.size} pieces, which can never wait here; send fewer at once"
            raise RefusedError(413, "too_long", message)
        return work

    async def answers(self, work: Work, caller: Caller, trace: Trace, stream: Flow | None = None) -> list[list[Answer]]:
        """Answers for each sentence of each text, in the order of the texts.

        Args:
            work: What to tag.
            caller: Who sent it.
            trace: Trace of the request, to which the seconds of each stage are added.
            stream: The stream that the work is a line of. It waits for its turn as long as it takes, and its deadline
                starts then; None: a request, whose deadline starts now.

        Raises:
            RefusedError: The work cannot be done in time, no view can answer, or the server ended before.
        """
        # Without a threshold, `auto` cannot tell which sentences to look up, so all are looked up.
        view = "context" if work.how.view == "auto" and self.routing.threshold is None else work.how.view
        loop, seconds = asyncio.get_running_loop(), min(work.how.deadline_ms or math.inf, self.limits.timeout_ms) / 1000
        asked, flow = loop.time(), stream or self.turns.request(caller.name)
        examples = work.examples
        looked_up = {"plain": 0.0, "context": 1.0, "auto": self._looked_up}[view]
        beside = round(_LOOKED_UP_PIECES * looked_up) + work.read // max(1, len(examples))
        sizes = [pieces + beside for pieces in work.pieces]

        async def answer(chunk: Sequence[int]) -> list[Answer]:
            size = sum(sizes[place] for place in chunk)
            async with self.turns.turn(flow, size, is_small=stream is None and len(chunks) == 1):
                return await self.routing.answer(
                    [examples[place] for place in chunk],
                    view=view,
                    given=work.given,
                    until=(loop.time() if stream else asked) + seconds,
                    trace=trace,
                    pieces=size,
                )

        # Sentences of similar length share a chunk, so that the encoder pads little.
        order = sorted(range(len(examples)), key=work.pieces.__getitem__)
        chunks = _chunks(order, sizes, round(self.turns.most * POLICY.large_share))
        with self._room(caller, flow, sum(sizes), seconds) if stream is None else nullcontext():
            tasks = [asyncio.ensure_future(answer(chunk)) for chunk in chunks]
            self.meter.waiting(self.turns.used + self.turns.waiting)
            try:
                async with asyncio.timeout_at(None if stream else asked + (1 + POLICY.late_share) * seconds):
                    answered = await self.draining.finish(asyncio.gather(*tasks))
            except UnavailableError as error:
                code = "unavailable" if error.is_failure else "overload"
                raise RefusedError(503, code, str(error), retry_after=error.retry_after) from None
            except TimeoutError:
                raise self._overloaded("could not be answered within its deadline") from None
            finally:
                for task in tasks:
                    task.cancel()
                self.meter.waiting(self.turns.used + self.turns.waiting)
        answers = [answer for chunk in answered for answer in chunk]
        if view == "auto" and answers:
            share = sum(answer.view == "context" for answer in answers) / len(answers)
            self._looked_up += _GAIN * (share - self._looked_up)
        placed = iter([answer for _, answer in sorted(zip(order, answers, strict=True), key=operator.itemgetter(0))])
        return [[next(placed) for _ in text.sentences] for text in work.texts]

    @contextmanager
    def _room(self, caller: Caller, flow: Flow, size: int, seconds: float) -> Iterator[None]:
        """Hold the room of a request.

        Raises:
            RefusedError: Too much is waiting, or the request can hardly be answered in time.
        """
        # Twice the size has to be free, so that large requests leave room for small ones.
        if not self.room.fits(caller, 2 * size):
            raise self._overloaded("too much is waiting")
        is_free = not self.turns.used and size <= POLICY.free_pieces
        if self.routing.load.seconds(self.turns.before(flow, size)) > POLICY.waited_share * seconds and not is_free:
            raise self._overloaded("cannot be answered within its deadline now")
        self.room.enter(caller, size)
        try:
            yield
        finally:
            self.room.leave(caller, size)

    def _overloaded(self, what: str) -> RefusedError:
        wanted = self.routing.load.seconds(self.turns.waiting)
        return RefusedError(503, "overload", f"{what}; try again later", retry_after=wanted)


def _chunks(order: Sequence[int], sizes: Sequence[int], most: int) -> list[list[int]]:
    """Places in this order, in chunks of at most so many pieces; a larger sentence is a chunk by itself."""
    chunks: list[list[int]] = []
    most, size = min(most, _CHUNK_PIECES), 0
    for place in order:
        if not chunks or len(chunks[-1]) == _CHUNK_SENTENCES or size + sizes[place] > most:
            chunks.append([])
            size = 0
        chunks[-1].append(place)
        size += sizes[place]
    return chunks
