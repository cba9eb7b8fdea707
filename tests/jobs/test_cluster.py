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
