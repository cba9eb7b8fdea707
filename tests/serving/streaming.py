"""Streams by hand, over a connection or without one, and lines for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from serving.admission import Caller
from serving.bodies import lines_of
from serving.service import Service
from serving.streams import stream

LINES = {"content-type": "application/x-ndjson"}
MIB = 1 << 20
HEAD = (
    b"POST /v1/tag/stream HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n"
    b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
)


class Connection:
    """HTTP by hand, as clients send the whole body before they read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer, self.body = reader, writer, b""

    @classmethod
    async def to(cls, url: str) -> Connection:
        own = cls(*await asyncio.open_connection(*url.removeprefix("http://").split(":")))
        own.writer.write(HEAD)
        return own

    async def send(self, body: bytes) -> None:
        self.writer.write(f"{len(body):x}\r\n".encode() + body + b"\r\n")
        await self.writer.drain()

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def line(self) -> dict[str, Any]:
        while b"\n" not in self.body:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            assert size, "the answer ended"
            self.body += (await self.reader.readexactly(size + 2))[:-2]
        own, self.body = self.body.split(b"\n", 1)
        return json.loads(own)

    async def rest(self) -> list[dict[str, Any]]:
        self.writer.write(b"0\r\n\r\n")
        found = []
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            if not size:
                return found + [json.loads(own) for own in self.body.splitlines()]
            self.body += (await self.reader.readexactly(size + 2))[:-2]


async def taken(url: str, piece: bytes, *, seconds: float = 3, most: int = 100 * MIB) -> int:
    """Send the same piece of a body over and over, and read nothing; how many bytes the server took."""
    connection, sent = await Connection.to(url), 0
    try:
        async with asyncio.timeout(seconds):
            while sent < most:
                await connection.send(piece)
                sent += len(piece)
    except (TimeoutError, ConnectionError):
        pass
    connection.writer.transport.abort()
    return sent


def line(text: str, **how: Any) -> bytes:
    return json.dumps({"text": text, "view": "plain", **how}).encode() + b"\n"


async def collected(service: Service, lines: list[bytes], caller: Caller | None = None) -> list[dict[str, Any]]:
    async def given() -> AsyncIterator[bytes]:
        for each in lines:
            yield each

    arguments = [caller] if caller else []
    parts = [part async for part in stream(service, lines_of(given(), service.limits), *arguments)]
    return [json.loads(answer) for answer in b"".join(parts).splitlines()]
