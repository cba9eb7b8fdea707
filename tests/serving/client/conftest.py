"""Clients of servers that say what a test wants, and what the clients wait for."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

import ctxner.client.http
from ctxner.client import AsyncClient, Client
from serving.service import Service
from serving.settings import ApiKey, hashed
from serving.web import make_app

KEY = "a-key-of-the-tests-1"
SECRET = "Zanzibar"
TEXT = "👍🏽 Paris Hilton sings in London . Müller in Paris ."
GOOD = {"results": [], "versions": {"model": "m"}, "views": {}, "reasons": {}, "timings_ms": {}, "request_id": "r"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Back-offs of at most some milliseconds."""
    monkeypatch.setattr(ctxner.client.http, "_FIRST_WAIT", 0.005)


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """What is waited between attempts, not waited for."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(ctxner.client.http.asyncio, "sleep", sleep)
    return found


def inside(service: Service, key: str | None = None, **how: Any) -> AsyncClient:
    keys = [ApiKey(name="k", sha256=hashed(KEY))] if key else []
    return AsyncClient("http://localhost", key, transport=httpx2.ASGITransport(app=make_app(service, keys)), **how)


def scripted(*answers: httpx2.Response | Exception, **how: Any) -> tuple[Client, list[httpx2.Request]]:
    """A client of a server that says these things, one after the other."""
    requests, left = list[httpx2.Request](), list(answers)

    def answer(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        own = left.pop(0)
        if isinstance(own, Exception):
            raise own
        return own

    return Client("http://test", transport=httpx2.MockTransport(answer), **how), requests


def problem(status: int, code: str, **headers: str) -> httpx2.Response:
    body = {"error": code, "message": "told", "request_id": "r-1"}
    return httpx2.Response(status, json=body, headers={name.replace("_", "-"): own for name, own in headers.items()})
