"""Hostile requests of the kinds that `docs/security.md` lists, one at a time, for the soak.

They come from another address of this machine than the usual clients, as connections are bounded per address. Each
attack returns what the server said: a status, `closed`, or what a stream's last line had as `code`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

KEY = ContextVar("key", default="")  # sent with each attack; empty: none
_ADDRESS = "127.0.0.2"  # Linux answers for all of 127.0.0.0/8
_SECONDS = 90.0  # the longest bound of the server is 60 s
_MIB = 1 << 20

Attack = Callable[[int], Awaitable[str]]


async def half_a_head(port: int) -> str:
    """Headers that never end."""
    return await _sent(port, b"POST /v1/tag HTTP/1.1\r\nhost: loc")


async def nothing(port: int) -> str:
    """A connection that sends nothing."""
    return await _sent(port, b"")


async def stalled_body(port: int) -> str:
    """A body that never ends."""
    return await _sent(port, _head("/v1/tag", 99) + b"{")


async def stalled_stream(port: int) -> str:
    """A stream of which nothing comes."""
    return await _sent(port, _head("/v1/tag/stream", 99, "application/x-ndjson"))


async def invented_method(port: int) -> str:
    """A method that HTTP does not have."""
    return await _sent(port, _head("/v1/pot", 0, method="BREW"))


async def foreign_host(port: int) -> str:
    """What a browser sends for a page that had its name point to this machine."""
    head = _head("/v1/models", 0, method="GET")
    return await _sent(port, head.replace(b"host: localhost", b"host: evil.example\r\norigin: http://evil.example"))


async def rows_of_ones(port: int) -> str:
    """Two million values of a wrong type in 4 MiB."""
    return await _post(port, b'{"sentences":[[' + b"1," * (2 * _MIB - 100) + b"1]]}")


async def too_long(port: int) -> str:
    """A body of 5 MiB."""
    return await _post(port, b'{"texts":["' + b"x" * (5 * _MIB) + b'"]}')


async def dots(port: int) -> str:
    """Few words, 100,000 pieces."""
    return await _post(port, json.dumps({"texts": ["a." * 50_000]}).encode())


async def deep(port: int) -> str:
    """Brackets within brackets."""
    return await _post(port, b'{"texts":' + b"[" * 500_000)


async def not_numbers(port: int) -> str:
    """NaN where a number is wanted."""
    return await _post(port, b'{"texts":["London"],"deadline_ms":NaN}')


async def half_a_pair(port: int) -> str:
    """Half of a pair of surrogates."""
    return await _post(port, b'{"texts":["\\ud800"]}')


async def blank_lines(port: int) -> str:
    """Four million blank lines."""
    return await _post(port, b"\n" * (4 * _MIB), "/v1/tag/stream", "application/x-ndjson")


async def unread_stream(port: int) -> str:
    """A stream whose answers nobody reads."""
    line = b'{"text":"London","view":"plain"}\n'
    head = _head("/v1/tag/stream", 1 << 30, "application/x-ndjson")
    return await _sent(port, head, again=line * 2000)


async def endless_body(port: int) -> str:
    """A body without end to a path that does not exist."""
    return await _sent(port, _head("/v1/nothing", 1 << 40), again=b"x" * 65536)


ATTACKS: tuple[Attack, ...] = (
    *(half_a_head, nothing, stalled_body, stalled_stream, invented_method, foreign_host, rows_of_ones),
    *(too_long, dots, deep, not_numbers, half_a_pair, blank_lines, unread_stream, endless_body),
)


def _head(path: str, length: int, kind: str = "application/json", method: str = "POST") -> bytes:
    key = f"authorization: Bearer {KEY.get()}\r\n" if KEY.get() else ""
    sizes = f"content-type: {kind}\r\ncontent-length: {length}\r\n"
    return f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n{key}{sizes}\r\n".encode()


async def _post(port: int, body: bytes, path: str = "/v1/tag", kind: str = "application/json") -> str:
    return await _sent(port, _head(path, len(body), kind) + body)


async def _sent(port: int, sent: bytes, *, again: bytes = b"") -> str:
    """Send, and wait until the server answers or closes the connection; or send more and more, and read nothing."""
    answer, writer = b"", None
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(_ADDRESS, 0))
            writer.write(sent if again else b"")
            while again:
                writer.write(again)
                await writer.drain()
            sending = asyncio.ensure_future(_send(writer, sent))
            try:
                answer = await reader.read(2000)
                while b"200 OK" in answer[:20] and b'"code"' not in answer and (part := await reader.read(2000)):
                    answer = answer[:20] + part  # the last line says why a stream ends
            finally:
                sending.cancel()
    except TimeoutError:
        return "still open"
    except OSError:
        return "closed"
    finally:
        if writer is not None:
            writer.transport.abort()
    if code := re.search(rb'"code":"(\w+)"', answer):
        return code[1].decode()
    return answer[9:12].decode("latin-1") or "closed"


async def _send(writer: asyncio.StreamWriter, sent: bytes) -> None:
    with contextlib.suppress(OSError):
        writer.write(sent)
        await writer.drain()
