"""Who gets how much: requests beside streams, small requests beside large ones, callers and their rates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx2
import pytest

from ctxner.schema import Example
from serving.admission import Bucket, Caller, Room, most_pieces_of
from serving.answers import Tagged
from serving.errors import RefusedError
from serving.group import Group
from serving.routing import Routing
from serving.settings import ApiKey, hashed, keys_from
from serving.streams import stream
from tests.serving.conftest import client_of, make_service
from tests.serving.simulated import run_simulated
from tests.serving.streaming import collected, line

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
        answers = await collected(service, [line("London")] * 5, caller)
        return answers, asyncio.get_running_loop().time() - started

    answers, seconds = run_simulated(work)
    assert not [answer for answer in answers if "error" in answer]
    pieces = 5 * most_pieces_of(["London"])
    assert seconds == pytest.approx(pieces / 20, abs=0.01), "20 pieces per second"
