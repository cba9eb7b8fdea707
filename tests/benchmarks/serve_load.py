"""Closed and open loops against `ctxner serve`.

`python -m tests.benchmarks.serve_load MODEL INDEX [VIEW...] [-- OPTION...]`; options are the command's.

The texts are WNUT-17's test sentences (the demo world's without the shared data), one a request, each view by itself:
1, 4, 16 and 64 clients; then a Poisson process at 50, 90 and 150% of what 16 clients got, with a deadline, and after it
four clients again. One JSON line a run, with the memory of all of the server's processes.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path

import psutil

from ctxner.demo import make_world
from ctxner.files.sentences import iter_sentences
from tests.benchmarks.load import Load, closed_loop, open_loop
from tests.benchmarks.serving import bodies, served

_WNUT = Path(__file__).parents[3] / "shared" / "data" / "wnut17"
_SECONDS, _WARM_UP = 10.0, 4.0
_CLIENTS = (1, 4, 16, 64)
_DEADLINE_MS = {"plain": 500, "context": 1000, "auto": 1000}


def main(model: str, index: str, views: list[str], more: list[str]) -> None:
    """Run all loops, with more of the command's options."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--model", model, "--index", index, "--set", "cached_sentences=0", *more]
        with served(*options, log=Path(folder) / "serve.log") as (port, pid):
            for view in views:
                _view(view, port, pid)


def _view(view: str, port: int, pid: int) -> None:
    requests = bodies(_texts(), view=view)
    asyncio.run(closed_loop(port, requests, clients=4, seconds=_WARM_UP))
    capacity = 0.0
    for clients in _CLIENTS:
        load = asyncio.run(closed_loop(port, requests, clients=clients, seconds=_SECONDS, keep=True))
        _show(load, pid, view=view, loop="closed", clients=clients)
        capacity = len(load.latencies) / load.seconds if clients == 16 else capacity
    bounded = bodies(_texts(), view=view, deadline_ms=_DEADLINE_MS[view])
    for percent in (50, 90, 150):
        load = asyncio.run(open_loop(port, bounded, rate=capacity * percent / 100, seconds=_SECONDS, keep=True))
        _show(load, pid, view=view, loop="open", percent=percent, deadline_ms=_DEADLINE_MS[view])
    load = asyncio.run(closed_loop(port, bounded, clients=4, seconds=_SECONDS, keep=True))
    _show(load, pid, view=view, loop="closed", clients=4, note="after 150%")


def _show(load: Load, pid: int, **about: object) -> None:
    reasons: dict[str, int] = {}
    own, all_of_it = 0.0, 0
    for _, body in load.bodies:
        answer = json.loads(body)
        timings = answer["timings_ms"]
        own += sum(timings.get(name, 0.0) for name in ("plain", "retrieve", "context"))
        all_of_it += 1
        for name, num in answer["reasons"].items():
            reasons[name] = reasons.get(name, 0) + num
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    mib = sum(one.memory_info().rss for one in processes) >> 20
    stages = {"stages_mean_ms": round(own / all_of_it, 1)} if all_of_it else {}
    print(json.dumps({**about, **load.figures(), **stages, "reasons": reasons, "mib": mib}), flush=True)


def _texts() -> list[str]:
    files = sorted(_WNUT.glob("*test*.conll"))
    sentences = list(iter_sentences(files)) if files else make_world(num_train=1000).train
    return [" ".join(own.words) for own in sentences]


if __name__ == "__main__":
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    main(sys.argv[1], sys.argv[2], sys.argv[3:end] or ["plain", "auto", "context"], sys.argv[end + 1 :])
