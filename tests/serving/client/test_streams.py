"""The client's streams: lines in order, few of them held, and what ends a stream early."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from typing import Any

import httpx2
import pytest

from ctxner.client import AsyncClient, Client, ClientError
from ctxner.client.messages import CHUNK_BYTES, Chunks
from serving.streams import stream
from serving.web import make_app
from tests.serving.client.conftest import inside, scripted
from tests.serving.conftest import make_service, run
from tests.serving.online import online

pytestmark = pytest.mark.numeric


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
