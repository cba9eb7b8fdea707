"""What stands before Ray Serve's HTTP servers, in their processes: in its proxies, or in the routers behind HAProxy.

Serve calls `middlewares` where RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names it; `ctxner serve` sets that variable.
It bounds what Serve does not: the time of headers, connections per address, how far a stream is read ahead and how far
it is answered ahead of its reader, and how much is taken of a body after its answer. It ends a request whose client is
gone, also while its body is not read on.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import uuid
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, ClassVar

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn import config
from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEADER_SECONDS = 10.0  # from a connection's begin, or from a request's first byte, until the headers are there
CONNECTIONS = 256  # per address
CONNECTIONS_VARIABLE = "CTXNER_CONNECTIONS_PER_ADDRESS"
# Of answers that nobody reads, in each of the server's buffers. Left to itself the kernel takes megabytes in each, and
# one unread stream keeps all replicas busy for minutes.
UNREAD_BYTES = 1 << 14
UNREAD_VARIABLE = "CTXNER_UNREAD_BYTES"
_LINGER_SECONDS = 2.0  # between an answer and its connection's end, for a client that still sends
_GONE_SECONDS = 1.0  # between two looks at whether a connection's other end is gone
_CLOSED = 7  # TCP_CLOSE in Linux' include/net/tcp_states.h: the other end has reset the connection
_STREAM = "/v1/tag/stream"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")  # others are no labels of metrics
ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")  # of a request, as clients may give it
# Headers by which clients would steer Serve: its time-outs, and labels of its metrics.
_STEERING = {b"x-request-timeout-seconds", b"x-request-disconnect-disabled", b"serve-multiplexed-model-id"}
_WINDOW_BYTES = 1 << 20
_PAUSE_SECONDS = 0.01  # after a part without a line to answer, as nothing says when it was read


def middlewares() -> list[Middleware]:
    """Called by Serve in each process with an HTTP server, before the server starts."""
    config.HTTP_PROTOCOLS["auto"] = f"{__name__}:BoundedProtocol"
    return [Middleware(Front)]


def _most_connections() -> int:
    """Connections per address; behind HAProxy, which has this limit itself, all connections come from it."""
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1":
        return 1 << 30
    return int(os.environ.get(CONNECTIONS_VARIABLE, CONNECTIONS))


class BoundedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Uvicorn's connection, closed when it is one too many of its address or when its headers come too slowly."""

    header_seconds: ClassVar[float] = HEADER_SECONDS
    _open: ClassVar[Counter[str]] = Counter()
    _clock: asyncio.TimerHandle | None = None
    _look: asyncio.TimerHandle | None = None
    _address = ""

    def connection_made(self, transport: Any) -> None:
        """Count a connection, bound what it holds of an answer, and wait for its first request."""
        super().connection_made(transport)
        unread = int(os.environ.get(UNREAD_VARIABLE, UNREAD_BYTES))
        transport.set_write_buffer_limits(high=unread)
        if (opened := transport.get_extra_info("socket")) is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, unread)
        self._address = str((transport.get_extra_info("peername") or [""])[0])
        self._open[self._address] += 1
        if self._open[self._address] > _most_connections():
            transport.abort()
            return
        self._start_clock()
        self._look_after_client()

    def data_received(self, data: bytes) -> None:
        """Stop the clock while a request is in work, and start it at the next one's first byte."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_clock()
        elif self._clock is None:
            self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._stop_clock()
        if self._look is not None:
            self._look.cancel()
        self._open[self._address] -= 1
        if self._open[self._address] <= 0:
            del self._open[self._address]
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """End the connection of a request whose body was not read to its end, instead of taking the rest of it."""
        super().on_response_complete()
        if not self.cycle.response_complete or not self.cycle.more_body or self.transport.is_closing():
            return
        # Reset at once, the connection would take the answer with it (RFC 9112, section 9.6).
        self.flow.pause_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, or of a method that Uvicorn does not know, and close the connection."""
        body = _problem("bad_request", "not a request that this server understands", "-")
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        self.transport.close()

    def _look_after_client(self) -> None:
        """End a request whose client is gone. While its body is not read on, nothing else says so."""
        opened = self.transport.get_extra_info("socket")
        if opened is None or not hasattr(socket, "TCP_INFO"):
            return
        if opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _CLOSED:
            self.transport.abort()
            return
        self._look = self.loop.call_later(_GONE_SECONDS, self._look_after_client)

    def _start_clock(self) -> None:
        self._clock = self.loop.call_later(self.header_seconds, self.transport.abort)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None


