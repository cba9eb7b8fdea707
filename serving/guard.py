"""What holds for every request: its id, Host, key, rate, headers, the access log, and errors that nobody expected."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import urlsplit

from fastapi import Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.admission import Caller, Callers, refuse_rate
from serving.api import Problem
from serving.draining import Draining
from serving.errors import RefusedError, place_of
from serving.front import ID
from serving.service import Meter

logger = logging.getLogger("ray.serve")  # Ray Serve writes it as `logging_config` in serve.yaml says
_OPEN = {"/healthz", "/readyz", "/", "/page.css", "/page.js"}  # need no key: these paths show no caller's data
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


def problem(request_id: str, error: RefusedError) -> Response:
    """A response that describes an error as JSON."""
    headers = {"retry-after": str(max(1, round(error.retry_after)))} if error.retry_after is not None else {}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.code == "draining":
        headers["connection"] = "close"
    content = Problem(error=error.code, message=str(error), request_id=request_id)
    return JSONResponse(content.model_dump(), error.status, headers=headers)


class StreamedAnswer(StreamingResponse):
    """A response that is sent while the request's body is still being read.

    Starlette's StreamingResponse also receives the request's messages, to notice a disconnect, and so takes parts of
    the body from its reader. Here the reader notices a disconnect; after the body's end, few lines are left to answer.

    Args:
        content: The parts of the answer.
        entered: Context in which the answer is sent.
        idle_seconds: Time after which a client that does not read is let go.
    """

    def __init__(self, content: Any, entered: AbstractContextManager[None], idle_seconds: float) -> None:
        super().__init__(content, media_type="application/x-ndjson")
        self._entered, self._idle_seconds = entered, idle_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response without listening for a disconnect."""
        loop = asyncio.get_running_loop()

        async def sent(message: Message) -> None:
            clock.reschedule(loop.time() + self._idle_seconds)
            await send(message)
            clock.reschedule(None)

        try:
            with self._entered:
                async with asyncio.timeout(None) as clock:
                    await self.stream_response(sent)
        except TimeoutError:
            raise ClientDisconnect from None


class Guard:
    """Middleware for every request.

    Args:
        app: The application.
        callers: Who may send requests.
        meter: Receiver of counts.
        draining: Gets the number of open requests.
        hosts: Names by which a server without keys may be asked, besides those of this machine.
    """

    def __init__(
        self, app: ASGIApp, callers: Callers, meter: Meter, draining: Draining, hosts: Sequence[str] = ()
    ) -> None:
        self.app, self.callers, self.meter, self.draining = app, callers, meter, draining
        self.hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and log and count it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, headers, status = time.perf_counter(), Headers(scope=scope), 0
        given = headers.get("x-request-id", "")  # `serving.front` has checked it; Serve's proxies return it themselves
        request_id = given if ID.fullmatch(given) else uuid.uuid4().hex
        state: dict[str, Any] = scope.setdefault("state", {})
        state.update(id=request_id, said={}, caller=None)

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                if not given:
                    headers["x-request-id"] = request_id
                headers.setdefault("cache-control", "no-store")
            await send(message)

        self.draining.num_open += 1
        try:
            try:
                self._check_host(headers)
                state["caller"] = self._caller(scope["path"], headers)
                await self.app(scope, receive, sent)
            except RefusedError as error:
                if status:
                    raise
                await problem(request_id, error)(scope, receive, sent)
        except ClientDisconnect:
            status = 499  # nginx's code for a client that closed the connection; nobody reads an answer
        except asyncio.CancelledError:
            status = 499  # Serve cancels a request when its client is gone or its time is over
            raise
        except Exception as error:
            _log_failure(error, request_id)
            state["said"]["ended"] = "internal"
            if not status:
                refusal = RefusedError(500, "internal", "an error of the server's; see its log")
                await problem(request_id, refusal)(scope, receive, sent)
        finally:
            self.draining.num_open -= 1
            self.meter.requested(status)
            _log_access(scope, status, time.perf_counter() - started)

    def _caller(self, path: str, headers: Headers) -> Caller | None:
        """The caller; None where none is needed.

        Raises:
            RefusedError: The caller has no valid key or exceeds its rate of requests.
        """
        if self.callers.anyone is not None or path in _OPEN:
            return self.callers.anyone
        scheme, _, key = headers.get("authorization", "").partition(" ")
        caller = self.callers.of(key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", ""))
        if caller is None:
            raise RefusedError(401, "no_key", "wanted a valid key: Authorization: Bearer KEY")
        if caller.requests is not None:
            refuse_rate(caller.requests.take(), "requests")
        return caller

    def _check_host(self, headers: Headers) -> None:
        """Refuse what a web page asks through its reader's browser, if no key keeps it from reading the answer.

        A page's own host name may be made to point to 127.0.0.1 (DNS rebinding); then the browser sends that name.

        Raises:
            RefusedError: Host or Origin is not one of the server's.
        """
        if self.callers.anyone is None:
            return
        if not self._is_ours(headers.get("host", "")):
            message = "Host is none of this server's names; ask 127.0.0.1, or start with --set 'hosts=[NAME]'"
            raise RefusedError(403, "host", message)
        origin = headers.get("origin")
        if origin is not None and not self._is_ours(urlsplit(origin).netloc if "//" in origin else origin):
            raise RefusedError(403, "origin", "a page of another site may not ask this server")

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self.hosts or name == "localhost" or ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False


def _log_failure(error: Exception, request_id: str) -> None:
    # The message may contain the caller's text, so only the error's type and place are logged.
    extra = {"request": request_id, "kind": type(error).__name__, "where": place_of(error)}
    logger.error("request failed", extra=extra)


def _log_access(scope: Scope, status: int, seconds: float) -> None:
    state: Mapping[str, Any] = scope["state"]
    caller: Caller | None = state["caller"]
    logger.info(
        "access",
        extra={
            "request": state["id"],
            "caller": caller.name if caller else None,
            "method": scope["method"][:10],
            "path": scope["path"][:100],
            "status": status,
            "ms": round(1000 * seconds, 2),
            **state["said"],
        },
    )
