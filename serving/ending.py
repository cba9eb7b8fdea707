"""The end of `ctxner serve`: the routers finish their work, within a time, before Ray and all its processes end."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_TELL_SECONDS = 1.0  # of the time, to reach all routers, and for them to tell clients what is not finished
_SERVE_SECONDS, _RAY_SECONDS, _KILL_SECONDS = 0.5, 0.8, 1.0  # to end orderly; what is left then is killed
_ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER of Linux


def drain(application: str, seconds: float) -> int:
    """Let all routers of an application finish their work; the number of requests and lines that they gave up.

    New requests are refused with 503 `draining` meanwhile, and /readyz says so. Without a running router, nobody waits.
    """
    from ray import serve

    deployed = serve.status().applications.get(application)
    router = deployed.deployments.get("Router") if deployed else None
    if router is None or not any(state == "RUNNING" for state in router.replica_states):
        return 0
    working = max(seconds - _TELL_SECONDS, seconds / 2)
    return sum(serve.get_app_handle(application).broadcast("drain", working).results(timeout_s=seconds + 1))


def end_ray(exit_code: int) -> None:
    """End Serve, Ray, and every process that they leave behind, within about two seconds.

    This process will end with the exit code, without what Ray does at a process's end: it would wait for what is gone.
    """
    import ray
    from ray import serve

    _adopt_orphans()
    for end, seconds in ((serve.shutdown, _SERVE_SECONDS), (ray.shutdown, _RAY_SECONDS)):
        if ray.is_initialized():  # else Serve would start it
            thread = threading.Thread(target=end, daemon=True)
            thread.start()
            thread.join(seconds)
    _end_descendants()
    atexit.register(_leave, exit_code)


def end_on_signals(ended: threading.Event, deployed: threading.Event, clean: Callable[[], None]) -> None:
    """Let SIGINT and SIGTERM set an event; before anything is deployed, clean up and end at once with all processes.

    Call this before Ray starts. Ray's handlers, which would take their place, do not always end the processes.
    """
    from ray._private import utils

    def end(*_: object) -> None:
        ended.set()
        if not deployed.is_set():
            _adopt_orphans()
            _end_descendants()
            clean()
            _leave(1)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    utils.set_sigterm_handler = lambda handler: None


def _adopt_orphans() -> None:
    """From now on, descendants whose parent ends become children of this process (Linux)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, 1, 0, 0, 0)


def _end_descendants() -> None:
    until = time.monotonic() + _KILL_SECONDS
    while (left := descendants(os.getpid())) and time.monotonic() < until:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.02)


def _leave(exit_code: int) -> None:
    with suppress(Exception):  # a signal may have come while they were being flushed
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(exit_code)


def descendants(ancestor: int) -> list[int]:
    """Processes that a process has started, directly or not; none where there is no /proc."""
    parents = dict[int, int]()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    reached = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in reached} - reached:
        reached |= more
    return sorted(reached - {ancestor})