class Front:
    """Middleware before Serve's own code: checks a request's id once, and gives Serve's errors our form."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = [value for name, value in scope["headers"] if name == b"x-request-id"]
        is_given = len(given) == 1 and ID.fullmatch(given[0].decode("latin-1"))
        request_id = given[0] if is_given else uuid.uuid4().hex.encode()
        headers = [
            (name, value)
            for name, value in scope["headers"]
            if name != b"x-request-id" and name.replace(b"_", b"-") not in _STEERING
        ]
        headers.append((b"x-request-id", request_id))
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in headers}:
            await _refuse_two_lengths(send, request_id)
            return
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        body = _Body(receive, send, headers)
        receive, send = body.receive, _OneShape(body.send, request_id.decode())
        if scope["path"].endswith(_STREAM):
            headers.append((b"x-request-timeout-seconds", b"0"))  # a stream has a bound on idleness, in `streams`
            window = Window(receive, send)
            receive, send = window.receive, window.send
        await self.app({**scope, "headers": headers, "method": method}, receive, send)


async def _refuse_two_lengths(send: Send, request_id: bytes) -> None:
    """Answer a request that a proxy may have ended elsewhere, and close its connection, so that no rest is a request.

    Uvicorn's parser refuses it itself if httptools is installed; h11 reads on.
    """
    body = _problem("bad_request", "wanted Content-Length or Transfer-Encoding, not both", request_id.decode())
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"connection", b"close"), (b"x-request-id", request_id)]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Body:
    """Whether a request's body was read; an error sent before says that the connection ends, as the rest is not."""

    def __init__(self, receive: Receive, send: Send, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._receive, self._send = receive, send
        given = dict(headers)
        self._is_read = b"transfer-encoding" not in given and given.get(b"content-length", b"0") == b"0"

    async def receive(self) -> Message:
        """The next part of the body."""
        message = await self._receive()
        self._is_read = self._is_read or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start" and message["status"] >= 400 and not self._is_read:
            others = [(name, value) for name, value in message["headers"] if name.lower() != b"connection"]
            message = {**message, "headers": [*others, (b"connection", b"close")]}
        await self._send(message)


class _OneShape:
    """Sends a response; an error that is not JSON, which is Serve's own, is replaced by one as in `serving.api`."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._id, self._is_replaced = send, request_id, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            kept = {name.lower(): value for name, value in message["headers"]}
            if not kept.get(b"content-type", b"").startswith(b"application/json"):
                self._is_replaced = True
                code = {408: "timeout", 503: "overload", 499: "disconnected"}.get(message["status"], "serve")
                body = _problem(code, "the server did not answer this request", self._id)
                headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
                headers += [(name, kept[name]) for name in (b"retry-after", b"x-request-id") if name in kept]
                await self._send({**message, "headers": headers})
                await self._send({"type": "http.response.body", "body": body})
                return
        if not self._is_replaced:
            await self._send(message)


class Window:
    """Reads a stream's body only as far ahead as its lines are answered: Serve itself would read all of it at once."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._lines = self._answered = self._bytes = 0
        self._parts = deque[tuple[int, int]]()  # not answered: the number of lines up to a part's end, its bytes
        self._in_line = self._ended = False
        self._moved = asyncio.Event()

    async def receive(self) -> Message:
        """The next part of the body, once enough of those before are answered."""
        while self._bytes > _WINDOW_BYTES and not self._ended:
            self._moved.clear()
            await self._moved.wait()
        message = await self._receive()
        if message["type"] == "http.request" and (body := message.get("body", b"")):
            self._count(body)
            if self._lines > self._answered:
                self._parts.append((self._lines, len(body)))
                self._bytes += len(body)
            elif message.get("more_body"):
                await asyncio.sleep(_PAUSE_SECONDS)
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer; its lines are then answered."""
        await self._send(message)
        if message["type"] == "http.response.body":
            self._answered += message.get("body", b"").count(b"\n")
            self._ended = not message.get("more_body", False)
            while self._parts and self._parts[0][0] <= self._answered:
                self._bytes -= self._parts.popleft()[1]
            self._moved.set()

    def _count(self, body: bytes) -> None:
        """Count the lines that end in this part and are not blank."""
        *ended, rest = body.split(b"\n")
        for line in ended:
            self._lines += self._in_line or bool(line.strip())
            self._in_line = False
        self._in_line = self._in_line or bool(rest.strip())


def _problem(code: str, message: str, request_id: str) -> bytes:
    """The body of an error, as `serving.api.Problem` describes it."""
    return json.dumps({"error": code, "message": message, "request_id": request_id}).encode()
