"""A request to a service without a port or a Ray."""

from __future__ import annotations

import json
from typing import Any

import httpx2

from tests.serving.conftest import client_of, run

TEXT = "Paris Hilton sings in London, so? Müller 👍🏽 Paris."
JSON = {"content-type": "application/json"}


def post(
    service: Any, body: Any, *, keys: Any = (), path: str = "/v1/tag", headers: dict[str, str] | None = None
) -> Any:
    async def work() -> httpx2.Response:
        async with client_of(service, keys) as client:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            return await client.post(path, content=content, headers={**JSON, **(headers or {})})

    return run(work)
