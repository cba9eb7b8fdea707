"""How a router ends: it takes no new work, finishes what is in work within a time, and says so where it cannot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

from serving.errors import RefusedError

T = TypeVar("T")
_LOOK_SECONDS, _QUIET_SECONDS = 0.02, 0.5


class Draining:
    """Whether the router is ending, and the work that it has to finish before.

    Attributes:
        begun: Whether the router has started to end.
        streams: Functions that are called then, one per open stream.
        num_open: Number of requests that are not answered to their end.
    """

    def __init__(self) -> None:
        self.begun = False
        self.streams = set[Callable[[], None]]()
        self.num_open = 0
        self._is_over = False
        self._works = set[asyncio.Future[Any]]()

    def refuse(self) -> None:
        """Refuse new work once the router is ending.

        Raises:
            RefusedError: The router is ending.
        """
        if self.begun:
            raise RefusedError(503, "draining", "the server is ending; try again later", retry_after=5)

    async def finish(self, work: asyncio.Future[T]) -> T:
        """The result of work.

        Raises:
            RefusedError: The work was not done when the time of `drain` was over.
        """
        self._works.add(work)
        try:
            return await work
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._is_over and not (task and task.cancelling()):
                message = "the server is ending and could not finish this; try again later"
                raise RefusedError(503, "draining", message, retry_after=5) from None
            raise
        finally:
            self._works.discard(work)

    async def drain(self, seconds: float) -> int:
        """Take no new work, finish what is in work within so many seconds, and give up the rest.

        Returns:
            Number of pieces of work that were given up.
        """
        self.begun = True
        for stop in list(self.streams):
            stop()
        await self._wait_until_quiet(seconds)
        self._is_over, given_up = True, list(self._works)
        for work in given_up:
            work.cancel()
        await self._wait_until_quiet(_QUIET_SECONDS)
        return len(given_up)

    async def _wait_until_quiet(self, seconds: float) -> None:
        """Wait until no request is open, and none has come for a moment, as others may still be on their way."""
        now = time.monotonic()
        until, quiet_since = now + seconds, now
        while now < until and now - quiet_since < _QUIET_SECONDS:
            await asyncio.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            quiet_since = now if self.num_open else quiet_since
