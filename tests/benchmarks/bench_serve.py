"""Serving over HTTP on loopback, server and load generator on the same cores.

The sentences are those of `bench_tag`, the encoder the packaged MiniLM with untrained heads, the view plain.

- `serve_bulk`: lists of 256 texts from two clients, against the offline `Tagger.predict` on the same threads.
- `serve_stream`: a stream of each of two clients, one text a line, against the same.
- `serve_single`: one client with one text a request, against `Tagger.predict` of one text on a replica's threads: what
  router, Serve and HTTP leave of the model's own speed, by medians.
- `serve_pipeline`: 16 clients with one text a request, against FastAPI around Hugging Face's pipeline
  (`peer_pipeline_server.py`) with the same encoder.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ctxner.client import Client
from tests.benchmarks.bench_tag import save_model, sentences
from tests.benchmarks.load import closed_loop
from tests.benchmarks.serving import bodies, free_port, running, served

NAMES = ["serve_bulk", "serve_stream", "serve_single", "serve_pipeline"]
_SECONDS, _WARM_UP = 20.0, 5.0
_BULK, _CLIENTS = 256, 16


def main(names: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yield sentences, and requests, a second of both."""
    if not names:
        return
    texts = [" ".join(own.words) for own in sentences(4096)]
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / "model")
        with served("--model", f"{folder}/model", log=Path(folder) / "ours.log") as (port, _):
            bulk = bodies(texts, _BULK, view="plain")
            single = bodies(texts, view="plain")
            ours = {
                "serve_bulk": _per_second(port, bulk, 2) * _BULK if "serve_bulk" in names else 0.0,
                "serve_stream": _streamed(port, texts, 2) if "serve_stream" in names else 0.0,
                "serve_single": 1 / _median(port, single) if "serve_single" in names else 0.0,
                "serve_pipeline": _per_second(port, single, _CLIENTS) if "serve_pipeline" in names else 0.0,
            }
        if {"serve_bulk", "serve_stream"} & set(names):
            offline = _offline(Path(folder) / "model", texts)
            for name in ("serve_bulk", "serve_stream"):
                if name in names:
                    yield _figure(name, 0.7 if name == "serve_bulk" else 0.6, "sentences/s", ours[name], offline)
        if "serve_single" in names:
            alone = 1 / _median_alone(Path(folder) / "model", texts[:500])
            yield _figure("serve_single", 0.5, "1/s of a request's median", ours["serve_single"], alone)
        if "serve_pipeline" in names:
            other = free_port()
            command = [sys.executable, "-m", "tests.benchmarks.peer_pipeline_server", str(other)]
            with running(command, other, log=Path(folder) / "theirs.log", path="/openapi.json"):
                theirs = _per_second(other, bodies(texts), _CLIENTS)
            yield _figure("serve_pipeline", 2.0, "requests/s", ours["serve_pipeline"], theirs)


def _median(port: int, requests: Sequence[bytes]) -> float:
    asyncio.run(closed_loop(port, requests, clients=1, seconds=_WARM_UP))
    return statistics.median(asyncio.run(closed_loop(port, requests, clients=1, requests=500)).latencies)


def _median_alone(model: Path, texts: Sequence[str]) -> float:
    import torch

    from ctxner.predictor import Tagger

    torch.set_num_threads(1)  # as a replica
    tagger = Tagger.from_pretrained(model)
    seconds = []
    for text in [*texts[:50], *texts]:
        started = time.perf_counter()
        tagger.tag([text])
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[50:])


def _per_second(port: int, requests: Sequence[bytes], clients: int) -> float:
    asyncio.run(closed_loop(port, requests, clients=clients, seconds=_WARM_UP))
    found = asyncio.run(closed_loop(port, requests, clients=clients, seconds=_SECONDS))
    assert set(found.statuses) == {200}, found.statuses
    return len(found.latencies) / found.seconds


def _streamed(port: int, texts: Sequence[str], clients: int) -> float:
    def read(seconds: float) -> int:
        until, num = time.perf_counter() + seconds, 0
        with Client(f"http://127.0.0.1:{port}") as client:
            endless = itertools.takewhile(lambda _: time.perf_counter() < until, itertools.cycle(texts))
            for answer in client.stream(endless, view="plain"):
                assert answer.error is None, answer.error
                num += 1
        return num

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(read, [_WARM_UP] * clients))
        started = time.perf_counter()
        num = sum(pool.map(read, [_SECONDS] * clients))
    return num / (time.perf_counter() - started)


def _offline(model: Path, texts: Sequence[str]) -> float:
    import torch

    from ctxner.predictor import Tagger

    torch.set_num_threads(os.cpu_count() or 1)
    tagger = Tagger.from_pretrained(model)
    tagger.tag(texts[:512])
    started = time.perf_counter()
    tagger.tag(texts)
    return len(texts) / (time.perf_counter() - started)


def _figure(name: str, floor: float, unit: str, ours: float, theirs: float) -> dict[str, object]:
    return {
        "benchmark": name,
        "floor": floor,
        "unit": unit,
        "ratio": round(ours / theirs, 2),
        "ours": round(ours, 1),
        "reference": round(theirs, 1),
    }
