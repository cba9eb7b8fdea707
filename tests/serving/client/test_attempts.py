"""What the client asks for again, when, and where; and what it takes as final."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing

import httpx2
import pytest

import ctxner.client.http
from ctxner.client import Client, ClientError
from serving.web import make_app
from tests.serving.client.conftest import GOOD, SECRET, TEXT, problem, scripted
from tests.serving.conftest import make_service
from tests.serving.online import online

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("status", [503, 429])
def test_an_overloaded_server_is_asked_again(waits, status):
    client, requests = scripted(problem(status, "overload"), problem(status, "rate"), httpx2.Response(200, json=GOOD))
    with client:
        assert client.tag("Paris").request_id == "r"
    assert len(requests) == 3
    assert len({own.content for own in requests}) == 1
    assert all(0 <= own <= 0.01 for own in waits)


def test_retry_after_is_honoured_in_both_forms_and_bounded_by_the_timeout(waits):
    good = httpx2.Response(200, json=GOOD)
    client, _ = scripted(problem(503, "overload", retry_after="7"), good)
    with client:
        client.tag("Paris")
    assert 7 <= waits.pop() < 7.1
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 9))
    client, _ = scripted(problem(429, "rate", retry_after=date), good)
    with client:
        client.tag("Paris")
    assert 7 <= waits.pop() <= 9.1
    client, requests = scripted(problem(429, "rate", retry_after="31"), timeout=30)
    with client, pytest.raises(ClientError, match="429, rate") as caught:
        client.tag("Paris")
    assert caught.value.retry_after == 31
    assert len(requests) == 1
    assert waits == []


def test_back_off_doubles_with_full_jitter_and_ends(monkeypatch, waits):
    monkeypatch.setattr(ctxner.client.http, "_FIRST_WAIT", 1.0)
    most = []
    monkeypatch.setattr(ctxner.client.http.random, "uniform", lambda low, high: most.append((low, high)) or high)
    client, requests = scripted(*[problem(503, "overload")] * 6, retries=5, timeout=1000)
    with client, pytest.raises(ClientError, match="503, overload: told") as caught:
        client.tag("Paris")
    assert most == [(0, 1), (0, 2), (0, 4), (0, 8), (0, 10), (0, 10)]
    assert waits == [1, 2, 4, 8, 10]
    assert len(requests) == 6
    assert (caught.value.status, caught.value.code, caught.value.request_id) == (503, "overload", "r-1")


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 500, 502, 504])
def test_other_refusals_are_final(status):
    client, requests = scripted(problem(status, "why", retry_after="1"))
    with client, pytest.raises(ClientError) as caught:
        client.tag("Paris")
    assert (caught.value.status, caught.value.code, caught.value.message) == (status, "why", "told")
    assert len(requests) == 1


def test_a_refused_connection_is_tried_again_and_then_told():
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}", retries=2) as client:
        with pytest.raises(ClientError, match="no answer, connection: no connection") as caught:
            client.tag("Paris")
        assert caught.value.status is None


def listening(answer: Callable[[socket.socket], None]) -> tuple[str, list[bytes], socket.socket]:
    """A server of one's own making; what was sent to it."""
    server = socket.create_server(("127.0.0.1", 0))
    seen: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                seen.append(connection.recv(1 << 16))
                answer(connection)

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{server.getsockname()[1]}", seen, server


def test_a_connection_that_breaks_is_tried_again_only_before_the_answer_began():
    begun = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    for answer, attempts in ((b"", 3), (begun, 1)):
        url, seen, server = listening(lambda connection, own=answer: connection.sendall(own))
        with closing(server), Client(url, retries=2) as client:
            with pytest.raises(ClientError, match="connection"):
                client.tag("Paris")
            assert len(seen) == attempts


def test_a_client_of_several_addresses_goes_on_to_the_next_when_one_is_lost(local):
    begun = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    broken, seen, server = listening(lambda connection: connection.sendall(begun))
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        refusing = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with closing(server), online(make_app(make_service(local.routing()))) as url:
        with Client([refusing, broken, url]) as client:
            client._own._current = 0
            for _ in range(2):
                assert client.tag(TEXT, view="plain").results[0].entities
        assert len(seen) == 1, "the address that answered is kept"


def test_a_client_waits_only_after_it_has_asked_every_address(waits):
    transport = httpx2.MockTransport(lambda request: (_ for _ in ()).throw(httpx2.ConnectError(SECRET)))
    client = Client(["http://a", "http://b"], retries=3, transport=transport)
    with client, pytest.raises(ClientError, match="no connection"):
        client.tag("Paris")
    assert [wait > 0 for wait in waits] == [False, True, True]


def test_the_timeout_bounds_all_attempts_together():
    def trickle(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(1000):  # a byte now and then: no single pause is long
            try:
                connection.sendall(b" ")
            except OSError:
                return
            time.sleep(0.05)

    url, _, server = listening(trickle)
    started = time.perf_counter()
    with closing(server), Client(url, timeout=0.4) as client, pytest.raises(ClientError, match="timeout"):
        client.tag("Paris")
    assert time.perf_counter() - started < 30, "not 50 s"
    client, requests = scripted(*[problem(503, "overload", retry_after="0")] * 1000, retries=10**6, timeout=0.3)
    started = time.perf_counter()
    with client, pytest.raises(ClientError):
        client.tag("Paris")
    assert time.perf_counter() - started < 30
    assert len(requests) > 2
