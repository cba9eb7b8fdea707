"""Groups of replicas: calls that fail or hang, groups that are dead, slow, or come back."""

from __future__ import annotations

import asyncio

import pytest
from ray.exceptions import RayError

from serving.errors import DownError
from serving.group import Group
from tests.serving.simulated import run_simulated

pytestmark = pytest.mark.numeric


def test_a_call_that_fails_once_is_tried_once_more():
    calls = []

    async def call() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise RayError("died")
        return "answer"

    async def work() -> str:
        return await Group("g", call).call(1, until=asyncio.get_running_loop().time() + 5)

    assert run_simulated(work) == "answer"
    assert len(calls) == 2


def test_a_dead_group_is_not_waited_for_while_its_last_call_is_open():
    answering = asyncio.Event()
    calls = []

    async def call() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise RayError("died")
        await answering.wait()
        return "answer"

    async def work() -> str:
        loop, group = asyncio.get_running_loop(), Group("g", call)
        with pytest.raises(DownError):
            await group.call(1, until=loop.time() + 0.1)
        started = loop.time()
        with pytest.raises(DownError):
            await group.call(1, until=loop.time() + 10)
        assert loop.time() - started < 5, "not for 10 s"
        answering.set()
        await asyncio.sleep(0.01)
        assert not group.is_down
        return await group.call(1, until=loop.time() + 1)

    assert run_simulated(work) == "answer"


def test_a_group_that_answers_nothing_counts_as_down_and_is_noticed_when_it_comes_back():
    async def call() -> str:
        await asyncio.sleep(0.6)
        return "answer"

    async def work() -> str:
        loop, group = asyncio.get_running_loop(), Group("g", call, stall_seconds=0.2)
        started = loop.time()
        with pytest.raises(DownError):
            await group.call(1, until=started + 10)
        assert loop.time() - started < 5, "not for 10 s"
        await asyncio.sleep(0.5)
        assert not group.is_down
        return await group.call(1, until=loop.time() + 10)

    assert run_simulated(work) == "answer"


@pytest.mark.parametrize("lives", [True, False])
def test_a_slow_group_is_down_only_if_it_does_not_say_that_it_lives(lives):
    async def call() -> str:
        await asyncio.sleep(0.6)
        return "answer"

    async def alive() -> None:
        if not lives:
            raise RayError("died")

    async def work() -> str:
        loop, group = asyncio.get_running_loop(), Group("g", call, stall_seconds=0.1, alive=alive)
        for seconds in (0.4, 0.01):
            with pytest.raises(TimeoutError if lives else DownError):
                await group.call(1, until=loop.time() + seconds)
        await asyncio.sleep(0.3)
        assert not group.is_down
        return await group.call(1, until=loop.time() + 10)

    assert run_simulated(work) == "answer"
