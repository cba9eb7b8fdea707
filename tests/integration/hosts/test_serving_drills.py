"""A server with a proxy on each host, asked by clients that know two of them, while hosts and proxies fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ctxner.predictor import Tagger
from tests.integration.hosts import faults
from tests.integration.hosts.answers import asked, check, wait_until_settled
from tests.integration.hosts.cluster import RayCluster, cluster
from tests.integration.hosts.jobs import deploy, is_served, write_files
from tests.integration.hosts.network import missing, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing() or "")]

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
        with asked(served, tmp_path / str(number)) as answers:
            host.run("pkill", "-KILL", "-f", "^ray::ProxyActor")
            wait_until_settled(answers)
        wait_until(lambda: is_served(served), seconds=_DEADLINE, what="a new proxy")
        check(f"serve-proxy-{number}", answers, tagger)


@pytest.mark.parametrize("fault", [faults.killed, faults.cut_for_a_while, faults.slow], ids=lambda own: own.__name__)
def test_the_death_of_a_host_gives_no_wrong_answer(
    served: RayCluster, tagger: Tagger, tmp_path: Path, fault: faults.Fault
) -> None:
    with asked(served, tmp_path / "answers") as answers, faults.struck(served, fault):
        wait_until_settled(answers)
    wait_until(lambda: is_served(served), seconds=_DEADLINE, what="replicas on all hosts")
    check(f"serve-{fault.__name__}", answers, tagger)
