"""`/v1/tag/stream`: lines of a body become lines of the answer, in order, and no faster than they are answered."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator
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
from serving.work import Work, text_out, work_of

logger = logging.getLogger("ray.serve")


@dataclass(slots=True)
class _Stream:
    """What has come of a stream, and what is in work; the lines take turns as parts of its flow."""

    flow: Flow
    lines: int = 0
    held: int = 0  # bytes of the lines in work
    ended: RefusedError | None = None
    answers: deque[asyncio.Task[TextOut]] = field(default_factory=deque)


async def stream(
    service: Service, lines: AsyncIterator[bytes], caller: Caller = ANYONE, said: dict[str, Any] | None = None
) -> AsyncIterator[bytes]:
    """Parts of the answer: a JSON line per input line, in order; with `error` if it is not tagged.

    An answer never waits for the next line. Reading pauses while `POLICY.lines_per_stream` answers are not sent, or
    lines of `POLICY.bytes_per_stream` are in work. A stream that is not answered to its end has a last line with the
    reason: too many lines or bytes, nothing came for too long, or the server is ending.

    Args:
        service: Tags the lines.
        lines: The lines that are not blank, of `bodies.lines_of`; it raises RefusedError where the stream has to end.
        caller: Who sends them.
        said: Mapping that gets the number of lines, and the code of the reason, for the log.
    """
    state, said = _Stream(service.turns.stream(caller.name)), {} if said is None else said
    coming: asyncio.Task[bytes | RefusedError | None] | None = asyncio.ensure_future(_next(lines))

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
                ready.append(_as_line(state.answers.popleft().result()))
            if ready:
                yield b"".join(ready)
            if state.ended:
                coming = None
            elif coming and takes and coming.done():
                line, coming = coming.result(), None
                if isinstance(line, RefusedError):
                    state.ended = line
                elif line is not None:
                    state.lines += 1
                    state.answers.append(asyncio.ensure_future(_held(state, service, line, caller)))
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
        len(state.answers) < POLICY.lines_per_stream
        and state.held < POLICY.bytes_per_stream
        and service.held.bytes < service.limits.held_bytes
    )


async def _held(state: _Stream, service: Service, line: bytes, caller: Caller) -> TextOut:
    state.held += len(line)
    service.held.bytes += len(line)
    try:
        return await _answer(service, line, caller, state.flow)
    finally:
        state.held -= len(line)
        service.held.bytes -= len(line)


async def _answer(service: Service, line: bytes, caller: Caller, flow: Flow) -> TextOut:
    try:
        if len(line) > service.limits.line_bytes:
            raise RefusedError(413, "too_long", f"a line of more than {service.limits.line_bytes} bytes")

        def parse(raw: bytes) -> tuple[StreamedText, Work]:
            streamed = StreamedText.model_validate_json(raw)
            text = streamed.text if streamed.text is not None else tuple(streamed.words or ())
            given = None if streamed.passages is None else [streamed.passages]
            return streamed, work_of([text], given, streamed, service.limits)

        streamed, work = await parsed(parse, line, service.limits)
        await _rate(caller, work, service.limits.timeout_ms / 1000)
        trace = Trace()
        (answers,) = await service.answers(work, caller, trace, flow)
        service.meter.answered(*counts(answers), trace.seconds)
        return text_out(work.texts[0], answers, streamed.return_passages)
    except ValidationError as error:
        return _failed(invalid(error, StreamedText))
    except RefusedError as error:
        return _failed(error)
    except Exception as error:
        # The message may contain the caller's text, so only the error's type and place are logged.
        logger.error("line failed", extra={"kind": type(error).__name__, "where": place_of(error)})
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


async def _next(lines: AsyncIterator[bytes]) -> bytes | RefusedError | None:
    try:
        return await anext(lines, None)
    except RefusedError as error:
        return error


def _failed(error: RefusedError) -> TextOut:
    return TextOut(entities=[], sentences=[], error=str(error), code=error.code)


def _as_line(text: TextOut) -> bytes:
    return text.model_dump_json(exclude_none=True).encode() + b"\n"
