"""Whose work goes to the replicas next: fair queueing over callers, their requests and their streams.

Only a short time's work is at the replicas; the rest waits here, in chunks. So a sentence waits for little of another
request, however large that is, and a request that has had little goes before one that has had much: of a caller's
requests, large ones get what small ones leave.

Source: Goyal, Vin and Cheng, "Start-time fair queueing" (1996), with its tree of classes.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from serving.policy import POLICY


@dataclass(slots=True)
class _Item:
    size: int
    is_small: bool
    turn: asyncio.Future[None]


@dataclass(slots=True, eq=False)
class Flow:
    """A request, a stream, or all of a caller's: a node of the tree.

    Attributes:
        parent: The node whose share this one divides with its siblings; None: the root.
        weight: Its part of that share, in proportion to its siblings'.
        waiting: Size of what waits in it and below it.
    """

    parent: Flow | None = None
    weight: float = 1.0
    waiting: int = 0
    _items: deque[_Item] = field(default_factory=deque)
    _flows: list[tuple[float, int, Flow]] = field(default_factory=list)  # those in which something waits; a heap
    _clock: float = 0.0  # what the flows below have had that had least when they were served
    _start: float = 0.0
    _finish: float = 0.0


class Turns:
    """Lets work through to the replicas, up to a bound, in a fair order.

    Args:
        speed: Returns the measured speed, in pieces per second; 0 while it is unknown.

    Attributes:
        used: Pieces at the replicas.
    """

    def __init__(self, speed: Callable[[], float]) -> None:
        self._speed, self.used = speed, 0
        self._num_small, self._last_small = 0, -math.inf  # those that wait; when the last one came
        self._root, self._numbers = Flow(), itertools.count()
        self._requests, self._streams = dict[str | None, Flow](), dict[str | None, Flow]()  # by the caller's name

    @property
    def most(self) -> int:
        """Pieces that may be at the replicas at once: the work of `POLICY.turn_seconds`."""
        return max(POLICY.turn_pieces, round(POLICY.turn_seconds * self._speed()))

    @property
    def waiting(self) -> int:
        """Pieces that wait for their turn."""
        return self._root.waiting

    def request(self, caller: str | None) -> Flow:
        """A new request of the caller."""
        self._meet(caller)
        return Flow(self._requests[caller])

    def stream(self, caller: str | None) -> Flow:
        """A new stream of the caller. Its lines go where requests leave room, and always a little."""
        self._meet(caller)
        return Flow(self._streams[caller])

    def _meet(self, caller: str | None) -> None:
        if caller not in self._requests:
            flow = Flow(self._root)
            self._requests[caller] = Flow(flow)
            self._streams[caller] = Flow(flow, POLICY.streams_weight)

    def before(self, flow: Flow, size: int) -> int:
        """Waiting pieces that go before so many more of the flow have gone, these included, if nothing else comes."""
        work = float(size)
        while flow.parent is not None:
            others = [other for _, _, other in flow.parent._flows if other is not flow]
            work += sum(min(other.waiting, work * other.weight / flow.weight) for other in others)
            flow = flow.parent
        return round(work)

    @asynccontextmanager
    async def turn(self, flow: Flow, size: int, *, is_small: bool = False) -> AsyncIterator[None]:
        """Wait until so many pieces of the flow may go to the replicas; more than the bound go alone.

        Args:
            flow: The request or the stream.
            size: Number of pieces.
            is_small: Whether they are a whole request, which others must not hold up.
        """
        item = _Item(size, is_small, asyncio.get_running_loop().create_future())
        self._add(flow, item)
        self._go()
        try:
            await item.turn
            yield
        finally:
            if item.turn.done() and not item.turn.cancelled():
                self.used -= item.size
            else:
                self._take(flow, item)
                item.size, item.is_small = 0, False
            self._go()

    def _add(self, flow: Flow, item: _Item) -> None:
        flow._items.append(item)
        if item.is_small:
            self._num_small += 1
            self._last_small = time.monotonic()
        is_new = len(flow._items) == 1
        flow.waiting += item.size
        while flow.parent is not None:
            if is_new:
                flow._start = max(flow.parent._clock, flow._finish)
                is_new = not flow.parent._flows
                self._push(flow.parent, flow)
            flow = flow.parent
            flow.waiting += item.size

    def _push(self, parent: Flow, flow: Flow) -> None:
        # Of two that have had as much, the one that asks for less now goes first.
        tag = flow._start + (flow._items[0].size / flow.weight if flow._items else 0.0)
        heapq.heappush(parent._flows, (tag, next(self._numbers), flow))

    def _go(self) -> None:
        """Let those go whose turn it is."""
        while self._root._flows:
            flow = self._root
            while flow._flows:
                flow = flow._flows[0][2]
            item = flow._items[0]
            if item.size and self.used and self.used + item.size > self._bound(item):
                return
            flow._items.popleft()
            self._take(flow, item)
            while flow.parent is not None:
                parent = flow.parent
                heapq.heappop(parent._flows)  # the flow is the first at each level
                parent._clock = max(parent._clock, flow._start)
                flow._finish = flow._start + item.size / flow.weight
                if flow._items or flow._flows:
                    flow._start = flow._finish
                    self._push(parent, flow)
                flow = parent
            if not item.turn.done():
                self.used += item.size
                item.turn.set_result(None)

    def _bound(self, item: _Item) -> float:
        """While small requests come but none waits, all else fills little: the next small one comes soon."""
        is_quiet = time.monotonic() - self._last_small > POLICY.quiet_seconds
        return self.most * (1.0 if item.is_small or self._num_small or is_quiet else POLICY.large_share)

    def _take(self, flow: Flow | None, item: _Item) -> None:
        """The item waits no longer."""
        self._num_small -= item.is_small
        while flow is not None:
            flow.waiting -= item.size
            flow = flow.parent
