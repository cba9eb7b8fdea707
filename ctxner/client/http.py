"""The client of a ctxner server for asyncio: `await AsyncClient(url).tag("some text")`.

Of ctxner it needs only `ctxner.client.messages`, the typed messages. Errors and logs contain neither texts nor keys.
`ctxner.client.blocking` has the same methods without asyncio.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

import httpx2

from ctxner.client.messages import (
    CHUNK_LINES,
    Answer,
    Chunk,
    Chunks,
    ClientError,
    GivenPassage,
    Reply,
    TextResult,
    View,
    Words,
    failure,
    how_to,
    parsed,
    reply,
    results_of,
    tag_body,
)

T = TypeVar("T")
CHUNKS_AT_ONCE = 2  # per stream: one is answered while the next one is sent
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 10.0  # seconds: longest first back-off, longest back-off of all
_CONNECT_SECONDS = 5.0  # per attempt
_KEY = re.compile(r"[!-~]+")
# A host that is gone closes no connection. The kernel asks it whether it is there, however long an answer takes.
_KEEPALIVE = {"TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 5000}  # s, s, probes, ms


class AsyncClient:
    """Client of a ctxner server, for asyncio.

    Args:
        url: Address of the server, e.g. `http://localhost:8000`; with its path prefix, if it has one. Of several
            addresses of the same server, e.g. one per node of a cluster, one is used until it fails, then the next.
        key: API key, if the server wants one.
        timeout: Seconds per call, including waits between attempts; for a stream, seconds per chunk of lines.
        retries: Number of further attempts when the server is overloaded (503, 429) or cannot be reached.
        transport: Replacement for the network, for tests.

    Raises:
        ValueError: `url` has no http(s) scheme, or `key` has other characters than printable ASCII.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        key: str | None = None,
        *,
        timeout: float = 30,
        retries: int = 4,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        urls = [url] if isinstance(url, str) else list(url)
        if not urls or not all(one.startswith(("http://", "https://")) for one in urls):
            raise ValueError("url does not start with http:// or https://")
        if key is not None and not _KEY.fullmatch(key):
            raise ValueError("the key has other characters than printable ASCII; wanted it as `ctxner api-key` gave it")
        self.timeout, self.retries, self._most_lines = timeout, retries, 0
        self._urls = [f"{one.rstrip('/')}/" for one in urls]
        self._current = random.randrange(len(urls))  # noqa: S311 - spreads clients over the addresses
        if transport is None and len(urls) > 1:
            transport = httpx2.AsyncHTTPTransport(socket_options=_keepalive())
        self._http = httpx2.AsyncClient(
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(None, connect=_CONNECT_SECONDS),  # `_call` limits the whole call
            transport=transport,
        )

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def tag(
        self,
        texts: str | Sequence[str] | Sequence[Words],
        *,
        view: View = "auto",
        deadline_ms: float | None = None,
        return_passages: bool = False,
        passages: Sequence[GivenPassage] | Sequence[Sequence[GivenPassage]] | None = None,
    ) -> Reply:
        """Find the entities of texts.

        Args:
            texts: One text, several texts, or several sentences that are split into words. For long lists use `stream`.
            view: View that answers; `auto` looks up only the sentences of which the plain view is unsure.
            deadline_ms: Milliseconds within which the server must answer; None: the server's limit.
            return_passages: Whether the answer contains the passages of each sentence.
            passages: Documents, best first, that replace retrieved passages: one list of documents for one text, or
                one list per text for several texts.

        Raises:
            ClientError: The server gave no usable answer.
            ValueError: No texts, a lone surrogate, texts mixed with word lists, or not one passage list per text.
        """
        body = tag_body(texts, passages, how_to(view, deadline_ms, return_passages))
        return parsed(reply, await self._call("POST", "v1/tag", body, "application/json"))

    async def stream(
        self,
        lines: Iterable[str | Words] | AsyncIterable[str | Words],
        *,
        view: View = "auto",
        deadline_ms: float | None = None,
        return_passages: bool = False,
    ) -> AsyncIterator[TextResult]:
        """Find the entities of any number of texts, in order; memory holds a few hundred lines at a time.

        Args:
            lines: Texts, or sentences that are split into words; read as answers are taken.
            view: View that answers, as in `tag`.
            deadline_ms: Milliseconds within which the server must answer each line; None: the server's limit.
            return_passages: Whether the answers contain the passages of each sentence.

        Raises:
            ClientError: No usable answer to a chunk of lines. A line that cannot be tagged gives a result with `error`.
            ValueError: A lone surrogate in a line.
        """
        chunks = Chunks(how_to(view, deadline_ms, return_passages), await self._lines_a_chunk())
        sent = deque[asyncio.Task[list[TextResult]]]()
        try:
            async with aclosing(_iterated(lines)) as stream:
                async for line in stream:
                    if chunk := chunks.add(line):
                        sent.append(asyncio.ensure_future(self._chunk(chunk)))
                    if len(sent) == CHUNKS_AT_ONCE:
                        for result in await sent.popleft():
                            yield result
            if chunk := chunks.rest():
                sent.append(asyncio.ensure_future(self._chunk(chunk)))
            while sent:
                for result in await sent.popleft():
                    yield result
        finally:
            for task in sent:
                task.cancel()

    async def models(self) -> dict[str, Any]:
        """The models, the index, the threshold and the limits of the server.

        Raises:
            ClientError: The server gave no usable answer.
        """
        return parsed(dict, await self._call("GET", "v1/models"))

    async def _lines_a_chunk(self) -> int:
        """Largest number of lines per chunk; the server's limit per stream may be below the client's."""
        if not self._most_lines:
            limits = (await self.models()).get("limits") or {}
            self._most_lines = min(CHUNK_LINES, int(limits.get("lines") or CHUNK_LINES))
        return self._most_lines

    async def _chunk(self, chunk: Chunk) -> list[TextResult]:
        answer = await self._call("POST", "v1/tag/stream", chunk.body, "application/x-ndjson")
        return parsed(partial(results_of, chunk), answer, is_lines=True)

    async def _call(self, method: str, path: str, body: bytes = b"", content_type: str = "") -> Answer:
        """The server's answer, after as many attempts as `retries` and `timeout` allow."""
        clock = asyncio.get_running_loop().time
        until, attempt = clock() + self.timeout, 0
        while True:
            address = self._current
            try:
                async with asyncio.timeout_at(until):
                    return await self._attempt(method, self._urls[address] + path, body, content_type)
            except TimeoutError:
                raise ClientError(None, "timeout", f"no answer within {self.timeout:g} s") from None
            except _RetryableError as error:
                if self._current == address:  # else another call has gone on already
                    self._current = (address + 1) % len(self._urls)
                is_lost = error.reason.code == "connection"
                at_once = is_lost and attempt + 1 < len(self._urls)  # the next address may answer
                wait = 0.0 if at_once else _wait(attempt, error.reason.retry_after, until - clock())
                if attempt == self.retries or wait is None:
                    raise error.reason from None
                attempt += 1
                await asyncio.sleep(wait)

    async def _attempt(self, method: str, url: str, body: bytes, content_type: str) -> Answer:
        headers = {"content-type": content_type} if content_type else {}
        try:
            request = self._http.build_request(method, url, content=body or None, headers=headers)
            response = await self._http.send(request, stream=True)
        except httpx2.TransportError as error:
            raise _RetryableError(_lost(error)) from None
        try:
            await response.aread()
        except httpx2.TransportError as error:
            if len(self._urls) > 1:  # tagging again changes nothing
                raise _RetryableError(_lost(error)) from None
            raise _lost(error) from None
        finally:
            await response.aclose()
        if response.is_success:
            return Answer(response.status_code, response.content, response.headers.get("x-request-id"))
        refusal = failure(response.status_code, response.content, response.headers)
        raise _RetryableError(refusal) if refusal.status in (429, 503) else refusal


