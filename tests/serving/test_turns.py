"""The order in which work goes to the replicas; the oracle is a simulation of one replica with a clock of its own."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from serving.policy import POLICY
from serving.turns import Flow, Turns
from tests.serving.conftest import run

MOST = POLICY.turn_pieces


class Replica:
    """Does one piece per tick, in the order of the turns; the ticks at which the items were done are kept."""

    def __init__(self) -> None:
        self.turns, self.ticks = Turns(lambda: 0.0), 0
        self.done = dict[str, int]()
        self.tasks = list[asyncio.Task[None]]()
        self._queue: asyncio.Queue[tuple[int, asyncio.Event]] = asyncio.Queue()

    def ask(self, name: str, flow: Flow, *sizes: int) -> None:
        """Add a flow's items."""
        for num, size in enumerate(sizes):
            is_small = len(sizes) == 1
            self.tasks.append(asyncio.ensure_future(self._one(f"{name}{num}", flow, size, is_small)))

    async def _one(self, name: str, flow: Flow, size: int, is_small: bool) -> None:
        async with self.turns.turn(flow, size, is_small=is_small):
            done = asyncio.Event()
            self._queue.put_nowait((size, done))
            await done.wait()
            self.done[name] = self.ticks

    async def work(self, until: int = 10**9) -> None:
        """Work until so many ticks have passed, or nothing is left."""
        await settle()
        while self.ticks < until and not self._queue.empty():
            size, done = self._queue.get_nowait()
            self.ticks += size
            done.set()
            await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def simulated(work: Callable[[Replica], Awaitable[None]]) -> Replica:
    async def whole() -> Replica:
        replica = Replica()
        await work(replica)
        assert replica.turns.used == 0
        assert replica.turns.waiting == 0
        return replica

    return run(whole)


@pytest.mark.parametrize("ticks", [0, 10_000])
def test_a_small_request_waits_only_for_what_is_at_the_replicas(ticks):
    """Before: it waited for all chunks of the large requests that had come earlier."""

    async def work(replica: Replica) -> None:
        for number in range(20):
            replica.ask(f"large{number}-", replica.turns.request(None), *[128] * 30)
        await replica.work(until=ticks)
        asked = replica.ticks
        replica.ask("small", replica.turns.request(None), 30)
        await replica.work()
        assert replica.done["small0"] - asked <= MOST + 30

    simulated(work)


def test_large_requests_share_what_small_ones_leave():
    async def work(replica: Replica) -> None:
        for number in range(2):
            replica.ask(f"large{number}-", replica.turns.request(None), *[100] * 100)
        await replica.work(until=9_000)
        counts = [sum(name.startswith(f"large{number}") for name in replica.done) for number in range(2)]
        assert max(counts) - min(counts) <= 5, "the first one had four before the other came"
        await replica.work()

    simulated(work)


@pytest.mark.parametrize("others", [1, 3])
def test_callers_have_equal_parts_however_much_they_ask(others):
    async def work(replica: Replica) -> None:
        for _ in range(200):
            replica.ask("a", replica.turns.request("a"), 30)
        for other in range(others):
            replica.ask(f"b{other}-", replica.turns.request(f"b{other}"), *[30] * 60)
        await replica.work(until=4_000)
        own = [sum(name.startswith(f"b{other}-") for name in replica.done) for other in range(others)]
        fair = 4_000 / 30 / (others + 1)
        assert min(own) >= 0.9 * fair - 2
        assert max(own) <= 1.1 * fair + 2
        await replica.work()

    simulated(work)


def test_streams_get_all_that_requests_leave_and_always_a_little():
    async def work(replica: Replica) -> None:
        replica.ask("line", replica.turns.stream(None), *[30] * 300)
        await replica.work(until=3_000)
        assert len(replica.done) == 100, "nothing else waits"
        for number in range(300):
            replica.ask(f"request{number}-", replica.turns.request(None), 30)
        await replica.work(until=3_000 + MOST + 8_500)
        lines = sum(name.startswith("line") for name in replica.done) - 100 - MOST / 30
        assert lines == pytest.approx(8_500 / 30 / 17, abs=4), "one part of seventeen"
        while sum(name.startswith("request") for name in replica.done) < 300:
            await replica.work(until=replica.ticks + 30)
        await replica.work()

    simulated(work)


def test_while_requests_come_streams_fill_only_a_part():
    async def work(replica: Replica) -> None:
        replica.ask("line", replica.turns.stream(None), *[10] * 100)
        await settle()
        assert replica.turns.used == MOST // 10 * 10
        replica.ask("request", replica.turns.request(None), 10)
        await replica.work(until=700)
        assert "request0" in replica.done
        assert replica.turns.used == POLICY.large_share * MOST // 10 * 10
        for _ in range(100):
            replica.ask("more", replica.turns.request(None), 30)
        await settle()
        assert replica.turns.used > MOST - 30, "a line whose turn it is keeps no request back"
        await replica.work()

    simulated(work)


def test_what_is_done_before_is_foreseen_exactly():
    """Where nothing else comes, for flows of equal chunks; the replica counts what it does."""

    async def work(replica: Replica) -> None:
        rng = random.Random(0)
        for caller in ("a", "a", "a", "b", "b"):
            replica.ask("x", replica.turns.request(caller), *[10] * rng.randrange(1, 60))
        replica.ask("s", replica.turns.stream("a"), *[10] * 200)
        await settle()
        for caller in ("a", "b", "c"):
            flow, size = replica.turns.request(caller), rng.randrange(1, 40) * 10
            foreseen = replica.turns.used + replica.turns.before(flow, size) + replica.ticks
            replica.ask(caller, flow, *[10] * (size // 10))
            await settle()
            while (last := f"{caller}{size // 10 - 1}") not in replica.done:
                await replica.work(until=replica.ticks + 10)
            assert replica.done[last] == pytest.approx(foreseen, rel=0.2, abs=100)
        await replica.work()

    simulated(work)


def test_a_waiter_that_is_gone_takes_no_turn():
    async def work(replica: Replica) -> None:
        flow = replica.turns.request(None)
        replica.ask("one", flow, MOST - 10, 50, 4 * MOST, 10, 10)
        await settle()
        replica.tasks[1].cancel()
        replica.tasks[4].cancel()
        await settle()
        assert replica.turns.waiting == 4 * MOST + 10
        await replica.work()
        assert list(replica.done) == ["one0", "one2", "one3"], "more than the bound goes alone"

    simulated(work)


def test_a_waiter_that_goes_as_its_turn_comes_gives_it_back():
    async def work(replica: Replica) -> None:
        replica.ask("one", replica.turns.request(None), MOST, 10)
        await settle()
        size, done = replica._queue.get_nowait()
        replica.ticks += size
        done.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        replica.tasks[1].cancel()
        await settle()

    simulated(work)


def test_more_goes_at_once_where_replicas_are_fast():
    assert Turns(lambda: 0.0).most == POLICY.turn_pieces
    assert Turns(lambda: 1e6).most == POLICY.turn_seconds * 1e6
