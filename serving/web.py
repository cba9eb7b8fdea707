"""HTTP: paths, API keys, size limits, errors and the access log. The page is in `serving/page`.

Bodies are read up to a size limit and parsed by Pydantic, never decompressed or unpickled. No error message or log line
repeats their content.
"""

from __future__ import annotations

import hmac
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import ValidationError
from pydantic.json_schema import models_json_schema
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.api import Problem, StreamedText, TagRequest, TagResponse, TextOut, examples_of, explain
from serving.errors import RefusedError
from serving.service import Meter, Service
from serving.settings import SHORTEST_KEY, ApiKey, hashed

logger = logging.getLogger("ray.serve")  # Ray Serve writes it as `logging_config` in serve.yaml says
_PAGE = Path(__file__).parent / "page"
_PAGE_FILES = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js"}
_ID = re.compile(r"[\w.:-]{1,64}")
_OPEN = {"/healthz", "/readyz", *_PAGE_FILES}  # need no key: these paths show no caller's data
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in (
        (400, "Not JSON"),
        (401, "No valid key"),
        (413, "Above a limit"),
        (415, "Not the content type, or compressed"),
        (422, "Not as described"),
        (429, "The key's rate is exceeded; see Retry-After"),
        (503, "Overloaded, or nobody can answer; see Retry-After"),
    )
}


def make_app(service: Service, keys: Sequence[ApiKey] = ()) -> FastAPI:
    """The web application of a service; without keys, everyone who can reach it may send requests."""
    app = FastAPI(title="ctxner", version="1", docs_url=None, redoc_url=None, openapi_url="/openapi.json")

    @app.post(
        "/v1/tag",
        response_model=TagResponse,
        responses=_PROBLEMS,
        summary="Entities of texts",
        openapi_extra=_body("application/json", TagRequest),
    )
    async def tag(request: Request) -> Response:
        _check_type(request, {"application/json"})
        raw = await _read(request, service.limits.body_bytes)
        answer = await service.tag(TagRequest.model_validate_json(raw), request.state.id)
        request.state.said = {"texts": len(answer.results), "views": answer.views, "reasons": answer.reasons}
        return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")

    @app.post(
        "/v1/tag/stream",
        responses={
            **_PROBLEMS,
            200: {
                "content": {"application/x-ndjson": {"schema": _reference(TextOut)}},
                "description": "One JSON answer per input line, in order.",
            },
        },
        response_class=_Answers,
        summary="Entities of long lists, line by line",
        openapi_extra=_body("application/x-ndjson", StreamedText),
    )
    async def stream(request: Request) -> Response:
        _check_type(request, {"application/x-ndjson", "application/jsonl"})
        lines = _lines(request, service.limits.line_bytes)
        return _Answers(service.stream(lines), media_type="application/x-ndjson")

    @app.get("/v1/models", responses={401: _PROBLEMS[401]}, summary="What is served")
    async def models() -> dict[str, Any]:
        return await service.describe()

    @app.get("/healthz", summary="This router lives")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Who answers", responses={503: {"description": "No view can answer"}})
    async def readyz() -> Response:
        readiness = await service.ready()
        return JSONResponse(readiness, 200 if readiness.get("plain") or readiness.get("context") else 503)

    @app.get("/metrics", response_class=PlainTextResponse, responses={401: _PROBLEMS[401]}, summary="For Prometheus")
    async def metrics() -> str:
        return await service.metrics()

    for path, name in _PAGE_FILES.items():
        app.add_api_route(path, _file(name), methods=["GET"], include_in_schema=False)

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> Response:
        return problem(request.state.id, error.status, error.code, str(error), error.retry_after)

    @app.exception_handler(ValidationError)
    async def invalid(request: Request, error: ValidationError) -> Response:
        is_json = all(wrong["type"] != "json_invalid" for wrong in error.errors(include_input=False))
        status, code = (422, "invalid") if is_json else (400, "not_json")
        return problem(request.state.id, status, code, explain(error, TagRequest))

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            tree = get_openapi(title=app.title, version=app.version, routes=app.routes)
            _, definitions = models_json_schema(
                [(model, "validation") for model in (TagRequest, StreamedText, TextOut)],
                ref_template="#/components/schemas/{model}",
            )
            parts = tree.setdefault("components", {})
            parts["schemas"] = {**definitions["$defs"], **parts.get("schemas", {})}
            if keys:
                parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
                tree["security"] = [{"key": []}]
            app.openapi_schema = tree
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    app.add_middleware(_Guard, keys=keys, meter=service.meter)
    return app


def problem(request_id: str, status: int, code: str, message: str, retry_after: float | None = None) -> Response:
    """A response that describes an error as JSON; `retry_after` is in seconds."""
    headers = {"retry-after": str(max(1, round(retry_after)))} if retry_after is not None else {}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(
        Problem(error=code, message=message, request_id=request_id).model_dump(), status, headers=headers
    )


