"""Memory and CPU time of a server's processes."""

from __future__ import annotations

from collections import Counter

import psutil

KINDS = {"haproxy": "haproxy", "Router": "router", "Tagger": "taggers", "Retriever": "retriever"}


def usage(pid: int) -> tuple[float, Counter[str]]:
    """MiB that are resident, and seconds of CPU time so far by kind of process, of the server and its children."""
    memory, seconds = 0, Counter[str]()
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        try:
            with process.oneshot():
                name = " ".join([process.name(), *process.cmdline()[:1]])
                memory += process.memory_info().rss
                used = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        kind = next((kind for part, kind in KINDS.items() if part in name), "rest")
        seconds[kind] += used.user + used.system
    return memory / 2**20, seconds
