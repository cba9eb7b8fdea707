"""Ray on hosts: `with cluster(3, folder) as ray`, a head and workers with a token, and jobs submitted from outside."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
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
    "RAY_worker_niceness": "0",  # else whatever runs beside these tests goes first
    "RAY_worker_register_timeout_seconds": "240",
    "RAY_agent_register_timeout_ms": "240000",
}


@dataclass
class RayCluster:
    """A Ray over all hosts of a network; the first host is its head."""

    network: Network
    num_cpus: int
    redis: str | None = None  # address of a Redis in which the head keeps its state

    @property
    def head(self) -> Host:
        """Host of the head node."""
        return self.network.hosts[0]

    @property
    def workers(self) -> list[Host]:
        """The other hosts."""
        return self.network.hosts[1:]

    @property
    def token(self) -> str:
        """Ray's token, from the file that all hosts and those outside have."""
        return Path(self.head.variables["HOME"], ".ray", "auth_token").read_text().strip()

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
        kept = {"RAY_REDIS_ADDRESS": self.redis} if self.redis and host is self.head else {}
        host.run(*ray, *where, f"--node-ip-address={host.address}", *size, timeout=_START_SECONDS, variables=kept)

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
        token = f"Authorization: Bearer {self.token}"
        curl = ["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "30", "--header", token]
        return json.loads(self.network.outside.run(*curl, f"{self.dashboard}/{path}").stdout)

    def submission(self, name: str, *command: object) -> list[str]:
        """The command that submits a job under a name."""
        named = [f"--address={self.dashboard}", f"--submission-id={name}"]
        return ["ray", "job", "submit", *named, "--", *map(str, command)]

    def submit(self, name: str, *command: object, timeout: float = 900) -> str:
        """`ray job submit` from outside; the job's log.

        Raises:
            AssertionError: The job failed.
        """
        return self.network.outside.run(*self.submission(name, *command), timeout=timeout).stdout

    def result(self, name: str, *command: object) -> dict[str, Any]:
        """The result of a job of ctxner, submitted with `--json`."""
        lines = self.submit(name, "ctxner", *command, "--json").splitlines()
        return json.loads(next(line for line in reversed(lines) if line.startswith("{")))

    def hosts_of(self, kind: str, part: str, job: str | None = None) -> list[str]:
        """Addresses of the hosts on which tasks or actors ran, one entry each, sorted.

        Args:
            kind: `tasks` or `actors`.
            part: Part of the task's name or of the actor's class.
            job: Name under which the job was submitted; None: all that there were.
        """
        jobs = {row["submission_id"]: row["job_id"] for row in self.ask("api/jobs/")}
        if job and not jobs.get(job):
            return []  # its driver has not begun
        rows = self.ask(f"api/v0/{kind}?detail=1&limit=10000")["data"]["result"]["result"]
        address_of = {node_id: address for address, node_id in self.nodes().items()}
        name = {"tasks": "name", "actors": "class_name"}[kind]
        chosen = [row for row in rows if part in row[name] and (not job or row["job_id"] == jobs[job])]
        return sorted(address_of[row["node_id"]] for row in chosen if row["node_id"] in address_of)


@contextmanager
def cluster(count: int, folder: Path, *, num_cpus: int = 4, redis: str | None = None) -> Iterator[RayCluster]:
    """Hosts with a started Ray, until the block ends.

    Args:
        count: Number of hosts.
        folder: Folder for the common files.
        num_cpus: Logical CPUs of each node.
        redis: Program of a Redis server that runs outside and keeps the head's state; None: no Redis.
    """
    with hosts(count, folder, variables=_VARIABLES) as network:
        ray = RayCluster(network, num_cpus)
        ray.head.run("ray", "get-auth-token", "--generate")
        if redis:
            ray.redis = f"{network.outside.address}:6380"
            listen = ["--bind", network.outside.address, "--port", 6380, "--protected-mode", "no", "--save", ""]
            network.outside.start(redis, *listen, log=folder / "redis.log")
        for host in network.hosts:
            ray.start(host)
        ray.wait_for_nodes(*network.hosts)
        yield ray