class _Answers(StreamingResponse):
    """A response that is sent while the request's body is still being read.

    Starlette's StreamingResponse also receives the request's messages, to notice a disconnect, and so takes parts of
    the body from its reader. Here the reader notices a disconnect; after the body's end, few lines are left to answer.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response without listening for a disconnect."""
        await self.stream_response(send)


class _Guard:
    """Middleware for every request: request id, API key, rate limit, security headers, access log, uncaught errors."""

    def __init__(self, app: ASGIApp, keys: Sequence[ApiKey], meter: Meter) -> None:
        self.app, self.keys, self.meter = app, keys, meter
        self.buckets = {
            key.name: _Bucket(key.requests_per_minute) for key in keys if key.requests_per_minute is not None
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and log and count it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, headers, status = time.perf_counter(), Headers(scope=scope), 500
        given = headers.get("x-request-id", "")  # Ray Serve's proxies set this header and return it themselves
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {}).update(id=request_id, said={})

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                if not given:
                    headers["x-request-id"] = request_id
                headers.setdefault("cache-control", "no-store")
            await send(message)

        name, refusal = self._caller(scope["path"], headers, request_id)
        try:
            await (refusal or self.app)(scope, receive, sent)
        except ClientDisconnect:
            status = 499  # nginx's code for a client that closed the connection; nobody reads an answer
        except Exception as error:
            # The message may contain the caller's text, so only the error's type and place are logged.
            place = error.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else "?"
            logger.error("request failed", extra={"request": request_id, "kind": type(error).__name__, "where": where})
            if status == 500:
                await problem(request_id, 500, "internal", "an error of the server's; see its log")(
                    scope, receive, sent
                )
        finally:
            self.meter.requested(status)
            logger.info(
                "access",
                extra={
                    "request": request_id,
                    "caller": name,
                    "method": scope["method"],
                    "path": scope["path"][:100],
                    "status": status,
                    "ms": round(1000 * (time.perf_counter() - started), 2),
                    **scope["state"]["said"],
                },
            )

    def _caller(self, path: str, headers: Headers, request_id: str) -> tuple[str | None, Response | None]:
        """The caller's name, and a refusal if the caller has no valid key or exceeds its rate."""
        if not self.keys or path in _OPEN:
            return None, None
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        digest = hashed(given)
        names = [key.name for key in self.keys if hmac.compare_digest(key.sha256, digest)]
        names = names if len(given) >= SHORTEST_KEY else []
        if not names:
            return None, problem(request_id, 401, "no_key", "wanted a valid key: Authorization: Bearer KEY")
        bucket = self.buckets.get(names[0])
        if bucket is not None and (seconds := bucket.take()) > 0:
            return names[0], problem(request_id, 429, "rate", "this key's rate is exceeded", seconds)
        return names[0], None


class _Bucket:
    """Number of requests that a caller may still make: at most those of one minute, refilled steadily."""

    def __init__(self, per_minute: int) -> None:
        self.most, self.left, self.since = float(per_minute), float(per_minute), time.monotonic()

    def take(self) -> float:
        """Take one request and return 0, or return the seconds until one is available."""
        now = time.monotonic()
        self.left = min(self.most, self.left + (now - self.since) * self.most / 60)
        self.since = now
        if self.left < 1:
            return (1 - self.left) * 60 / self.most
        self.left -= 1
        return 0.0


def _check_type(request: Request, wanted: set[str]) -> None:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in wanted:
        raise RefusedError(415, "content_type", f"content-type is not {' or '.join(sorted(wanted))}")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RefusedError(415, "content_encoding", "compressed bodies are not taken")


async def _read(request: Request, most: int) -> bytes:
    """The body; a body of more than `most` bytes is refused."""
    too_long = RefusedError(413, "too_long", f"a body of more than {most} bytes")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and len(length) < 20 and int(length) > most:
        raise too_long
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise too_long
    return bytes(body)


async def _lines(request: Request, most: int) -> AsyncIterator[bytes]:
    """The lines of a body. A line of more than `most` bytes may be cut; it stays too long, so it is refused later."""
    rest, skipping = b"", False
    async for part in request.stream():
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            if not skipping:
                yield line
            skipping = False
        if len(rest) > most:
            if not skipping:
                yield rest[: most + 1]
            rest, skipping = b"", True
    if rest and not skipping:
        yield rest


def _file(name: str) -> Any:
    async def page() -> FileResponse:
        return FileResponse(_PAGE / name)

    return page


def _reference(model: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _body(content_type: str, model: type[Any]) -> dict[str, Any]:
    content = {"schema": _reference(model), "examples": examples_of(model)}
    return {"requestBody": {"required": True, "content": {content_type: content}}}
