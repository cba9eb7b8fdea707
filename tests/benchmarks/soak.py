"""A long run at 80% of capacity with 5% hostile requests: memory, latency, refusals, and wrong or lost answers.

`python -m tests.benchmarks.soak [MINUTES] [--out FOLDER] [--attack NAME] [--load SHARE] [--keys]`, also
`make soak MINUTES=30`. With --keys the usual clients have one key and the attackers another.
A server with a small untrained encoder (2 layers, width 64) and the index of an invented world is asked what it
answered at rest; requests come at random times (a Poisson process). `soak.jsonl` has a line per second and then one
with the whole run; `soak.svg` is drawn from it. Memory is the resident memory of all processes of the server. The
number of replicas is fixed, as many as `serving/serve.yaml` begins with: memory then grows only by what is leaked or
kept, and not by a step for each replica that autoscaling starts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ctxner.demo import make_world, write_world
from tests.benchmarks.attacks import ATTACKS, KEY, Attack
from tests.benchmarks.load import Connection, closed_loop
from tests.benchmarks.serving import bodies, served
from tests.benchmarks.soak_plot import plot
from tests.benchmarks.tag_growth import save_small_model
from tests.benchmarks.usage import usage
from tests.integration.built import build_index

ROOT = Path(__file__).parents[2]
FIGURES, SERVE_YAML = ROOT / "docs" / "figures", ROOT / "serving" / "serve.yaml"
NO_KEYS = ("", "")
LOAD, HOSTILE, DEADLINE_MS, CLIENTS = 0.8, 0.05, 1000, 16
_TRIES = 20  # another view answers while replicas start
_WARM_UP, _CAPACITY_SECONDS, _SETTLED_SECONDS, _IDLE_SECONDS = 20.0, 20.0, 300.0, 10.0
Answer = tuple[str, list[Any]]  # view, entities


@dataclass
class Second:
    """What came of the requests that ended within a second."""

    latencies: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class Soak:
    """The run: its clients, and what they count.

    Args:
        port: Port of the server.
        requests: Bodies of requests for one sentence each, view `auto`.
        known: For each of them, the right answers by view.
        attacks: Kinds of hostile requests.
        keys: Keys of the usual clients and of the attackers; empty: the server has none.
    """

    def __init__(
        self,
        port: int,
        requests: Sequence[bytes],
        known: Sequence[dict[str, list[Any]]],
        attacks: Sequence[Attack] = ATTACKS,
        keys: tuple[str, str] = NO_KEYS,
    ) -> None:
        self.port, self.requests, self.known, self.kinds = port, requests, known, attacks
        self._key, hostile = keys
        KEY.set(hostile)
        self.seconds = defaultdict[int, Second](Second)
        self.attacks, self.refusals = defaultdict[str, Counter[str]](Counter), Counter[str]()
        self._idle, self._rng = list[tuple[float, Connection]](), random.Random(0)
        self._started = time.perf_counter()

    async def run(self, rate: float, seconds: float) -> None:
        """Send so many requests per second for so long, and wait for their answers."""
        tasks, due, number = set[asyncio.Task[None]](), 0.0, 0
        self._started = time.perf_counter()
        while due < seconds:
            await asyncio.sleep(max(0.0, self._started + due - time.perf_counter()))
            hostile = self._rng.random() < HOSTILE
            task = asyncio.ensure_future(self._attack() if hostile else self._ask(number, self._started + due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            due, number = due + self._rng.expovariate(rate), number + 1
        await asyncio.gather(*tasks)

    @property
    def now(self) -> int:
        """The second of the run."""
        return int(time.perf_counter() - self._started)

    async def _ask(self, number: int, wanted: float) -> None:
        """A request; its latency counts from when it should have been sent."""
        place, connection = number % len(self.requests), self._connection()
        status, body = await connection.post("/v1/tag", self.requests[place])
        self._idle.append((time.perf_counter(), connection))
        second, latency = self.seconds[self.now], time.perf_counter() - wanted
        if status == 200:
            second.latencies.append(latency)
            view, entities = answer_of(body)
            second.counts["wrong"] += self.known[place].get(view) != entities
            second.counts[view] += 1
        else:
            second.counts["refused" if status in {429, 503} else "lost"] += 1
            self.refusals[f"{status} {error_of(body)}"] += 1

    def _connection(self) -> Connection:
        """A connection that the server has not closed as idle."""
        while self._idle:
            since, connection = self._idle.pop()
            if time.perf_counter() - since < _IDLE_SECONDS:
                return connection
            connection.close()
        return Connection(self.port, self._key)

    async def _attack(self) -> None:
        attack = self._rng.choice(self.kinds)
        self.attacks[attack.__name__][await attack(self.port)] += 1
        self.seconds[self.now].counts["attacks"] += 1


def answer_of(body: bytes) -> Answer:
    """The view and the entities of an answer to one sentence."""
    (result,) = json.loads(body)["results"]
    (sentence,) = result["sentences"]
    return sentence["view"], [[each["start"], each["end"], each["type"]] for each in result["entities"]]


def error_of(body: bytes) -> str:
    """What an answer says that is no result."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError):
        return body[:80].decode("utf-8", "replace")


