"""A service whose replicas are coroutines in this process: a real tagger, passages from a dictionary, no Ray."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
import uvicorn.config

from ctxner.predictor import Tagger
from ctxner.schema import Example, Sentence
from ctxner.texts import as_scored
from serving import front
from serving.answers import Retrieved, Tagged
from serving.front import BoundedProtocol, Front
from serving.group import Group
from serving.routing import Routing
from serving.service import Service
from serving.settings import ApiKey, Limits
from serving.web import make_app


@dataclass
class Local:
    """Replicas in this process; tests make them slow, fail, or answer nothing.

    Attributes:
        seconds: That a group's call takes at least.
        errors: What a group's call raises.
        calls: The groups that were called, with the view.
    """

    tagger: Tagger
    seconds: dict[str, float] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    passages: Callable[[Sentence], Sequence[str] | None] = lambda sentence: [" ".join(sentence.words[:3]) + " ."]

    def group(self, name: str) -> Group:
        async def tag(examples: Sequence[Example], view: str, seconds: float) -> Tagged:
            await self._enter(name, view)
            return Tagged(self.tagger.predict(examples, view=view), name)  # type: ignore[arg-type]

        async def retrieve(sentences: Sequence[Sentence], seconds: float) -> Retrieved:
            await self._enter(name, "")
            found = [self.passages(own) for own in sentences]
            return Retrieved([None if own is None else as_scored(own) for own in found], "v1")

        return Group(name, retrieve if name == "retriever" else tag)

    async def _enter(self, name: str, view: str) -> None:
        self.calls.append((name, view))
        if name in self.errors:
            raise self.errors[name]
        await asyncio.sleep(self.seconds.get(name, 0))

    def routing(self, *, threshold: float | None = 0.5, with_retriever: bool = True) -> Routing:
        retriever = self.group("retriever") if with_retriever else None
        return Routing(self.group("plain"), self.group("context"), retriever, threshold=threshold)


class Counts:
    """A meter that keeps what it is told."""

    def __init__(self) -> None:
        self.views: dict[str, int] = {}
        self.pieces: list[int] = []
        self.statuses: list[int] = []

    def answered(self, views: Mapping[Any, int], reasons: Mapping[Any, int], seconds: Mapping[str, float]) -> None:
        for name, num in views.items():
            self.views[name] = self.views.get(name, 0) + num

    def waiting(self, pieces: int) -> None:
        self.pieces.append(pieces)

    def requested(self, status: int) -> None:
        self.statuses.append(status)


@pytest.fixture
def local(tagger: Tagger) -> Local:
    return Local(tagger)


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """HTTP servers that start now bound what a connection may do, as Serve's do, with a second for headers."""
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", "unset")
    assert [middleware.cls for middleware in front.middlewares()] == [Front]
    monkeypatch.setattr(BoundedProtocol, "header_seconds", 1.0)
    yield
    assert not BoundedProtocol._open


def make_service(routing: Routing, *, callers: int = 1, **limits: Any) -> Service:
    async def describe() -> dict[str, Any]:
        return {"plain": {"types": ["person", "place"]}}

    async def ready() -> dict[str, bool]:
        return {"plain": not routing.plain.is_down}

    async def metrics() -> str:
        return "# HELP ray_ctxner_sentences x\n"

    return Service(
        routing, Limits(**limits), Counts(), describe=describe, ready=ready, metrics=metrics, callers=callers
    )


def client_of(service: Service, keys: Sequence[ApiKey] = ()) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=make_app(service, keys))
    return httpx2.AsyncClient(transport=transport, base_url="http://localhost")


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    """A coroutine function's result; every test has an event loop of its own, and an end."""

    async def bounded() -> Any:
        async with asyncio.timeout(60):
            return await work()

    return asyncio.run(bounded())


def seconds_since(started: float) -> float:
    return time.perf_counter() - started
