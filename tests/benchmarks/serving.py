"""A server in a process of its own, for benchmarks and drills."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_START_SECONDS = 240


@contextmanager
def served(*options: str, log: Path, environment: dict[str, str] | None = None) -> Iterator[tuple[int, int]]:
    """`ctxner serve` with these options; gives its port and process id, and ends it."""
    port = free_port()
    command = [sys.executable, "-m", "serving.cli", "serve", "--port", str(port), *options]
    with running(command, port, log=log, environment=environment) as pid:
        yield port, pid


@contextmanager
def running(
    command: Sequence[str], port: int, *, log: Path, path: str = "/readyz", environment: dict[str, str] | None = None
) -> Iterator[int]:
    """A server's process, once it answers."""
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
        try:
            end = time.monotonic() + _START_SECONDS
            while not _answers(f"http://127.0.0.1:{port}{path}"):
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"{command}: did not start\n{log.read_text()[-3000:]}")
                time.sleep(0.2)
            yield process.pid
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", 0))
        return int(taker.getsockname()[1])


def bodies(texts: Sequence[str], size: int = 1, **how: object) -> list[bytes]:
    """Requests of so many texts each."""
    parts = [texts[first : first + size] for first in range(0, len(texts), size)]
    return [json.dumps({"texts": own, **how}).encode() for own in parts]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
