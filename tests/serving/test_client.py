"""The client against the service: through ASGI, over a real port, and against servers that refuse or break."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, closing
from dataclasses import replace
from typing import Any

import httpx2
import pytest

import ctxner.client.http
from ctxner.client import AsyncClient, Client, ClientError
from ctxner.client.messages import CHUNK_BYTES, Chunks
from ctxner.schema import Example, Passage, ScoredPassage, Sentence
from serving.service import Service
from serving.settings import ApiKey, hashed
from serving.streams import stream
from serving.web import make_app
from tests.closeness import assert_close
from tests.serving.conftest import make_service, run
from tests.serving.online import online

pytestmark = pytest.mark.numeric

KEY = "a-key-of-the-tests-1"
TEXT = "👍🏽 Paris Hilton sings in London . Müller in Paris ."
SECRET = "Zanzibar"
GOOD = {"results": [], "versions": {"model": "m"}, "views": {}, "reasons": {}, "timings_ms": {}, "request_id": "r"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Back-offs of at most some milliseconds."""
    monkeypatch.setattr(ctxner.client.http, "_FIRST_WAIT", 0.005)


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """What is waited between attempts, not waited for."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(ctxner.client.http.asyncio, "sleep", sleep)
    return found


def inside(service: Service, key: str | None = None, **how: Any) -> AsyncClient:
    keys = [ApiKey(name="k", sha256=hashed(KEY))] if key else []
    return AsyncClient("http://localhost", key, transport=httpx2.ASGITransport(app=make_app(service, keys)), **how)


def scripted(*answers: httpx2.Response | Exception, **how: Any) -> tuple[Client, list[httpx2.Request]]:
    """A client of a server that says these things, one after the other."""
    requests, left = list[httpx2.Request](), list(answers)

    def answer(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        own = left.pop(0)
        if isinstance(own, Exception):
            raise own
        return own

    return Client("http://test", transport=httpx2.MockTransport(answer), **how), requests


def problem(status: int, code: str, **headers: str) -> httpx2.Response:
    body = {"error": code, "message": "told", "request_id": "r-1"}
    return httpx2.Response(status, json=body, headers={name.replace("_", "-"): own for name, own in headers.items()})


def test_a_reply_is_what_the_tagger_says(local):
    async def work() -> None:
        async with inside(make_service(local.routing())) as client:
            found = await client.tag(TEXT, view="plain")
            (result,) = found.results
            assert result.entities
            for own in result.entities:
                assert TEXT[own.start : own.end] == own.text
                assert 0 <= own.confidence <= 1
            assert found.views == {"plain": len(result.sentences)}
            assert found.versions.model == "plain"
            assert found.timings_ms["total"] > 0
            assert found.request_id
            words = ("Paris", "Hilton", "sings", ".")
            split = await client.tag([words, ["London"]], view="plain")
            wanted = local.tagger.predict([Example(Sentence("0", words))], view="plain")[0]
            assert [own.type for own in split.results[0].entities] == [own.type for own in wanted.entities]
            assert len(split.results) == 2
            several = await client.tag(["London .", TEXT], view="plain")
            for own, alone in zip(several.results[1].entities, result.entities, strict=True):
                assert own == replace(alone, confidence=pytest.approx(alone.confidence, abs=1e-4))
            assert (await client.models())["plain"]["types"] == ["person", "place"]

    run(work)


def test_passages_go_there_and_come_back(local):
    scored = ScoredPassage(Passage("p", "almanac", "London is a place .", "London"), 7.5, 1, 0.25)
    local.passages = lambda sentence: [scored]

    async def work() -> None:
        async with inside(make_service(local.routing())) as client:
            found = await client.tag("London calling .", view="context", return_passages=True)
            (own,) = found.results[0].sentences[0].passages or ()
            assert (own.id, own.source, own.title, own.text) == ("p", "almanac", "London", "London is a place .")
            assert (own.bm25_score, own.rerank_score, own.dropped) == (7.5, 0.25, None)
            assert found.versions.index == "v1"
            given = await client.tag(
                ["London calling .", "Paris"],
                view="context",
                return_passages=True,
                passages=[[{"text": "London is a song .", "title": "Hits"}], ["Paris is a person ."]],
            )
            read = [sentence.passages for result in given.results for sentence in result.sentences]
            assert [(one.title, one.text) for own in read for one in own or ()] == [
                ("Hits", "London is a song ."),
                ("", "Paris is a person ."),
            ]
            one = await client.tag("Paris", view="context", return_passages=True, passages=["Paris is a person ."])
            assert one.results[0].sentences[0].passages == given.results[1].sentences[0].passages
            assert (await client.tag("Paris", view="context")).results[0].sentences[0].passages is None

    run(work)


def test_both_clients_say_the_same_and_the_deadline_reaches_the_server(local):
    local.seconds["retriever"] = 60
    with online(make_app(make_service(local.routing())), force_exit=True) as url, Client(url + "/") as client:
        started = time.perf_counter()
        found = client.tag(TEXT, view="context", deadline_ms=300)
        assert time.perf_counter() - started < 30, "not 60 s"
        assert set(found.reasons) == {"deadline"}

        async def work() -> Any:
            async with AsyncClient(url) as other:
                return (await other.tag(TEXT, view="plain")).results

        assert_close(client.tag(TEXT, view="plain").results, run(work))


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


def test_a_proxys_page_is_an_error_without_the_page():
    client, _ = scripted(httpx2.Response(502, html=f"<h1>{SECRET}</h1>"), httpx2.Response(200, html=SECRET))
    with client:
        with pytest.raises(ClientError, match="502, http") as caught:
            client.tag(SECRET)
        assert SECRET not in str(caught.value)
        with pytest.raises(ClientError, match="bad_answer") as caught:
            client.tag(SECRET)
        assert SECRET not in str(caught.value)


def test_keys_are_sent_and_a_wrong_one_is_told(local):
    async def work() -> None:
        service = make_service(local.routing())
        async with inside(service, KEY) as client:
            assert (await client.tag("Paris", view="plain")).views == {"plain": 1}
        async with inside(service, KEY[:-1]) as client:
            with pytest.raises(ClientError, match="401, no_key") as caught:
                await client.tag("Paris")
            assert KEY[:-1] not in str(caught.value)
            assert caught.value.request_id

    run(work)


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


@pytest.mark.slow
def test_five_thousand_lines_come_back_in_order_and_few_are_held(local):
    taken, most = 0, 0

    def lines() -> Iterator[str]:
        nonlocal taken
        for number in range(5000):
            taken += 1
            yield f"{'a' * (number % 97 + 1)} Paris"

    with online(make_app(make_service(local.routing()))) as url, Client(url) as client:
        for found, own in enumerate(client.stream(lines(), view="plain")):
            most = max(most, taken - found)
            assert own.error is None
            assert own.sentences[0].end == found % 97 + 7
    assert (found, taken) == (4999, 5000)
    assert most <= 3 * 256


def test_streams_are_cut_by_the_servers_bound_and_bad_lines_leave_others_alone(local, monkeypatch):
    service = make_service(local.routing(), lines=7, text_chars=50)
    sizes = []

    async def counted(*arguments: Any, **how: Any) -> AsyncIterator[bytes]:
        found = [own async for own in stream(*arguments, **how)]
        sizes.append(b"".join(found).count(b"\n"))
        for own in found:
            yield own

    async def describe() -> dict[str, Any]:
        return {"limits": service.limits.model_dump()}

    monkeypatch.setattr("serving.web.stream", counted)
    service.describe = describe  # type: ignore[method-assign]

    async def texts() -> AsyncIterator[str | list[str]]:
        for number in range(20):
            yield "x " * 40 if number == 8 else ["Paris", "Hilton"] if number == 9 else "London"

    async def work() -> None:
        async with inside(service) as client:
            found = [own async for own in client.stream(texts(), view="plain")]
        assert sorted(sizes, reverse=True) == [7, 7, 6]
        assert [number for number, own in enumerate(found) if own.error] == [8]
        assert "80 characters" in str(found[8].error)
        assert [own.sentences[0].end for own in found if not own.error] == [6] * 8 + [12] + [6] * 10

    run(work)


def test_why_a_server_ended_a_stream_early_is_told(local):
    service = make_service(local.routing(), lines=3)

    async def describe() -> dict[str, Any]:
        return {"limits": {"lines": 1000}}  # of a server that was restarted with lower limits

    service.describe = describe  # type: ignore[method-assign]

    async def work() -> None:
        async with inside(service) as client:
            [own async for own in client.stream(["London"] * 10, view="plain")]

    with pytest.raises(ClientError, match="more than 3 lines") as found:
        run(work)
    assert found.value.code == "too_many_lines"


def test_a_chunk_never_exceeds_its_bytes_but_for_a_single_line():
    chunks = Chunks({}, 256)
    lines = ["a" * (CHUNK_BYTES // 3), "b" * (2 * CHUNK_BYTES), "c", "d" * CHUNK_BYTES, *["e"] * 600]
    found = [own for own in map(chunks.add, lines) if own] + [chunks.rest()]
    assert chunks.rest() is None
    bodies = [own.body.splitlines() for own in found if own]
    assert [json.loads(line)["text"] for body in bodies for line in body] == lines
    assert [len(body) for body in bodies] == [own.num_lines for own in found if own]
    assert all(len(own.body) <= CHUNK_BYTES or own.num_lines == 1 for own in found if own)
    assert max(map(len, bodies)) == 256


def test_a_stream_that_is_left_early_sends_no_more(local):
    with online(make_app(make_service(local.routing()))) as url:
        taken = []
        endless = (taken.append(None) or "Paris" for _ in iter(int, 1))
        with Client(url) as client, closing(client.stream(endless, view="plain")) as own:  # type: ignore[type-var]
            assert next(own).error is None
        num = len(taken)
        assert num <= 3 * 256

        async def work() -> None:
            async with AsyncClient(url) as other, aclosing(other.stream(endless, view="plain")) as own:  # type: ignore[type-var]
                async for one in own:
                    assert one.error is None
                    break

        run(work)
        assert len(taken) - num <= 3 * 256


def test_a_missing_answer_in_a_stream_is_an_error():
    line = json.dumps({"entities": [], "sentences": []})
    client, _ = scripted(httpx2.Response(200, json={}), httpx2.Response(200, text=line + "\n"))
    with client, pytest.raises(ClientError, match="bad_answer"):
        list(client.stream(["Paris", "London"]))


@pytest.mark.parametrize(
    "asked",
    [
        lambda client: client.tag(f"{SECRET} \ud83d"),
        lambda client: client.tag(["fine", f"{SECRET} \udfff"]),
        lambda client: client.tag([[SECRET, "\ud800"]]),
        lambda client: client.tag("fine", passages=[f"{SECRET} \ud83d"]),
        lambda client: list(client.stream(["fine", f"{SECRET} \ud83d"])),
    ],
)
def test_lone_surrogates_are_refused_before_anything_is_sent(asked):
    client, requests = scripted(httpx2.Response(200, json={}))
    with client, pytest.raises(ValueError, match="lone surrogate") as caught:
        asked(client)
    assert SECRET not in str(caught.value)
    assert [own for own in requests if own.method == "POST"] == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (lambda client: client.tag([]), "no texts"),
        (lambda client: client.tag(["Paris", ["London"]]), "mixed"),
        (lambda client: client.tag(["Paris", "London"], passages=[["a"]]), "1 given for 2 texts"),
        (lambda client: client.tag(["Paris"], passages=["a"]), "one list of them per text"),
        (lambda client: Client("localhost:8000"), "http://"),
        (lambda client: Client([]), "http://"),
        (lambda client: Client("http://test", "a key\n"), "ASCII"),
    ],
)
def test_what_cannot_be_meant_is_refused(asked, said):
    client, requests = scripted()
    with client, pytest.raises(ValueError, match=said):
        asked(client)
    assert requests == []


def test_no_log_line_has_texts_or_keys(local, caplog):
    caplog.set_level(logging.DEBUG)
    with online(make_app(make_service(local.routing()))) as url:
        with Client(url, KEY) as client:
            client.tag(SECRET, view="plain")
            list(client.stream([SECRET], view="plain"))
        assert KEY not in repr(client)
    assert caplog.records
    assert not [own for own in caplog.records if SECRET in own.getMessage() or KEY in own.getMessage()]


def test_a_closed_client_says_so_and_its_thread_ends():
    before = threading.active_count()
    client, _ = scripted(httpx2.Response(200, json=GOOD))
    client.tag("Paris")
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.tag("Paris")
    until = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_the_client_works_where_a_loop_runs_already(local):
    with online(make_app(make_service(local.routing()))) as url:

        async def work() -> None:
            with Client(url) as client:
                found = await asyncio.to_thread(client.tag, "Paris", view="plain")
                assert_close(client.tag("Paris", view="plain").results, found.results)

        run(work)


def test_importing_the_client_brings_none_of_the_library_with_it():
    code = (
        "import ctxner.client, sys; print(*sorted(name for name in sys.modules if '.' not in name or 'ctxner' in name))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {own for own in loaded if own.startswith("ctxner")} == {
        "ctxner",
        "ctxner.client",
        "ctxner.client.blocking",
        "ctxner.client.http",
        "ctxner.client.messages",
    }
    assert not loaded & {"torch", "ray", "pydantic", "numpy", "pyarrow", "transformers", "serving", "fastapi", "yaml"}
