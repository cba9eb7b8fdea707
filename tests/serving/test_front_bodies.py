"""What stands before Serve's queue, behind a real port: how far bodies are read, and answers made, ahead."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
from collections import deque
from typing import Any

import httpx2
import pytest

from serving import front
from serving.front import BoundedProtocol, Front, Window
from serving.web import make_app
from tests.serving.conftest import make_service, run
from tests.serving.online import online, opened
from tests.serving.streaming import MIB, line, taken


@pytest.mark.usefixtures("bounded")
def test_a_client_that_is_gone_is_noticed_though_its_body_is_not_read_on():
    """Before: such streams went on with all that the kernel held of them."""
    ended = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while scope["type"] == "http" and not ended.is_set():
            await asyncio.sleep(0.1)

    def send_and_go(url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000000\r\n\r\n")
            client.settimeout(1)
            with contextlib.suppress(TimeoutError):
                while True:
                    client.send(b"x" * 65536)
            assert BoundedProtocol._open
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset, as HAProxy does

    with online(app) as url:
        send_and_go(url)
        until = time.monotonic() + 20
        while BoundedProtocol._open and time.monotonic() < until:
            time.sleep(0.1)
        is_open = bool(BoundedProtocol._open)
        ended.set()
        assert not is_open


@pytest.mark.parametrize("what", ["lines", "blank lines"])
def test_serve_is_not_given_more_of_a_stream_than_it_answers(local, what):
    """The inner application reads all that it gets at once, as Serve does. Before: 800 MiB in 4 s."""
    local.seconds.update(plain=60, context=60)
    service = make_service(local.routing())
    app, read = make_app(service), 0

    async def eager(scope: Any, receive: Any, send: Any) -> None:
        queue = asyncio.Queue[Any]()

        async def fetch() -> None:
            nonlocal read
            while (message := await receive())["type"] != "http.disconnect":
                read += len(message["body"])
                await queue.put(message)
            await queue.put(message)

        task = asyncio.ensure_future(fetch())
        try:
            await app(scope, queue.get, send)
        finally:
            task.cancel()

    part = line("London") * 1000 if what == "lines" else line("London") + b"\n" * (64 << 10)
    with online(Front(eager), force_exit=True) as url:
        run(lambda: taken(url, part))
    print(f"\n{what}: {read / MIB:.2f} MiB were read")
    assert read <= 2 * MIB


def test_an_answered_stream_flows_through_the_window(local, monkeypatch):
    monkeypatch.setattr(front, "_WINDOW_BYTES", 1 << 16)
    texts = [f"{number} " + "London " * 100 for number in range(300)]  # 210 KiB, thrice the window
    with online(Front(make_app(make_service(local.routing())))) as url:

        async def parts() -> Any:
            body = b"\n".join(line(text) for text in texts)  # with blank lines between
            for start in range(0, len(body), 5_001):
                yield body[start : start + 5_001]

        async def work() -> list[Any]:
            async with httpx2.AsyncClient(timeout=50) as client:
                headers = {"content-type": "application/x-ndjson"}
                answer = await client.post(f"{url}/v1/tag/stream", content=parts(), headers=headers)
                return [json.loads(each) for each in answer.text.splitlines()]

        answers = run(work)
    assert len(answers) == 300
    assert not [answer for answer in answers if "error" in answer]


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/tag/stream"])
def test_a_refused_body_is_not_taken_to_its_end(local, path):
    """Before: after its answer, a request's body was read on, at full speed, until the time for headers was over."""
    with online(Front(make_app(make_service(local.routing(), lines=1)))) as url:

        def work() -> tuple[bytes, int]:
            host, port = url.removeprefix("http://").split(":")
            sent, answer, part = 0, b"", line("London") * 2000
            with socket.create_connection((host, int(port))) as client:
                head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n"
                client.sendall(head.encode() + b"content-length: 10000000000\r\n\r\n")
                client.settimeout(3)
                try:
                    while sent < 1000 * MIB:
                        sent += client.send(part)
                except OSError:
                    pass
                with contextlib.suppress(OSError):  # the answer is there before the connection is reset
                    answer = client.recv(1 << 16)
            return answer, sent

        answer, sent = work()
    print(f"\n{sent / MIB:.1f} MiB were taken")
    assert (b" 404 " in answer) if path == "/v1/nothing" else (b"too_many_lines" in answer)
    assert sent < 40 * MIB, "what the kernel's buffers hold"


@pytest.mark.usefixtures("bounded")
def test_a_refused_body_that_ends_is_answered_with_the_connections_end(local):
    """A client that reads gets the whole answer, and is told that the connection ends."""
    with online(Front(make_app(make_service(local.routing())))) as url:

        async def work() -> bytes:
            head = b"POST /v1/nothing HTTP/1.1\r\nhost: localhost\r\ncontent-length: 300000\r\n\r\n"
            reader, _ = await opened(url, head)
            return await asyncio.wait_for(reader.read(), 5)

        answer = run(work)
    assert b" 404 " in answer
    assert b"connection: close" in answer
    assert json.loads(answer.split(b"\r\n\r\n")[1])["error"] == "no_such_path"


@pytest.mark.usefixtures("bounded")
def test_little_is_answered_ahead_of_a_reader_who_does_not_read():
    """Before, the kernel took 4 MiB of answers: 20,000 lines of work for nobody."""
    sent = 0

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while sent < 64 * MIB:
            await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
            sent += 1000

    with online(endless) as url:

        async def work() -> int:
            reader, writer = await opened(url, b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            before = -1
            while before < sent:
                before = sent
                await asyncio.sleep(0.5)
            writer.transport.abort()
            assert not reader.at_eof()  # a reader that nobody holds would drop what comes
            return before

        most = run(work)
    print(f"\n{most / MIB:.2f} MiB were sent")
    assert 0 < most < 0.6 * MIB, "buffers of 64 KiB take 0.72"


@pytest.mark.parametrize("parts", [[b"a\n\n b\n"], [b"a", b"\n", b"\n \n", b"b\n"], [b"  ", b"a\n", b" \nb", b"\n"]])
def test_lines_are_counted_over_parts(parts):
    waiting = deque(parts)

    async def receive() -> Any:
        return {"type": "http.request", "body": waiting.popleft(), "more_body": True}

    async def send(_: Any) -> None:
        return

    async def work() -> int:
        window = Window(receive, send)
        for _ in range(len(parts)):
            await window.receive()
        return window._lines

    assert run(work) == 2
