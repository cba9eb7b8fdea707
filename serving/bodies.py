"""Reads request bodies within limits of bytes, values and time, and parses large ones beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.requests import Request

from serving.errors import RefusedError
from serving.policy import POLICY
from serving.settings import Limits

_LARGE_BYTES = 1 << 15  # smaller bodies are parsed within a few milliseconds
_FREE_VALUES = 1000
_MARKS = (b",", b":", b"[", b"{")  # before or after each value
_thread = ThreadPoolExecutor(1, "parse")  # one: a second large body waits, and the event loop goes on between both
T = TypeVar("T")


class Held:
    """Bytes of bodies and of lines that are in memory, over all requests of a router."""

    def __init__(self, most: int) -> None:
        self.bytes, self._most = 0, most

    def add(self, num: int) -> None:
        """Add bytes.

        Raises:
            RefusedError: Too many bytes are held.
        """
        if self.bytes + num > self._most:
            raise RefusedError(503, "overload", "too many bytes of requests are held; try again later", retry_after=1)
        self.bytes += num


def check_type(request: Request, wanted: set[str]) -> None:
    """Refuse a body that is compressed or of another content type."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in wanted:
        raise RefusedError(415, "content_type", f"content-type is not {' or '.join(sorted(wanted))}")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RefusedError(415, "content_encoding", "compressed bodies are not taken")


async def read_body(request: Request, limits: Limits, held: Held) -> bytes:
    """The body; the caller gives its bytes back to `held`.

    Raises:
        RefusedError: The body is too long, too slow, or one too many.
    """
    too_long = RefusedError(413, "too_long", f"a body of more than {limits.body_bytes} bytes")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and len(length) < 20 and int(length) > limits.body_bytes:
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                if len(body) + len(part) > limits.body_bytes:
                    raise too_long
                held.add(len(part))
                body += part
    except BaseException as error:
        held.bytes -= len(body)
        if isinstance(error, TimeoutError):
            message = f"the body did not come within {limits.body_seconds:g} s; send it faster or in parts"
            raise RefusedError(408, "slow_body", message) from None
        raise
    return bytes(body)


async def lines_of(parts: AsyncIterator[bytes], limits: Limits) -> AsyncIterator[list[bytes]]:
    """The lines of a body that are not blank, in lists of those that came together, `POLICY.lines_at_once` at most.

    Of a line that is too long only one byte more than the limit comes.

    Raises:
        RefusedError: The body has too many bytes or lines, with those that are skipped.
    """
    most, num_bytes, num_lines = limits.line_bytes, 0, 0
    rest, skipping, lines = bytearray(), False, list[bytes]()
    async for part in parts:
        num_bytes += len(part)
        num_lines += part.count(b"\n")
        if num_bytes > limits.stream_bytes:
            raise RefusedError(413, "too_long", f"a stream of more than {limits.stream_bytes} bytes")
        if part.isspace() and not rest and not skipping:
            if num_lines > limits.lines:
                raise _too_many_lines(limits)
            continue
        allowed = limits.lines - num_lines + part.count(b"\n")  # of the lines in this part
        start = 0
        while (end := part.find(b"\n", start)) >= 0 and (allowed := allowed - 1) >= 0:
            line = bytes(rest + part[start:end])[: most + 1]
            if not skipping and line and not line.isspace():
                lines.append(line)
            if len(lines) == POLICY.lines_at_once:
                yield lines
                lines = []
            rest.clear()
            start, skipping = end + 1, False
        if allowed >= 0 and not skipping:
            rest += part[start:]
        if len(rest) > most:
            lines.append(bytes(rest[: most + 1]))
            rest.clear()
            skipping = True
        if lines:
            yield lines
            lines = []
        if allowed < 0:
            raise _too_many_lines(limits)
    if rest and not rest.isspace():
        if num_lines >= limits.lines:
            raise _too_many_lines(limits)
        yield [bytes(rest)]


def _too_many_lines(limits: Limits) -> RefusedError:
    return RefusedError(413, "too_many_lines", f"more than {limits.lines} lines")


async def parsed(parse: Callable[[bytes], T], raw: bytes, limits: Limits) -> T:
    """What `parse` makes of a body or a line; a large one is parsed in a thread.

    Raises:
        RefusedError: There are more values in it than can be answered. They are counted before they are parsed, as two
            million one-element lists take seconds and hundreds of MiB. These marks count in texts as well;
            each of them is a piece for the model, too.
    """
    most = 2 * limits.pieces + _FREE_VALUES
    if len(raw) > most and (num := sum(map(raw.count, _MARKS))) > most:
        raise RefusedError(413, "too_many_values", f"{num} commas, colons and opening brackets, at most {most}")
    if len(raw) < _LARGE_BYTES:
        return parse(raw)
    return await asyncio.get_running_loop().run_in_executor(_thread, parse, raw)
