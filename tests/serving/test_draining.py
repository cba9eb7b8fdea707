"""The end of a router: what is in work is answered or told so, and nothing new is taken."""

from __future__ import annotations

import asyncio
import time

import httpx2

from serving.service import Service
from tests.serving.online import drained
from tests.serving.streaming import Connection, line


def test_a_router_that_ends_answers_what_is_in_work_and_nothing_new(local):
    local.seconds["plain"] = 1.0
    body = {"texts": ["London"], "view": "plain"}

    async def work(url: str, service: Service) -> None:
        async with httpx2.AsyncClient() as client:
            open_ones = [asyncio.ensure_future(client.post(f"{url}/v1/tag", json=body)) for _ in range(20)]
            connection = await Connection.to(url)
            await connection.send(line("Paris"))
            while service.requests.held < 21:
                await asyncio.sleep(0.01)
            ending = asyncio.ensure_future(client.get(f"{url}/drain?20", timeout=30))
            await asyncio.sleep(0.05)
            refused = await client.post(f"{url}/v1/tag", json=body)
            assert (refused.status_code, refused.json()["error"]) == (503, "draining")
            assert refused.headers["retry-after"]
            assert (await client.get(f"{url}/readyz")).status_code == 503
            assert (await client.get(f"{url}/healthz")).status_code == 200
            assert {answer.status_code for answer in await asyncio.gather(*open_ones)} == {200}
            await connection.head()
            answers = [await connection.line(), await connection.line()]
            assert [answer.get("code") for answer in answers] == [None, "draining"]
            assert (await ending).text == "0"

    drained(local, work)


def test_what_cannot_be_finished_in_time_is_told_so(local):
    local.seconds.update(plain=60, context=60)
    body = {"texts": ["London"], "view": "plain"}

    async def work(url: str, service: Service) -> None:
        async with httpx2.AsyncClient() as client:
            open_one = asyncio.ensure_future(client.post(f"{url}/v1/tag", json=body))
            connection = await Connection.to(url)
            await connection.send(line("Paris"))
            while service.requests.held < 2 or not service.room.held:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            started = time.monotonic()
            assert (await client.get(f"{url}/drain?0.5")).text == "2"
            assert time.monotonic() - started < 20, "not 60 s"
            answer = await open_one
            assert (answer.status_code, answer.json()["error"]) == (503, "draining")
            await connection.head()
            assert [(await connection.line())["code"] for _ in range(2)] == ["draining"] * 2

    drained(local, work)
