"""What stands before Serve's queue, behind a real port: slow headers, many connections, ids, methods."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest
from starlette.responses import PlainTextResponse

from serving.front import Front
from serving.web import make_app
from tests.serving.conftest import make_service, run
from tests.serving.online import online, opened


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
