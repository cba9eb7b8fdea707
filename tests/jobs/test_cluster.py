"""A local Ray of a command is its own, whatever other Rays the machine has."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# Ray Train watches its controller through the same state API, and takes one that it does not find for dead.
FINDS_ITSELF = """
import ray
from jobs.cluster import connect
connect()
@ray.remote
class Actor:
    def is_found(self):
        from ray.util.state import get_actor
        return get_actor(ray.get_runtime_context().get_actor_id(), timeout=60) is not None
actor = Actor.remote()
print("ready", flush=True)
input()
print(ray.get(actor.is_found.remote()), flush=True)
input()
"""


def test_an_actor_finds_itself_while_another_ray_runs_on_the_machine() -> None:
    start = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", FINDS_ITSELF], **start) for _ in range(2)]
    try:
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        assert [process.stdout.readline() for process in processes] == ["True\n"] * 2
    finally:
        for process in processes:
            process.communicate("\n", timeout=60)


LISTENERS = """
import ipaddress, psutil
from jobs.cluster import connect
connect()
import ray
ray.get(ray.remote(lambda: 1).remote())
processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
for process in processes:
    try:
        connections = process.net_connections("tcp")
    except psutil.NoSuchProcess:
        continue
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN:
            address = ipaddress.ip_address(connection.laddr.ip.removeprefix("::ffff:"))  # IPv4 on a socket of IPv6
            print("listens", process.name(), address.is_loopback)
"""


def test_the_ray_of_a_command_listens_on_loopback_only() -> None:
    ended = subprocess.run([sys.executable, "-c", LISTENERS], capture_output=True, text=True, check=True, timeout=300)
    lines = [line for line in ended.stdout.splitlines() if line.startswith("listens ")]
    assert len(lines) > 5, "Ray's processes have many"
    assert [line for line in lines if line.endswith("False")] == []
