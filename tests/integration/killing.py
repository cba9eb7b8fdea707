"""Processes of a job or a server, and kill -9 for them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import psutil


def matching(
    process: subprocess.Popen[str], matches: Callable[[str], bool], *, deadline: float
) -> list[psutil.Process]:
    """What a job has started whose command line matches, as soon as there is any; `deadline` in seconds."""
    until = time.monotonic() + deadline
    while not (found := [own for own in family(process) if _matches(own, matches)]):
        assert process.poll() is None, "the job ended before anything could be killed"
        assert time.monotonic() < until, "nothing to kill in time"
        time.sleep(0.1)
    return found


def kill_all(process: subprocess.Popen[str], started: list[psutil.Process]) -> None:
    """Kill a job and what it has started, as when the machine goes."""
    process.kill()
    process.communicate()
    for own in started:
        if own.is_running():
            own.kill()


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """What a job has started: its Ray and all workers."""
    return psutil.Process(process.pid).children(recursive=True)


def named(part: str) -> list[psutil.Process]:
    """All processes with this in their command lines."""
    found = psutil.process_iter(["cmdline"])
    return [own for own in found if part in " ".join(own.info["cmdline"] or ())]


def serve_replicas(name: str) -> int:
    """How many replicas of a deployment run."""
    return len(named(f"ServeReplica:ctxner:{name}"))


def _matches(process: psutil.Process, matches: Callable[[str], bool]) -> bool:
    try:
        return matches(" ".join(process.cmdline()))
    except psutil.Error:  # gone meanwhile
        return False
