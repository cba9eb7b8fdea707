"""Clients outside of the hosts that ask a server while something happens to it, and what they were told."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ctxner.predictor import Tagger
from tests.integration.hosts.asking import TEXTS
from tests.integration.hosts.cluster import RayCluster
from tests.integration.hosts.jobs import KEY, tell
from tests.integration.hosts.network import wait_until

_SETTLED = 40  # answers in a row, each within two seconds, after which a fault is over
_DEADLINE = 300


class Answers:
    """What clients outside have been told so far."""

    def __init__(self, log: Path) -> None:
        self.log, self.struck = log, 0.0

    def read(self) -> list[dict[str, Any]]:
        """The lines of `asking`."""
        lines = self.log.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n") and line.startswith("{")]


@contextmanager
def asked(ray: RayCluster, log: Path) -> Iterator[Answers]:
    """Clients that ask the workers' proxies while the block runs; it begins when they are answered."""
    answers = Answers(log)
    urls = [f"http://{host.address}:8000" for host in ray.workers]
    with log.open("wb") as out:
        process = subprocess.Popen(
            ray.network.outside.command("python", "-m", "tests.integration.hosts.asking", *urls),
            env={**ray.network.outside.variables, "ASKING_KEY": KEY},
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_settled(answers)
        answers.struck = time.monotonic()
        yield answers
    finally:
        process.communicate(timeout=60)


def wait_until_settled(answers: Answers) -> None:
    """Wait until requests that began after this call are answered soon, one after the other."""
    since = time.monotonic()

    def is_settled() -> bool:
        recent = [line for line in answers.read() if line["at"] > since][-_SETTLED:]
        return len(recent) == _SETTLED and all("entities" in line and line["seconds"] < 2 for line in recent)

    wait_until(is_settled, seconds=_DEADLINE, what=f"{_SETTLED} answers in a row within two seconds")


def check(drill: str, answers: Answers, tagger: Tagger, *, may_lose: bool = False) -> None:
    """Print the figures of a drill; no answer was wrong, and, unless some may be lost, none was missing."""
    expected = {text: [[entity.type, entity.start, entity.end] for entity in tagger.tag(text)] for text in TEXTS}
    lines = answers.read()
    wrong = [line for line in lines if "entities" in line and line["entities"] != expected[line["text"]]]
    lost = [line for line in lines if "error" in line]
    late = [line for line in lines if line["seconds"] > 1]
    last = max((line["at"] + line["seconds"] for line in (*lost, *late)), default=answers.struck)
    tell(
        drill,
        requests=len(lines),
        lost=len(lost),
        wrong=len(wrong),
        slower_than_1_s=len(late),
        slowest=max(line["seconds"] for line in lines),
        seconds_until_settled=max(0.0, last - answers.struck),
        errors=sorted({line["error"] for line in lost}),
    )
    assert not wrong
    assert may_lose or not lost
