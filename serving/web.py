"""HTTP: paths, answers and errors. What holds for every request is in `serving.guard`, the page in `serving/page`.

Bodies are read in `serving.bodies`, within limits, and parsed by Pydantic, never decompressed or unpickled. No error
message or log line repeats their content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from pydantic import ValidationError
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from serving.admission import Callers
from serving.api import Problem, StreamedText, TagRequest, TagResponse, TextOut, examples_of
from serving.bodies import check_type, lines_of, read_body
from serving.errors import RefusedError
from serving.guard import Guard, StreamedAnswer, problem
from serving.service import Service
from serving.settings import ApiKey
from serving.streams import invalid, stream

_PAGE = Path(__file__).parent / "page"
_PAGE_FILES = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js"}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in (
        (400, "Not JSON"),
        (401, "No valid key"),
        (403, "Not one of the server's hosts, or a page of another one"),
        (408, "The body came too slowly"),
        (413, "Above a limit"),
        (415, "Not the content type, or compressed"),
        (422, "Not as described"),
        (429, "The key's rate is exceeded, or too many of its streams are open; see Retry-After"),
        (503, "Overloaded, or nobody can answer; see Retry-After"),
    )
}


def make_app(service: Service, keys: Sequence[ApiKey] = (), hosts: Sequence[str] = ()) -> FastAPI:
    """The web application of a service.

    Args:
        service: Tags the texts.
        keys: Who may send requests; without keys, everyone who can reach the server.
        hosts: Names by which a server without keys may be asked, besides those of this machine.
    """
    app = FastAPI(
        title="ctxner",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,  # a redirect would repeat the client's Host
    )

    @app.post(
        "/v1/tag",
        response_model=TagResponse,
        responses=_PROBLEMS,
        summary="Entities of texts",
        openapi_extra=_body("application/json", TagRequest),
    )
    async def tag(request: Request) -> Response:
        check_type(request, {"application/json"})
        raw = await read_body(request, service.limits, service.held)
        try:
            with service.entered(request.state.caller):
                answer = await service.tag(raw, request.state.id, request.state.caller)
        finally:
            service.held.bytes -= len(raw)
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
        response_class=StreamingResponse,
        summary="Entities of long lists, line by line",
        openapi_extra=_body("application/x-ndjson", StreamedText),
    )
    async def tag_stream(request: Request) -> Response:
        check_type(request, {"application/x-ndjson", "application/jsonl"})
        service.draining.refuse()
        lines = lines_of(request.stream(), service.limits)
        caller, said = request.state.caller, request.state.said
        answers = stream(service, lines, caller, said, request_id=request.state.id)
        return StreamedAnswer(answers, service.stream_entered(caller), service.limits.idle_seconds)

    @app.get("/v1/models", responses={401: _PROBLEMS[401]}, summary="What is served")
    async def models() -> dict[str, Any]:
        return await service.describe()

    @app.get("/healthz", summary="This router lives")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Who answers", responses={503: _PROBLEMS[503]})
    async def readyz() -> dict[str, bool]:
        service.draining.refuse()
        readiness = await service.ready()
        if not (readiness.get("plain") or readiness.get("context")):
            raise RefusedError(503, "unavailable", f"no view can answer; running: {_names(readiness)}", retry_after=1)
        return readiness

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses={401: _PROBLEMS[401], 503: _PROBLEMS[503]},
        summary="For Prometheus",
    )
    async def metrics() -> str:
        return await service.metrics()

    for path, name in _PAGE_FILES.items():
        app.add_api_route(path, _file(name), methods=["GET"], include_in_schema=False)

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> Response:
        return problem(request.state.id, error)

    @app.exception_handler(ValidationError)
    async def not_as_described(request: Request, error: ValidationError) -> Response:
        return problem(request.state.id, invalid(error, TagRequest))

    @app.exception_handler(HTTPException)
    async def no_such_path(request: Request, error: HTTPException) -> Response:
        code = {404: "no_such_path", 405: "method"}.get(error.status_code, "http")
        message = HTTPStatus(error.status_code).phrase.lower()
        answer = problem(request.state.id, RefusedError(error.status_code, code, message))
        answer.headers.update(error.headers or {})
        return answer

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
    callers = Callers(keys, service.limits)
    app.add_middleware(Guard, callers=callers, meter=service.meter, draining=service.draining, hosts=hosts)
    return app


def _file(name: str) -> Any:
    async def page() -> FileResponse:
        return FileResponse(_PAGE / name)

    return page


def _names(readiness: Mapping[str, bool]) -> str:
    return ", ".join(name for name, is_ready in readiness.items() if is_ready) or "nothing"


def _reference(model: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _body(content_type: str, model: type[Any]) -> dict[str, Any]:
    content = {"schema": _reference(model), "examples": examples_of(model)}
    return {"requestBody": {"required": True, "content": {content_type: content}}}
