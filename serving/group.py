"""A group of equal replicas as a router sees it: how long it takes, whether it answers, and what its failures mean.

A call never waits for an answer beyond its deadline. One late call per group keeps running, so that the router
notices when the group has become fast again or has started from zero replicas.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException

from serving.errors import DownError, OverloadedError
from serving.latency import Latency
from serving.policy import POLICY, Policy


class Group:
    """Calls a group of equal replicas.

    Args:
        name: Name of the group in errors.
        call: Function that starts a call; its result is awaited, and cancelled together with the task.
        stall_seconds: Seconds without answer after which `alive` is called (no `alive`: group is down); None: never.
        alive: Call that even a slow replica answers at once; if it does, the group is not down.
        policy: Tuned numbers.
    """

    def __init__(
        self,
        name: str,
        call: Callable[..., Awaitable[Any]],
        *,
        stall_seconds: float | None = None,
        alive: Callable[[], Awaitable[Any]] | None = None,
        policy: Policy = POLICY,
    ) -> None:
        self._policy = policy
        self.name, self._call, self._stall_seconds, self._alive = name, call, stall_seconds, alive
        self.latency = Latency()
        self.is_down, self._down_since = False, 0.0
        self.answered = 0.0  # time of the last answer, by the event loop's clock
        self._probe: asyncio.Task[Any] | None = None
        self._probe_started = math.inf
        self._look: asyncio.Task[None] | None = None

    async def call(self, num: int, *arguments: Any, until: float) -> Any:
        """The replica's answer.

        Args:
            num: Sentences in the arguments.
            arguments: Arguments of the call.
            until: Deadline of the answer, by the event loop's clock.

        Raises:
            TimeoutError: The answer does not come in time.
            OverloadedError, DownError: See `serving.errors`.
        """
        if self.is_down and self._probe is not None:
            raise DownError(self.name)
        loop = asyncio.get_running_loop()
        task, started = asyncio.ensure_future(self._timed(num, *arguments)), loop.time()
        try:
            while not task.done() and (rest := self._patience(num, started, until)) > 0:
                await asyncio.wait({task}, timeout=min(rest, self._policy.look_seconds))
        except asyncio.CancelledError:
            self._let_go(task, started)
            raise
        if task.done():
            return task.result()
        self._let_go(task, started)
        if self.is_down:
            raise DownError(self.name)
        self.latency.add(num, loop.time() - started)  # the call takes at least this long
        raise TimeoutError(self.name)

    def _patience(self, num: int, started: float, until: float) -> float:
        """Seconds that a call may still wait: until its deadline, but only `retry_seconds` once the group is down."""
        now = asyncio.get_running_loop().time()
        if self._stall_seconds is not None:
            usual = max(
                self._stall_seconds, self._policy.stall_seconds_per_sentence * num, 4 * self.latency.expected(num)
            )
            if now > max(min(started, self._probe_started), self.answered) + usual and now < until:
                if self._alive is None:
                    self.mark_down()
                    return 0.0
                self._look = self._look or asyncio.ensure_future(self._look_after(self._alive))
        return (min(until, self._down_since + self._policy.retry_seconds) if self.is_down else until) - now

    def mark_down(self) -> None:
        """Mark the group as down until a call succeeds; while a late call is open, new calls fail at once."""
        if not self.is_down:
            self.is_down, self._down_since = True, asyncio.get_running_loop().time()

    async def _look_after(self, alive: Callable[[], Awaitable[Any]]) -> None:
        """Find out whether a group that does not answer is slow or down."""
        try:
            async with asyncio.timeout(self._policy.alive_seconds):
                await alive()
            self.answered = asyncio.get_running_loop().time()
        except (TimeoutError, RayError, RayServeException, DeploymentUnavailableError):
            self.mark_down()
        finally:
            self._look = None

    async def _timed(self, num: int, *arguments: Any) -> Any:
        started = time.perf_counter()
        for is_last in (False, True):
            try:
                answer = await self._call(*arguments)
            except BackPressureError as error:
                raise OverloadedError(self.name) from error
            except TimeoutError:  # the replica could not start the work in time
                raise
            except RayTaskError as error:  # our code failed, and would fail again
                raise DownError(self.name) from error
            except (RayError, RayServeException, DeploymentUnavailableError) as error:
                # The replica died during the call. The second attempt goes to another one, which may have yet to start.
                self.mark_down()
                if is_last:
                    raise DownError(self.name) from error
            else:
                self.is_down = False
                self.answered = asyncio.get_running_loop().time()
                self.latency.add(num, time.perf_counter() - started)
                return answer
        raise AssertionError

    def _let_go(self, task: asyncio.Task[Any], started: float) -> None:
        if self._probe is not None:
            task.cancel()
            task.add_done_callback(_seen)
            return
        self._probe, self._probe_started = task, started

        def ended(task: asyncio.Task[Any]) -> None:
            self._probe, self._probe_started = None, math.inf
            timer.cancel()
            _seen(task)

        timer = asyncio.get_running_loop().call_later(self._policy.probe_seconds, task.cancel)
        task.add_done_callback(ended)


def _seen(task: asyncio.Task[Any]) -> None:
    """Read the exception of a task that nobody awaits, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()