async def right_answers(port: int, texts: Sequence[str], key: str = "") -> list[dict[str, list[Any]]]:
    """What the server answers at rest, asked one by one in each view."""
    connection, known = Connection(port, key), list[dict[str, list[Any]]]()
    for text in texts:
        answers = {}
        for view in ("plain", "context"):
            (request,) = bodies([text], view=view)
            for _ in range(_TRIES):
                status, body = await connection.post("/v1/tag", request)
                if status == 200 and (answer_of(body)[0] == view or b'"no_hits"' in body):
                    break
            else:
                raise RuntimeError(f"{text!r}: asked for {view} at rest, got status {status} or another view")
            answered, entities = answer_of(body)
            answers[answered] = entities
        known.append(answers)
    connection.close()
    return known


async def watched(work: Coroutine[Any, Any, None], soak: Soak, pid: int, show: Callable[[Any], None]) -> list[Any]:
    """The lines of the seconds, while the work is done."""
    task, lines, before = asyncio.ensure_future(work), list[Any](), Counter[str]()
    while not task.done():
        await asyncio.wait({task}, timeout=1.0)
        mib, seconds = await asyncio.to_thread(usage, pid)
        seconds["clients"] = time.process_time()
        number = soak.now - 1
        second = soak.seconds[number]
        ranked = sorted(second.latencies)
        line = {"s": number, "mib": round(mib), "answered": len(ranked)}
        for percent in (50, 99):
            place = min(len(ranked) - 1, len(ranked) * percent // 100)
            line[f"p{percent}_ms"] = round(1000 * ranked[place], 1) if ranked else None
        line |= {name: second.counts[name] for name in ("refused", "wrong", "lost", "attacks")}
        line["cpu"] = {kind: round(used - before[kind], 2) for kind, used in seconds.items()} if before else {}
        before = seconds
        lines.append(line)
        show(line)
    task.result()
    return lines


def summary(soak: Soak, lines: Sequence[Any], **about: Any) -> dict[str, Any]:
    """The whole run in one line."""
    total, latencies = Counter[str](), list[float]()
    for second in soak.seconds.values():
        total.update(second.counts)
        latencies += second.latencies
    ranked = sorted(latencies)
    settled = [line["mib"] for line in lines if line["s"] >= min(_SETTLED_SECONDS, lines[-1]["s"] / 2)]
    fifth = max(1, len(settled) // 5)
    first, last = (sum(part) / fifth for part in (settled[:fifth], settled[-fifth:]))
    return {
        **about,
        "answered": len(ranked),
        **{name: total[name] for name in ("plain", "context", "refused", "wrong", "lost", "attacks")},
        "p50_ms": round(1000 * ranked[len(ranked) // 2], 1),
        "p99_ms": round(1000 * ranked[len(ranked) * 99 // 100], 1),
        "most_ms": round(1000 * ranked[-1], 1),
        "mib_settled": round(first),
        "mib_end": round(last),
        "mib_most": max(settled),
        "growth_percent": round(100 * (last / first - 1), 1),
        "refusals": dict(soak.refusals),
        "what_attacks_got": {name: dict(counts) for name, counts in sorted(soak.attacks.items())},
    }


@contextmanager
def small_server(keys: tuple[str, str] = NO_KEYS) -> Iterator[tuple[list[str], int, int]]:
    """A server with a small untrained encoder and the index of an invented world: its texts, port and process id."""
    world = make_world(num_train=300, num_dev=8, num_test=0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_world(world, folder)
        save_small_model(folder / "model")
        build_index(folder)
        file = _fixed_replicas(folder / "serve.yaml")
        options = ["--config", str(file), "--model", str(folder / "model"), "--index", str(folder / "index")]
        options += ["--set", "retrieval.rerank=false", "--set", "threshold=0.5"]
        named = ",".join(f"{name}:{key}" for name, key in zip(("usual", "hostile"), keys, strict=True) if key)
        environment = {"CTXNER_API_KEYS": named} if named else {}
        with served(*options, log=folder / "serve.log", environment=environment) as (port, pid):
            yield [" ".join(sentence.words) for sentence in world.train], port, pid


def _fixed_replicas(path: Path) -> Path:
    """Write `serving/serve.yaml` with as many replicas of each kind at most as at least."""
    tree = yaml.safe_load(SERVE_YAML.read_text())
    for deployment in tree["applications"][0]["deployments"]:
        scaling = deployment["autoscaling_config"]
        scaling["max_replicas"] = scaling["min_replicas"]
    path.write_text(yaml.safe_dump(tree))
    return path


def main(minutes: float, out: Path, attacks: Sequence[Attack], share: float, keys: tuple[str, str] = NO_KEYS) -> None:
    """Serve, measure, write, draw."""
    with small_server(keys) as (texts, port, pid):
        known = asyncio.run(right_answers(port, texts, keys[0]))
        requests = bodies(texts, view="auto", deadline_ms=DEADLINE_MS)
        asyncio.run(closed_loop(port, requests, clients=4, seconds=_WARM_UP, key=keys[0]))
        load = asyncio.run(closed_loop(port, requests, clients=CLIENTS, seconds=_CAPACITY_SECONDS, key=keys[0]))
        capacity = len(load.latencies) / load.seconds
        about = {"minutes": minutes, "capacity": round(capacity, 1), "load": share, "deadline_ms": DEADLINE_MS}
        print(json.dumps(about), flush=True)
        soak = Soak(port, requests, known, attacks, keys)
        work = soak.run(share * capacity, 60 * minutes)
        lines = asyncio.run(watched(work, soak, pid, lambda line: print(json.dumps(line), flush=True)))
    lines.append(summary(soak, lines, **about))
    print(json.dumps(lines[-1]))
    out.mkdir(parents=True, exist_ok=True)
    (out / "soak.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plot(lines[:-1], out / "soak.svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("minutes", nargs="?", type=float, default=30)
    parser.add_argument("--out", type=Path, default=FIGURES)
    kinds = {attack.__name__: attack for attack in ATTACKS}
    parser.add_argument("--attack", action="append", choices=list(kinds), help="only this kind; may be repeated")
    parser.add_argument("--load", type=float, default=LOAD, help="share of the capacity, hostile requests included")
    parser.add_argument("--keys", action="store_true", help="the usual clients have one key, the attackers another")
    arguments = parser.parse_args()
    keys = (secrets.token_hex(), secrets.token_hex()) if arguments.keys else NO_KEYS
    main(arguments.minutes, arguments.out, [kinds[name] for name in arguments.attack or kinds], arguments.load, keys)
