"""`/v1/tag/stream`: lines of a body become lines of the answer, in order, and no faster than they are answered."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from serving.admission import Caller
from serving.answers import Trace, counts
from serving.api import StreamedText, TagRequest, TextOut, explain
from serving.bodies import parsed
from serving.errors import RefusedError, place_of
from serving.policy import POLICY
from serving.service import ANYONE, Service
from serving.turns import Flow
from serving.work import Work, joined, text_out, work_of

logger = logging.getLogger("ray.serve")
_WHOLE = ("overload", "draining")  # no line's own fault


@dataclass(slots=True)
class _Stream:
    """What has come of a stream, and what is in work; the lines take turns as parts of its flow."""

    flow: Flow
    caller: Caller
    request: str | None  # its id, for the log
    lines: int = 0
    in_work: int = 0
    held: int = 0  # bytes of the lines in work
    ended: RefusedError | None = None
    answers: deque[asyncio.Task[list[TextOut]]] = field(default_factory=deque)


async def stream(
    service: Service,
    lines: AsyncIterator[list[bytes]],
    caller: Caller = ANYONE,
    said: dict[str, Any] | None = None,
    *,
    request_id: str | None = None,
) -> AsyncIterator[bytes]:
    """Parts of the answer: a JSON line per input line, in order; with `error` if it is not tagged.

    An answer never waits for the next line. Reading pauses while `POLICY.lines_per_stream` answers are not sent, or
    lines of `POLICY.bytes_per_stream` are in work. A stream that is not answered to its end has a last line with the
    reason: too many lines or bytes, nothing came for too long, or the server is ending.

    Args:
        service: Tags the lines.
        lines: The lines that are not blank, of `bodies.lines_of`, in lists of those that came together, which are
            answered together; it raises RefusedError where the stream has to end.
        caller: Who sends them.
        said: Mapping that gets the number of lines, and the code of the reason, for the log.
        request_id: Id of the request, for the log.
    """
    state, said = _Stream(service.turns.stream(caller.name), caller, request_id), {} if said is None else said
    coming: asyncio.Task[list[bytes] | RefusedError | None] | None = asyncio.ensure_future(_next(lines))

    def stop() -> None:
        state.ended = RefusedError(503, "draining", "the server is ending; send the other lines again")
        if coming:
            coming.cancel()

    service.draining.streams.add(stop)
    try:
        while coming or state.answers:
            takes = coming is not None and _may_read(state, service)
            watched: list[asyncio.Task[Any]] = [coming] if coming and takes else []
            watched += itertools.islice(state.answers, 1)
            idle = None if state.answers else service.limits.idle_seconds
            done, _ = await asyncio.wait(watched, timeout=idle, return_when=asyncio.FIRST_COMPLETED)
            ready = list[bytes]()
            while state.answers and state.answers[0].done():
                answered = state.answers.popleft().result()
                state.in_work -= len(answered)
                ready += map(_as_line, answered)
            if ready:
                yield b"".join(ready)
            if state.ended:
                coming = None
            elif coming and takes and coming.done():
                came, coming = coming.result(), None
                if isinstance(came, RefusedError):
                    state.ended = came
                elif came is not None:
                    state.lines += len(came)
                    state.in_work += len(came)
                    state.answers.append(asyncio.ensure_future(_held(state, service, came)))
                    coming = asyncio.ensure_future(_next(lines))
            elif coming and not done:
                message = f"no line came for {service.limits.idle_seconds:g} s"
                state.ended = RefusedError(408, "idle", message)
                coming.cancel()
                coming = None
        if state.ended:
            said["ended"] = state.ended.code
            yield _as_line(_failed(state.ended))
    finally:
        said["lines"] = state.lines
        service.draining.streams.discard(stop)
        for task in (*state.answers, *filter(None, [coming])):
            task.cancel()


def _may_read(state: _Stream, service: Service) -> bool:
    if not state.answers:
        return True
    return (
        state.in_work < POLICY.lines_per_stream
        and state.held < POLICY.bytes_per_stream
        and service.held.bytes < service.limits.held_bytes
    )


async def _held(state: _Stream, service: Service, lines: Sequence[bytes]) -> list[TextOut]:
    size = sum(map(len, lines))
    state.held += size
    service.held.bytes += size
    try:
        return await _answers(state, service, lines)
    finally:
        state.held -= size
        service.held.bytes -= size


async def _answers(state: _Stream, service: Service, lines: Sequence[bytes]) -> list[TextOut]:
    """Answers of lines, in their order; those that ask for the same are tagged together."""
    answers = dict[int, TextOut]()
    alike = defaultdict[object, dict[int, Work]](dict)
    for place, line in enumerate(lines):
        try:
            work = await _work(service, line, state.caller)
            alike[work.how.view, work.how.deadline_ms, work.given][place] = work
        except Exception as error:
            answers[place] = _refused(error, state.request)
        await asyncio.sleep(0)  # other requests go between the lines
    for part in await asyncio.gather(*(_tagged(state, service, works) for works in alike.values())):
        answers |= part
    return [answers[place] for place in range(len(lines))]


async def _work(service: Service, line: bytes, caller: Caller) -> Work:
    """What a line asks for, once the caller's rate allows it."""
    if len(line) > service.limits.line_bytes:
        raise RefusedError(413, "too_long", f"a line of more than {service.limits.line_bytes} bytes")

    def parse(raw: bytes) -> Work:
        streamed = StreamedText.model_validate_json(raw)
        text = streamed.text if streamed.text is not None else tuple(streamed.words or ())
        given = None if streamed.passages is None else [streamed.passages]
        return work_of([text], given, streamed, service.limits)

    work = await parsed(parse, line, service.limits)
    await _rate(caller, work, service.limits.timeout_ms / 1000)
    return work


