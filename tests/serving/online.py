"""A service of `conftest` behind a real port, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.responses import PlainTextResponse

from serving.service import Service
from serving.web import make_app
from tests.serving.conftest import make_service, run


@contextmanager
def online(app: Any, *, force_exit: bool = False) -> Iterator[str]:
    """The address of an ASGI application, while it is served.

    Args:
        app: The application.
        force_exit: Whether the end does not wait for open requests, where a test leaves some that take long.
    """
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive(), "the server ended"
        assert time.monotonic() < until, "the server does not start"
        time.sleep(0.01)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit, server.force_exit = True, force_exit
        thread.join(10)


async def opened(url: str, sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to it, on which something was sent."""
    reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
    writer.write(sent)
    return reader, writer


def drained(local: Any, work: Callable[[str, Service], Awaitable[Any]], **limits: Any) -> Any:
    """What `work` makes of a service's address and the service, which drains where `/drain?SECONDS` is asked for."""
    service = make_service(local.routing(), **limits)
    app = make_app(service)

    async def with_drain(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/drain":
            await app(scope, receive, send)
            return
        num = await service.draining.drain(float(scope["query_string"]))
        await PlainTextResponse(str(num))(scope, receive, send)

    with online(with_drain) as url:
        return run(lambda: work(url, service))
