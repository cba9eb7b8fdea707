"""Ray on hosts: `with cluster(3, folder) as ray`, a head and workers with a token, and jobs submitted from outside."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.hosts.network import Host, Network, hosts, wait_until

_START_SECONDS = 240
_STORE_BYTES = 100 << 20  # object store of a node
# `ray start` gives a node 30 s until it is registered, which is not enough where other tests run beside.
_PATIENT_RAY = """
import sys, time
from ray._private import services
from ray.scripts.scripts import main

def patient(*node, _get=services.get_node, _until=time.monotonic() + float(sys.argv.pop(1))):
    while True:
        try:
            return _get(*node)
        except RuntimeError:
            if time.monotonic() > _until:
                raise
            time.sleep(0.5)

services.get_node = patient
main()
"""
_VARIABLES = {
    "RAY_AUTH_MODE": "token",
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # as cluster/README.md and the image have it
    "RAY_worker_register_timeout_seconds": "240",
    "RAY_agent_register_timeout_ms": "240000",
}


@dataclass
class RayCluster:
    """A Ray over all hosts of a network; the first host is its head."""

    network: Network
    num_cpus: int

    @property
    def head(self) -> Host:
        """Host of the head node."""
        return self.network.hosts[0]

    @property
    def workers(self) -> list[Host]:
        """The other hosts."""
        return self.network.hosts[1:]

    @property
    def dashboard(self) -> str:
        """Address to which jobs are submitted."""
        return f"http://{self.head.address}:8265"

    def start(self, host: Host) -> None:
        """`ray start` on a host."""
        where = [f"--address={self.head.address}:6379"]
        if host is self.head:
            where = ["--head", "--port=6379", "--dashboard-host=0.0.0.0"]
        size = [f"--num-cpus={self.num_cpus}", f"--object-store-memory={_STORE_BYTES}", "--disable-usage-stats"]
        ray = [sys.executable, "-c", _PATIENT_RAY, _START_SECONDS, "start"]
        host.run(*ray, *where, f"--node-ip-address={host.address}", *size, timeout=_START_SECONDS)

    def wait_for_nodes(self, *alive: Host, seconds: float = _START_SECONDS) -> None:
        """Wait until Ray knows exactly these hosts as alive."""
        wanted = {host.address for host in alive}
        wait_until(lambda: set(self.nodes()) == wanted, seconds=seconds, what=f"nodes {sorted(wanted)}")

    def nodes(self) -> dict[str, str]:
        """Ids of the nodes that are alive, by address."""
        listed = self.ask("api/v0/nodes?detail=1")["data"]["result"]["result"]
        return {node["node_ip"]: node["node_id"] for node in listed if node["state"] == "ALIVE"}

    def ask(self, path: str) -> Any:
        """Answer of the dashboard's API, asked from outside."""
        token = f"Authorization: Bearer {self.head.variables['RAY_AUTH_TOKEN']}"
        curl = ["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "30", "--header", token]
        return json.loads(self.network.outside.run(*curl, f"{self.dashboard}/{path}").stdout)

    def submit(
        self, *command: object, timeout: float = 600, check: bool = True, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`ray job submit` from outside: its exit code and the job's log."""
        return self.network.outside.run(*self.submission(*command), timeout=timeout, check=check, variables=variables)

    def submission(self, *command: object, job_id: str | None = None) -> list[str]:
        """The command that submits a job."""
        named = ["--submission-id", job_id] if job_id else []
        return ["ray", "job", "submit", f"--address={self.dashboard}", *named, "--", *map(str, command)]


@contextmanager
def cluster(count: int, folder: Path, *, num_cpus: int = 4) -> Iterator[RayCluster]:
    """Hosts with a started Ray, until the block ends.

    Args:
        count: Number of hosts.
        folder: Folder for the common files.
        num_cpus: Logical CPUs of each node.
    """
    variables = {**_VARIABLES, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with hosts(count, folder, variables=variables) as network:
        ray = RayCluster(network, num_cpus)
        for host in network.hosts:
            ray.start(host)
        ray.wait_for_nodes(*network.hosts)
        yield ray
