"""Streams of a stranger: read no faster than they are answered, bounded in all, and ended with the reason."""

from __future__ import annotations

import asyncio
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from serving.bodies import lines_of
from serving.errors import RefusedError
from serving.service import Service
from serving.settings import Limits
from serving.web import make_app
from tests.serving.conftest import make_service, run
from tests.serving.online import drained, online
from tests.serving.streaming import MIB, Connection, collected, line, taken


@pytest.mark.parametrize("what", ["blank lines", "long lines", "one endless line"])
def test_a_stream_is_read_only_as_fast_as_it_is_answered(local, what):
    """Before: 800 MiB were taken in 4 s. The client here sends until the server takes no more."""
    local.seconds.update(plain=60, context=60)
    service = make_service(local.routing(), idle_seconds=60, stream_bytes=16 * MIB)
    piece = {
        "blank lines": line("London") + b"\n" * (64 << 10),
        "long lines": line("London") + line("x" * 100_000),
        "one endless line": line("London") + b'{"text": "' + b"x" * (64 << 10),
    }[what]
    with online(make_app(service), force_exit=True) as url:
        sent = run(lambda: taken(url, piece))
    print(f"\n{what}: {sent / MIB:.1f} MiB were taken")
    bounds = {"blank lines": 8 * MIB, "long lines": 10 * MIB, "one endless line": 24 * MIB}
    assert sent <= bounds[what]


def test_blank_lines_count_and_a_stream_ends_at_its_bound(local):
    service = make_service(local.routing(), lines=100)
    answers = run(lambda: collected(service, [line("London")] + [b"\n"] * 1000))
    assert [answer.get("code") for answer in answers] == [None, "too_many_lines"]
    assert run(lambda: _lines(b"\n" * 90 + b" \r\n" * 9 + b"a\n", lines=100)) == [b"a"]
    assert run(lambda: _lines(b"\n" * 90 + b" \r\n" * 10 + b"a\n", lines=100)) == "too_many_lines"
    assert run(lambda: _lines(b"a\nb\nc", lines=3)) == [b"a", b"b", b"c"]
    assert run(lambda: _lines(b"a\nb\nc", lines=2)) == "too_many_lines"
    service = make_service(local.routing(), stream_bytes=1000)
    answers = run(lambda: collected(service, [line("London" + " " * 400)] * 10))
    assert [answer.get("code") for answer in answers] == [None, None, "too_long"]


async def _lines(body: bytes, **limits: Any) -> list[bytes] | str:
    """Lines of a body that comes byte by byte and as a whole, or the error's code; both have to agree."""

    async def parts(size: int) -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    results = []
    for size in (1, 7, len(body)):
        try:
            results.append([line async for own in lines_of(parts(size), Limits(**limits)) for line in own])
        except RefusedError as error:
            results.append(error.code)
    assert results == [results[0]] * 3
    return results[0]


def test_a_million_blank_lines_cost_little(local):
    """Before, each took a turn of the event loop: 64 KiB took seconds, while Serve read on into memory."""
    started = time.process_time()
    assert run(lambda: _lines_of_parts([b"\n" * (64 << 10)] * 16, lines=2_000_000)) == 0
    assert time.process_time() - started < 2


async def _lines_of_parts(given: list[bytes], **limits: Any) -> int:
    async def parts() -> AsyncIterator[bytes]:
        for part in given:
            yield part

    return sum([len(own) async for own in lines_of(parts(), Limits(**limits))])


def test_memory_does_not_grow_with_what_a_stream_sends(local):
    """An endless line: of 64 MiB, few are held."""
    service = make_service(local.routing())
    with online(make_app(service)) as url:

        async def work() -> list[dict[str, Any]]:
            connection = await Connection.to(url)
            await connection.send(b'{"text": "')
            for _ in range(64):
                await connection.send(b"x" * MIB)
            await connection.send(b'"}\n' + line("London"))
            await connection.head()
            return await connection.rest()

        tracemalloc.start()
        try:
            answers = run(work)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert [answer.get("code") for answer in answers] == ["too_long", None]
    assert peak < 16 * MIB


def test_an_idle_stream_ends_with_a_line_and_a_busy_one_does_not(local):
    service = make_service(local.routing(), idle_seconds=0.5)
    local.seconds["plain"] = 0.2
    with online(make_app(service)) as url:

        async def work() -> None:
            connection = await Connection.to(url)
            for _ in range(8):  # for longer than the limit
                await connection.send(line("London"))
                await asyncio.sleep(0.2)
            await connection.head()
            for _ in range(8):
                assert "error" not in await connection.line()
            last = await asyncio.wait_for(connection.line(), 10)
            assert last["code"] == "idle"

        run(work)
    assert service.requests.held == 0


def test_a_client_that_does_not_read_is_let_go(local):
    service = make_service(local.routing(), idle_seconds=0.5)
    passages = [{"text": "Paris " + "x" * 18_000}]  # quickly read, as one unknown word
    lines = line("Paris", view="context", passages=passages, return_passages=True)

    async def send(connection: Connection) -> None:
        while True:
            await connection.send(lines * 4)

    with online(make_app(service)) as url:

        async def work() -> None:
            connection = await Connection.to(url)
            connection.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.reader._transport.pause_reading()  # type: ignore[attr-defined]
            sending = asyncio.ensure_future(send(connection))
            while service.requests.held or not service.meter.statuses:
                await asyncio.sleep(0.05)
            sending.cancel()
            connection.writer.transport.abort()

        run(work)


@pytest.mark.parametrize("code", ["idle", "too_many_lines", "too_long", "draining", None])
def test_the_log_says_why_a_stream_ended(local, caplog, code):
    """Its status is 200, as that was sent before its first line."""
    limits: dict[str, Any] = {"too_many_lines": {"lines": 2}, "too_long": {"stream_bytes": 100}}.get(code, {})

    async def work(url: str, service: Service) -> None:
        async with httpx2.AsyncClient() as client:
            connection = await Connection.to(url)
            await connection.send(line("London") * 2)
            await connection.head()
            answers = [await connection.line() for _ in range(2)]
            if code == "draining":
                assert (await client.get(f"{url}/drain?5")).text == "0"
            elif limits:
                await connection.send(line("London") * 3)
            if code is not None:
                answers.append(await asyncio.wait_for(connection.line(), 20))
            assert await connection.rest() == []
            assert [answer.get("code") for answer in answers] == [None, None, *([code] if code else [])]

    with caplog.at_level("INFO", logger="ray.serve"):
        drained(local, work, idle_seconds=0.5 if code == "idle" else 30, **limits)
    (access,) = [record for record in caplog.records if record.message == "access"]
    assert (access.status, access.lines, getattr(access, "ended", None)) == (200, 2, code)


def test_an_unexpected_error_in_a_stream_is_a_line_as_well(local, caplog):
    local.errors["plain"] = KeyError("zanzibarsecret")
    local.errors["context"] = KeyError("zanzibarsecret")
    service = make_service(local.routing())
    with caplog.at_level("INFO", logger="ray.serve"):
        answers = run(lambda: collected(service, [line("Paris"), b"{\n"]))
    assert all(answer["error"] and answer["code"] for answer in answers)
    assert answers[1]["code"] == "not_json"
    assert "zanzibarsecret" not in str(answers) + caplog.text