async def _tagged(state: _Stream, service: Service, works: Mapping[int, Work]) -> dict[int, TextOut]:
    """Answers by place. If a replica fails at all of them, each is tried by itself: one may be the fault of all."""
    trace = Trace(request=state.request)
    try:
        answers = await service.answers(joined([*works.values()]), state.caller, trace, state.flow)
        service.meter.answered(*counts([answer for own in answers for answer in own]), trace.seconds)
        return {
            place: text_out(work.texts[0], own, work.how.return_passages)
            for (place, work), own in zip(works.items(), answers, strict=True)
        }
    except Exception as error:
        refused = _refused(error, state.request)
        if len(works) == 1 or refused.code in _WHOLE:
            return dict.fromkeys(works, refused)
    parts = await asyncio.gather(*(_tagged(state, service, {own: works[own]}) for own in works))
    return {place: answer for part in parts for place, answer in part.items()}


def _refused(error: Exception, request_id: str | None) -> TextOut:
    if isinstance(error, ValidationError):
        return _failed(invalid(error, StreamedText))
    if isinstance(error, RefusedError):
        return _failed(error)
    # The message may contain the caller's text, so only the error's type and place are logged.
    extra = {"request": request_id, "kind": type(error).__name__, "where": place_of(error)}
    logger.error("line failed", extra=extra)
    return _failed(RefusedError(500, "internal", "an error of the server's; see its log"))


async def _rate(caller: Caller, work: Work, most_seconds: float) -> None:
    """Wait until the caller's rate allows the line.

    Raises:
        RefusedError: That takes too long.
    """
    while caller.pieces is not None and (seconds := caller.pieces.take(work.size)) > 0:
        if seconds > most_seconds:
            raise RefusedError(429, "rate", "this key's rate of pieces is exceeded", retry_after=seconds)
        await asyncio.sleep(seconds)


def invalid(error: ValidationError, message: type[StreamedText | TagRequest]) -> RefusedError:
    """What is wrong with a body or a line that is not as described by the type of message."""
    text = explain(error, message)
    is_json = all(wrong["type"] != "json_invalid" for wrong in error.errors(include_input=False))
    return RefusedError(422, "invalid", text) if is_json else RefusedError(400, "not_json", text)


async def _next(lines: AsyncIterator[list[bytes]]) -> list[bytes] | RefusedError | None:
    try:
        return await anext(lines, None)
    except RefusedError as error:
        return error


def _failed(error: RefusedError) -> TextOut:
    return TextOut(entities=[], sentences=[], error=str(error), code=error.code)


def _as_line(text: TextOut) -> bytes:
    return text.model_dump_json(exclude_none=True).encode() + b"\n"
