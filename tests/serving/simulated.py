"""An event loop with a clock of its own: where nothing is ready, it jumps to the next timer.

So what a test calls a second is one on any machine, and costs nothing. Not for threads or sockets: the clock would not
wait for them.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

MOST_SECONDS = 600.0
_STEP_SECONDS = 1e-6  # of each round of the loop


class _Clock(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = time.monotonic()

    def seconds(self) -> float:
        return self.now

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        self.now += (
            _STEP_SECONDS  # asyncio calls timers early by its clock's resolution; who asks again must not for ever
        )
        if not ready:
            assert timeout is not None, "all wait for what never comes"
            self.now += timeout
        return ready


def run_simulated(work: Callable[[], Awaitable[Any]]) -> Any:
    """A coroutine function's result, by the simulated clock; it may take `MOST_SECONDS` of it."""

    async def bounded() -> Any:
        async with asyncio.timeout(MOST_SECONDS):
            return await work()

    clock = _Clock()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("monotonic", "perf_counter"):
            patch.setattr(time, name, clock.seconds)
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(clock)) as runner:
            return runner.run(bounded())
