"""`ctxner doctor` on a cluster of two nodes: each node answers for itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray
pytest.importorskip("ray")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 << 20})
    cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


def test_every_node_answers_and_agrees_with_the_machine_that_asks(address: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs", "doctor", "--storage", str(tmp_path), "--storage", "odd://x", "--json"]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "RAY_ADDRESS": address}
    )
    assert ended.returncode == 1, ended.stderr
    rows = json.loads(ended.stdout)["findings"]
    by_check: dict[str, list[str]] = {}
    for row in rows:
        by_check.setdefault(row["check"], []).append(row["status"])
    assert by_check["versions"] == by_check["clock"] == by_check["memory"] == ["ok", "ok"]
    assert by_check[f"storage {tmp_path}"] == ["ok", "ok"]
    assert by_check["storage odd://x"] == ["failure", "failure"]
    assert list(tmp_path.iterdir()) == []
