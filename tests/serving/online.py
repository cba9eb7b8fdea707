"""A service of `conftest` behind a real port, in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn


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