class _RetryableError(Exception):
    """An attempt failed, but another one may succeed."""

    def __init__(self, reason: ClientError) -> None:
        super().__init__()
        self.reason = reason


async def _iterated(lines: Iterable[T] | AsyncIterable[T]) -> AsyncGenerator[T, None]:
    if isinstance(lines, AsyncIterable):
        async for line in lines:
            yield line
    else:
        for line in lines:
            yield line


def _wait(attempt: int, retry_after: float | None, left: float) -> float | None:
    """Seconds before the next attempt: the server's Retry-After plus a back-off with full jitter; None: no time left.

    Source: Brooker, "Exponential backoff and jitter", AWS Architecture Blog (2015).
    """
    most = min(_LONGEST_WAIT, _FIRST_WAIT * 2**attempt)
    wait = (retry_after or 0.0) + random.uniform(0, most)  # noqa: S311 - not a secret
    return wait if wait < left else None


def _keepalive() -> list[tuple[int, int, int]]:
    """Options of a socket that finds out within 5 s that the other host is gone; those that this system knows."""
    known = [(getattr(socket, name), value) for name, value in _KEEPALIVE.items() if hasattr(socket, name)]
    return [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *((socket.IPPROTO_TCP, *option) for option in known)]


def _lost(error: httpx2.TransportError) -> ClientError:
    kind = "the connection broke" if isinstance(error, httpx2.ReadError | httpx2.WriteError) else "no connection"
    return ClientError(None, "connection", f"{kind}: {type(error).__name__}")
