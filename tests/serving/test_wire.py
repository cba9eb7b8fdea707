"""Bytes on a real port: requests that two parsers read differently, paths that leave the page's folder, browsers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import uvicorn.config

from serving import front
from serving.front import Front
from serving.settings import ApiKey, hashed
from serving.web import make_app
from tests.serving.conftest import Local, make_service, run
from tests.serving.online import online

KEY = "k" * 20
BODY = json.dumps({"texts": ["London"], "view": "plain"}).encode()
POST = b"POST /v1/tag HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
SECOND = b"GET /second HTTP/1.1\r\nhost: localhost\r\n\r\n"
_PARSERS = {
    "httptools": "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol",
    "h11": "uvicorn.protocols.http.h11_impl:H11Protocol",
    "ours": "",
}


@pytest.fixture(params=_PARSERS)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each parser of HTTP that Uvicorn may use, and the connection that we put before it."""
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", _PARSERS[request.param])
    if request.param == "ours":
        front.middlewares()
    return request.param


async def _sent(url: str, content: bytes) -> bytes:
    """What comes back until the server closes, or is silent for a second."""
    reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
    writer.write(content)
    answer = b""
    try:
        while part := await asyncio.wait_for(reader.read(1 << 16), 1):
            answer += part
    except (TimeoutError, ConnectionError):
        pass
    writer.transport.abort()
    return answer


CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
SMUGGLING = {
    "length of the first part, chunked": POST
    + b"content-length: %d\r\ntransfer-encoding: chunked\r\n\r\n" % len(CHUNKED)
    + CHUNKED
    + SECOND,
    "length of all, chunked": POST
    + b"content-length: %d\r\ntransfer-encoding: chunked\r\n\r\n" % len(CHUNKED + SECOND)
    + CHUNKED
    + SECOND,
    "chunked, length": POST
    + b"transfer-encoding: chunked\r\ncontent-length: %d\r\n\r\n" % len(BODY + SECOND)
    + CHUNKED
    + SECOND,
    "two lengths, short first": POST
    + b"content-length: %d\r\ncontent-length: %d\r\n\r\n" % (len(BODY), len(BODY + SECOND))
    + BODY
    + SECOND,
    "two lengths, long first": POST
    + b"content-length: %d\r\ncontent-length: %d\r\n\r\n" % (len(BODY + SECOND), len(BODY))
    + BODY
    + SECOND,
    "two lengths in a line": POST + b"content-length: %d, %d\r\n\r\n" % (len(BODY), len(BODY + SECOND)) + BODY + SECOND,
    "a coding that nobody knows": POST
    + b"transfer-encoding: xchunked\r\ncontent-length: %d\r\n\r\n" % len(BODY + SECOND)
    + BODY
    + SECOND,
    "a folded header": POST + b"x-a: b\r\n content-length: 0\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY,
    "a space before the colon": POST + b"content-length : %d\r\n\r\n" % len(BODY) + BODY + SECOND,
}


@pytest.mark.parametrize("name", SMUGGLING)
def test_a_request_of_two_lengths_is_never_read_as_two(local: Local, parser: str, name: str) -> None:
    seen = list[str]()
    app: Any = Front(make_app(make_service(local.routing())))

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await app(scope, receive, send)

    with online(watched) as url:
        answer = run(lambda: _sent(url, SMUGGLING[name]))
    print(f"\n{parser}, {name}: {answer[:12]!r}, {seen}")
    assert "/second" not in seen
    assert answer.count(b"HTTP/1.1 ") <= 1


_LEAVING = (
    "/../web.py",
    "/page.css/../../web.py",
    "/%2e%2e/web.py",
    "/%2e%2e%2fweb.py",
    "/..%5cweb.py",
    "/page.js/..",
    "//etc/passwd",
    "/%2fetc/passwd",
    "/%00/etc/passwd",
    "/../../../../../../../../etc/passwd",
    "/index.html",
    "file:///etc/passwd",
    "http://localhost/../web.py",
)


@pytest.mark.parametrize("path", _LEAVING)
def test_no_path_leaves_the_folder_of_the_page(local: Local, parser: str, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode()
    with online(Front(make_app(make_service(local.routing())))) as url:
        answer = run(lambda: _sent(url, request))
        page = run(lambda: _sent(url, request.replace(path.encode(), b"/page.css")))
    assert page.startswith(b"HTTP/1.1 200 ")
    assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 ")), answer[:80]
    assert b"def make_app" not in answer
    assert b"root:" not in answer


@pytest.mark.parametrize("keys", [(), (ApiKey(name="a", sha256=hashed(KEY)),)], ids=["no key", "key"])
def test_no_other_origin_is_told_that_it_may_read_an_answer(local: Local, keys: tuple[ApiKey, ...]) -> None:
    """Without access-control headers a browser keeps an answer from a page of another origin, and sends no JSON."""
    origin = b"origin: https://evil.example\r\n"
    preflight = b"OPTIONS /v1/tag HTTP/1.1\r\nhost: localhost\r\n" + origin
    preflight += b"access-control-request-method: POST\r\naccess-control-request-headers: content-type, x-api-key\r\n"
    simple = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n" + origin
    posted = POST + origin + b"content-length: %d\r\n" % len(BODY)
    key = b"x-api-key: %s\r\n" % KEY.encode() if keys else b""
    with online(Front(make_app(make_service(local.routing()), keys))) as url:

        def status_of(head: bytes, body: bytes = b"") -> int:
            answer = run(lambda: _sent(url, head + b"connection: close\r\n\r\n" + body))
            assert b"access-control-" not in answer.lower()
            return int(answer.split()[1])

        assert status_of(preflight) in {401, 403, 405}
        assert status_of(simple) == (401 if keys else 403)
        assert status_of(posted, BODY) == (401 if keys else 403)
        if keys:  # whoever has the key may ask; a page can read the answer only if the browser lets it
            assert status_of(simple + key) == status_of(posted + key, BODY) == 200
            assert status_of(preflight + key) == 405


def test_no_answer_sends_a_client_to_the_host_that_it_named(local: Local) -> None:
    """A redirect to Host, kept by a cache, would send others there with their keys."""
    keys = (ApiKey(name="a", sha256=hashed(KEY)),)
    head = f"host: evil.example\r\nx-forwarded-host: evil.example\r\nx-api-key: {KEY}\r\nconnection: close\r\n\r\n"
    with online(Front(make_app(make_service(local.routing()), keys))) as url:
        for path in ("/v1/tag/", "/v1/models/", "/healthz/", "/page.css/", "//", "/v1", "/docs", "/nothing"):
            answer = run(lambda path=path: _sent(url, f"GET {path} HTTP/1.1\r\n{head}".encode()))
            assert answer.startswith(b"HTTP/1.1 404 "), path
            assert b"location:" not in answer.lower()
            assert b"evil.example" not in answer
