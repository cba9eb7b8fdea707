"""What each hostile request costs the server, beside an honest one: CPU time by kind of process.

`python -m tests.benchmarks.attack_costs [--attack NAME] [--times N]`: a JSON line for one honest sentence in the view
`auto` and for each attack, N at once, from the first until all have ended. Milliseconds of CPU per request, less what
the idle server takes in that time; `ratio` is to the honest request. Ray's other processes are left out: what they do
by themselves differs more from minute to minute than many an attack costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.benchmarks.attacks import ATTACKS, Attack
from tests.benchmarks.load import closed_loop
from tests.benchmarks.serving import bodies
from tests.benchmarks.soak import DEADLINE_MS, small_server
from tests.benchmarks.usage import KINDS, usage

_IDLE_SECONDS, _HONEST_SECONDS, _WARM_UP = 15.0, 10.0, 10.0


def main(attacks: Sequence[Attack], times: int) -> None:
    """Serve, attack, print."""
    with small_server() as (texts, port, pid):
        requests = bodies(texts, view="auto", deadline_ms=DEADLINE_MS)
        asyncio.run(closed_loop(port, requests, clients=4, seconds=_WARM_UP))
        _, before = usage(pid)
        time.sleep(_IDLE_SECONDS)
        idle = Counter({kind: value / _IDLE_SECONDS for kind, value in _since(before, pid).items()})
        (_, before), began = usage(pid), time.monotonic()
        load = asyncio.run(closed_loop(port, requests, clients=4, seconds=_HONEST_SECONDS))
        honest = _line("honest", len(load.latencies), before, began, pid, idle)
        print(json.dumps(honest | {"ratio": 1.0}), flush=True)
        for attack in attacks:
            (_, before), began = usage(pid), time.monotonic()
            said = asyncio.run(_at_once(attack, port, times))
            line = _line(attack.__name__, times, before, began, pid, idle)
            line |= {"ratio": round(line["ms"] / honest["ms"], 1), "got": said}
            print(json.dumps(line), flush=True)


async def _at_once(attack: Attack, port: int, times: int) -> dict[str, int]:
    return dict(Counter(await asyncio.gather(*(attack(port) for _ in range(times)))))


def _since(before: Counter[str], pid: int) -> Counter[str]:
    _, now = usage(pid)
    now.subtract(before)
    return now


def _line(name: str, num: int, before: Counter[str], began: float, pid: int, idle: Counter[str]) -> dict[str, Any]:
    used, seconds = _since(before, pid), time.monotonic() - began
    each = {kind: round(1000 * (used[kind] - seconds * idle[kind]) / num, 1) for kind in KINDS.values()}
    return {"name": name, "requests": num, "seconds": round(seconds, 1), "ms": round(sum(each.values()), 1), **each}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    kinds = {attack.__name__: attack for attack in ATTACKS}
    parser.add_argument("--attack", action="append", choices=list(kinds), help="only this kind; may be repeated")
    parser.add_argument("--times", type=int, default=20)
    arguments = parser.parse_args()
    main([kinds[name] for name in arguments.attack or kinds], arguments.times)
