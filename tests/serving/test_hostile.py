"""Web pages of others, errors of one shape, and what stays bounded or answered whatever comes."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from starlette.responses import PlainTextResponse

from ctxner.schema import Sentence
from ctxner.texts import as_scored
from serving.errors import RefusedError
from serving.meters import metrics_of
from serving.passage_cache import PassageCache
from serving.web import make_app
from tests.serving.conftest import client_of, make_service, run
from tests.serving.online import online
from tests.serving.streaming import MIB

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
