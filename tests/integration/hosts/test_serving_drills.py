"""A server with a proxy on each host, asked by clients that know two of them, while hosts and proxies fail."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ctxner.predictor import Tagger
from tests.integration.hosts import faults
from tests.integration.hosts.asking import TEXTS
from tests.integration.hosts.cluster import RayCluster, cluster
from tests.integration.hosts.jobs import KEY, deploy, is_served, tell, write_files
from tests.integration.hosts.network import missing, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing() or "")]

_SETTLED = 40  # answers in a row, each within a second, after which a fault is over
_DEADLINE = 300


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tagger: Tagger, minilm: str) -> Iterator[RayCluster]:
    with cluster(3, tmp_path_factory.mktemp("hosts")) as ray:
        files = ray.network.files
        write_files(files, num_documents=1, tagger=tagger, tokenizer=minilm)
        ray.result("index", "index", "--corpus", files / "corpus.jsonl", "--out", files / "index")
        deploy(ray, files)
        yield ray


def test_the_death_of_a_proxy_loses_no_request(served: RayCluster, tagger: Tagger, tmp_path: Path) -> None:
    for number, host in enumerate(served.workers):
        with _asked(served, tmp_path / str(number)) as answers:
            host.run("pkill", "-KILL", "-f", "^ray::ProxyActor")
            _wait_until_settled(answers)
        _check(f"serve-proxy-{number}", answers, tagger)
        wait_until(lambda: is_served(served), seconds=_DEADLINE, what="a new proxy")


@pytest.mark.parametrize("fault", [faults.killed, faults.cut_for_a_while, faults.slow], ids=lambda own: own.__name__)
def test_the_death_of_a_host_gives_no_wrong_answer(
    served: RayCluster, tagger: Tagger, tmp_path: Path, fault: faults.Fault
) -> None:
    with _asked(served, tmp_path / "answers") as answers, faults.struck(served, fault):
        _wait_until_settled(answers)
    _check(f"serve-{fault.__name__}", answers, tagger)
    wait_until(lambda: is_served(served), seconds=_DEADLINE, what="replicas on all hosts")


class _Answers:
    """What clients outside have been told so far."""

    def __init__(self, log: Path) -> None:
        self.log, self.struck = log, 0.0

    def read(self) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n") and line.startswith("{")]


@contextmanager
def _asked(ray: RayCluster, log: Path) -> Iterator[_Answers]:
    """Clients that ask the workers' proxies while the block runs; it begins when they are answered."""
    answers = _Answers(log)
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
        _wait_until_settled(answers)
        answers.struck = time.monotonic()
        yield answers
    finally:
        process.communicate(timeout=60)


def _wait_until_settled(answers: _Answers) -> None:
    """Wait until requests that began after this call are answered soon, one after the other."""
    since = time.monotonic()

    def is_settled() -> bool:
        recent = [line for line in answers.read() if line["at"] > since][-_SETTLED:]
        return len(recent) == _SETTLED and all("entities" in line and line["seconds"] < 1 for line in recent)

    wait_until(is_settled, seconds=_DEADLINE, what=f"{_SETTLED} answers in a row within a second")


def _check(drill: str, answers: _Answers, tagger: Tagger) -> None:
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
    assert not lost
