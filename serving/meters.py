"""Counts and durations, handed to Ray, which exports them for Prometheus on every node."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2
import ray
from ray.serve import metrics

from serving.errors import RefusedError

_MS: list[float] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 30000]
_PIECES: list[float] = [16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384]
_TIMEOUT = 2.0  # seconds to wait for a node's metrics
_MOST_BYTES = 32 << 20


class RouterMeter:
    """Counts and latencies of a router."""

    def __init__(self) -> None:
        self._sentences = metrics.Counter(
            "ctxner_sentences", description="Sentences answered, by view and reason.", tag_keys=("view",)
        )
        self._reasons = metrics.Counter(
            "ctxner_reasons", description="Sentences by the reason of the view that answered.", tag_keys=("reason",)
        )
        self._requests = metrics.Counter(
            "ctxner_requests", description="Requests by HTTP status.", tag_keys=("status",)
        )
        self._seconds = metrics.Histogram(
            "ctxner_stage_ms", description="Latency by stage, in ms.", boundaries=_MS, tag_keys=("stage",)
        )
        self._pieces = metrics.Gauge("ctxner_waiting_pieces", description="Pieces in work or waiting at a router.")

    def answered(self, views: Mapping[Any, int], reasons: Mapping[Any, int], seconds: Mapping[str, float]) -> None:
        """Add the sentences of a request by view and by reason, and the seconds per stage."""
        for view, num in views.items():
            self._sentences.inc(num, {"view": view})
        for reason, num in reasons.items():
            self._reasons.inc(num, {"reason": reason})
        for stage, second in seconds.items():
            self._seconds.observe(1000 * second, {"stage": stage})

    def waiting(self, pieces: int) -> None:
        """Set the number of pieces in work or waiting."""
        self._pieces.set(pieces)

    def requested(self, status: int) -> None:
        """Count a request that has ended with this HTTP status."""
        self._requests.inc(1, {"status": str(status)})


class BatchMeter:
    """Sizes and durations of a replica's batches, sentences given up, and cache hits."""

    def __init__(self) -> None:
        self._pieces = metrics.Histogram(
            "ctxner_batch_pieces", description="Pieces of a batch, about.", boundaries=_PIECES
        )
        self._ms = metrics.Histogram("ctxner_batch_ms", description="What a batch took, in ms.", boundaries=_MS)
        self._expired = metrics.Counter("ctxner_expired", description="Sentences given up before their turn came.")
        self._cache = metrics.Counter(
            "ctxner_retrieval_cache", description="Sentences looked up, by what the cache had.", tag_keys=("result",)
        )

    def batch(self, pieces: int, seconds: float) -> None:
        """Add a finished batch: its pieces and its duration in seconds."""
        self._pieces.observe(pieces)
        self._ms.observe(1000 * seconds)

    def expired(self, num: int) -> None:
        """Count sentences that were not started because their deadline had passed."""
        self._expired.inc(num)

    def cached(self, hits: int, misses: int) -> None:
        """Count sentences whose passages were in the cache, and sentences whose passages were not."""
        for result, num in (("hit", hits), ("miss", misses)):
            if num:
                self._cache.inc(num, {"result": result})


async def cluster_metrics() -> str:
    """Metrics of ctxner from all living nodes, in Prometheus' text format; Serve's metrics are left out.

    Raises:
        RefusedError: A node's metrics are missing or too large; a part would look like counters that went down.
    """
    addresses = [
        f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        for node in await asyncio.to_thread(ray.nodes)
        if node["Alive"]
    ]
    return await metrics_of(addresses)


async def metrics_of(addresses: Sequence[str], most_bytes: int = _MOST_BYTES) -> str:
    """Metrics of ctxner from these addresses.

    Raises:
        RefusedError: One of them does not answer in time, or its answer is empty or too large. A node always has
            metrics of its own, so that an empty answer is that of an agent that could not collect them.
    """
    async with httpx2.AsyncClient(timeout=_TIMEOUT, trust_env=False) as client:
        answers = await asyncio.gather(*(client.get(address) for address in addresses), return_exceptions=True)
    texts = [
        answer.text
        for answer in answers
        if isinstance(answer, httpx2.Response) and answer.is_success and _is_whole(answer.content, most_bytes)
    ]
    if len(texts) < len(addresses) or not texts:
        message = f"{len(texts)} of {len(addresses)} nodes gave their metrics within {_TIMEOUT:g} s; try again later"
        raise RefusedError(503, "metrics", message, retry_after=_TIMEOUT)
    return "".join(await asyncio.to_thread(_ours, texts))


def _is_whole(content: bytes, most_bytes: int) -> bool:
    return len(content) <= most_bytes and bool(content.strip())


def _ours(texts: Sequence[str]) -> list[str]:
    """The lines about ctxner's metrics; each comment line (help or type) is kept once."""
    seen, lines = set[str](), []
    for text in texts:
        for line in text.splitlines(keepends=True):
            is_comment = line.startswith("#")
            name = line.split(" ", 3)[2] if is_comment and line.count(" ") > 1 else line
            if not name.startswith("ray_ctxner_") or (is_comment and line in seen):
                continue
            if is_comment:
                seen.add(line)
            lines.append(line)
    return lines
