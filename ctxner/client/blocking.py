"""The client of a ctxner server for code without asyncio: `Client(url).tag("some text")`.

An `AsyncClient` of `ctxner.client.http` does the work, in a thread with an event loop. A stream calls its private
methods, because the caller's thread reads the lines.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import httpx2

from ctxner.client.http import CHUNKS_AT_ONCE, AsyncClient
from ctxner.client.messages import Chunks, GivenPassage, Reply, TextResult, View, Words, how_to

T = TypeVar("T")


class Client:
    """Client of a ctxner server; runs an `AsyncClient`, with the same arguments, in a separate thread."""

    def __init__(
        self,
        url: str | Sequence[str],
        key: str | None = None,
        *,
        timeout: float = 30,
        retries: int = 4,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._own = AsyncClient(url, key, timeout=timeout, retries=retries, transport=transport)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="ctxner-client", daemon=True).start()
        self._stop = weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and end the thread."""
        if self._stop.alive:
            self._run(self._own.close())
            self._stop()

    def tag(
        self,
        texts: str | Sequence[str] | Sequence[Words],
        *,
        view: View = "auto",
        deadline_ms: float | None = None,
        return_passages: bool = False,
        passages: Sequence[GivenPassage] | Sequence[Sequence[GivenPassage]] | None = None,
    ) -> Reply:
        """See `AsyncClient.tag`."""
        return self._run(
            self._own.tag(texts, view=view, deadline_ms=deadline_ms, return_passages=return_passages, passages=passages)
        )

    def stream(
        self,
        lines: Iterable[str | Words],
        *,
        view: View = "auto",
        deadline_ms: float | None = None,
        return_passages: bool = False,
    ) -> Iterator[TextResult]:
        """See `AsyncClient.stream`; `lines` are read in the caller's thread."""
        asynchronous = self._own
        chunks = Chunks(how_to(view, deadline_ms, return_passages), self._run(asynchronous._lines_a_chunk()))
        sent = deque[Any]()
        try:
            for line in lines:
                if chunk := chunks.add(line):
                    sent.append(self._start(asynchronous._chunk(chunk)))
                if len(sent) == CHUNKS_AT_ONCE:
                    yield from sent[0].result()
                    sent.popleft()
            if chunk := chunks.rest():
                sent.append(self._start(asynchronous._chunk(chunk)))
            while sent:
                yield from sent[0].result()
                sent.popleft()
        finally:
            for future in sent:
                future.cancel()

    def models(self) -> dict[str, Any]:
        """See `AsyncClient.models`."""
        return self._run(self._own.models())

    def _start(self, work: Coroutine[Any, Any, T]) -> Any:
        if not self._stop.alive:
            work.close()
            raise RuntimeError("this client is closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = self._start(work)
        try:
            return future.result()
        finally:
            future.cancel()  # a no-op unless the caller was interrupted
