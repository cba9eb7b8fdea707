"""A load generator that costs little itself: requests over kept-alive connections, in a closed or an open loop.

`locustfile.py` is for people; this one is for benchmarks on machines where the generator shares the server's cores.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Load:
    """What came of requests.

    Attributes:
        seconds: The run's.
        latencies: In seconds, of the requests that were answered with 200, by arrival.
        bodies: Their answers, where kept.
        statuses: Of all requests; 0 where the connection was lost.
        refused: Latencies of other statuses.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    bodies: list[tuple[int, bytes]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    refused: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """Throughput of what was answered, and percentiles in ms."""
        found: dict[str, Any] = {"per_second": round(len(self.latencies) / self.seconds, 1)}
        for name, latencies in (("", self.latencies), ("refused_", self.refused)):
            if latencies:
                ranked = sorted(latencies)
                for percent in (50, 95, 99):
                    place = min(len(ranked) - 1, len(ranked) * percent // 100)
                    found[f"{name}p{percent}_ms"] = round(1000 * ranked[place], 1)
        return {**found, "statuses": {str(status): num for status, num in sorted(self.statuses.items())}}


class Connection:
    """A kept-alive connection, opened anew after it was lost; requests have the key, if there is one."""

    def __init__(self, port: int, key: str = "") -> None:
        self.port, self._key = port, f"\r\nAuthorization: Bearer {key}" if key else ""
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes, kind: str = "application/json") -> tuple[int, bytes]:
        """Status and body; (0, b"") when the connection is lost."""
        try:
            if self.streams is None:
                self.streams = await asyncio.open_connection("127.0.0.1", self.port)
            reader, writer = self.streams
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}"
            writer.write(f"{head}{self._key}\r\n\r\n".encode() + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
            headers = dict(line.split(": ", 1) for line in answer[1:] if ": " in line)
            if headers.get("transfer-encoding") == "chunked":
                found = b""
                while size := int(await reader.readline(), 16):
                    found += (await reader.readexactly(size + 2))[:-2]
                await reader.readline()
            else:
                found = await reader.readexactly(int(headers["content-length"]))
            if headers.get("connection") == "close":
                self.close()
            return int(answer[0].split()[1]), found
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return 0, b""

    def close(self) -> None:
        """Close it; the next request opens another."""
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


async def closed_loop(
    port: int,
    bodies: Sequence[bytes],
    *,
    clients: int,
    seconds: float = math.inf,
    requests: int = 10**9,
    path: str = "/v1/tag",
    keep: bool = False,
    on_request: Callable[[int], None] = lambda _: None,
    key: str = "",
) -> Load:
    """So many clients, each with one request at a time, for so long or for so many requests in all."""
    found, started = Load(), time.perf_counter()
    numbers = iter(range(requests))

    async def client() -> None:
        connection = Connection(port, key)
        for number in numbers:
            on_request(number)
            await _one(connection, number, bodies, path, found, keep, time.perf_counter())
            if time.perf_counter() - started > seconds:
                break
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    found.seconds = time.perf_counter() - started
    return found


async def open_loop(
    port: int,
    bodies: Sequence[bytes],
    *,
    rate: float,
    seconds: float,
    seed: int = 0,
    path: str = "/v1/tag",
    keep: bool = False,
) -> Load:
    """Requests that come at random times (a Poisson process), whatever became of the ones before."""
    found, started = Load(), time.perf_counter()
    rng, idle = random.Random(seed), list[Connection]()
    tasks, due, number = set[asyncio.Task[None]](), 0.0, 0

    async def request(own: int, wanted: float) -> None:
        connection = idle.pop() if idle else Connection(port)
        await _one(connection, own, bodies, path, found, keep, wanted)
        idle.append(connection)

    while due < seconds:
        await asyncio.sleep(max(0.0, started + due - time.perf_counter()))
        task = asyncio.ensure_future(request(number, started + due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        due, number = due + rng.expovariate(rate), number + 1
    await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()
    found.seconds = time.perf_counter() - started
    return found


async def _one(
    connection: Connection, number: int, bodies: Sequence[bytes], path: str, found: Load, keep: bool, since: float
) -> None:
    """A request; its latency counts from when it should have been sent."""
    status, body = await connection.post(path, bodies[number % len(bodies)])
    found.statuses[status] += 1
    if not status:
        await asyncio.sleep(0.1)  # nobody listens
    (found.latencies if status == 200 else found.refused).append(time.perf_counter() - since)
    if keep and status == 200:
        found.bodies.append((number % len(bodies), body))
