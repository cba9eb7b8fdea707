"""A real S3 server of moto as a process of its own on a free port, and the environment by which clients find it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BUCKET = "ctxner-tests"


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes:
        url: Its address.
        process: Its process.
        variables: Environment by which all clients of S3 find it.
    """

    url: str
    process: subprocess.Popen[bytes]
    variables: dict[str, str]

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Context in which the server accepts connections, but answers nothing."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    @contextmanager
    def asking_for_keys(self) -> Iterator[None]:
        """Context in which the server checks keys; it knows none, so it refuses all."""
        self._post("/moto-api/reset-auth", b"0")
        try:
            yield
        finally:
            self._post("/moto-api/reset-auth", b"1000000000")

    def _post(self, path: str, content: bytes) -> None:
        request = urllib.request.Request(self.url + path, content, {"Content-Type": "text/plain"})
        with urllib.request.urlopen(request, timeout=10):
            pass


@contextmanager
def s3_server(log: Path) -> Iterator[S3Server]:
    """Start the server and make the bucket; it ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **keys})
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{url}/moto-api/", timeout=1):
                    break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
        request = urllib.request.Request(f"{url}/{BUCKET}", method="PUT")
        with urllib.request.urlopen(request, timeout=10):
            pass
        yield S3Server(url, process, {**keys, "AWS_ENDPOINT_URL": url})
    finally:
        process.kill()
        process.wait()
