"""Batches: what waits is taken together, in order, within the size, and nobody waits for another's failure for ever."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from serving.batching import Batcher, Item
from tests.serving.conftest import run


def item(work: Any, size: int = 1) -> Item:
    return Item(work, size, math.inf)


def test_what_comes_while_a_batch_is_in_work_is_the_next_batch():
    batches, free = [], threading.Event()

    def work(items: Sequence[Item]) -> list[int]:
        batches.append([own.work for own in items])
        free.wait(10)
        return [10 * own.work for own in items]

    async def both() -> list[int]:
        batcher = Batcher(work, 4, ThreadPoolExecutor(1))
        tasks = [asyncio.ensure_future(batcher(item(number))) for number in range(10)]
        await asyncio.sleep(0.1)
        tasks[3].cancel()
        free.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = run(both)
    assert [own for own in found if isinstance(own, int)] == [0, 10, 20, 40, 50, 60, 70, 80, 90]
    assert batches[0] in ([0], [0, 1, 2, 3])
    assert all(len(own) <= 4 for own in batches)
    assert len(batches) <= 4


def test_an_item_above_the_size_is_a_batch_of_its_own():
    batches = []

    def work(items: Sequence[Item]) -> list[int]:
        batches.append([own.work for own in items])
        time.sleep(0.02)
        return [own.work for own in items]

    async def both() -> list[int]:
        batcher = Batcher(work, 4, ThreadPoolExecutor(1))
        return await asyncio.gather(*(batcher(item(n, size)) for n, size in enumerate([1, 9, 2, 2, 2])))

    assert run(both) == [0, 1, 2, 3, 4]
    assert [1] in batches
    assert [2, 3] in batches


def test_a_failing_batch_fails_alone():
    def work(items: Sequence[Item]) -> list[int]:
        if any(own.work == 0 for own in items):
            raise ValueError("zero")
        return [own.work for own in items]

    async def both() -> int:
        batcher = Batcher(work, 1, ThreadPoolExecutor(1))
        with pytest.raises(ValueError, match="zero"):
            await batcher(item(0))
        return await batcher(item(1))

    assert run(both) == 1


def test_an_item_knows_when_it_is_late():
    assert Item(0, 1, time.time() - 1).is_late
    assert not item(0).is_late
