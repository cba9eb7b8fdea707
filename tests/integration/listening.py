"""What a server's processes listen on and are connected to."""

from __future__ import annotations

import contextlib
import ipaddress
import time
from typing import Any

import psutil

_SECONDS = 60  # a replica that starts has opened its port before it can bind it to loopback


def connections(pid: int, kind: str) -> list[tuple[str, Any]]:
    """Names of the server's processes with their connections; processes that end meanwhile have none."""
    first, rows = psutil.Process(pid), []
    for process in (first, *first.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            rows += [(process.name(), connection) for connection in process.net_connections(kind)]
    return rows


def assert_only_public(pid: int, wanted: set[tuple[str, int]]) -> None:
    """Wait until the addresses and ports that other machines reach are these, and say which others there are."""
    end = time.monotonic() + _SECONDS
    while True:
        listeners = [
            (name, connection.laddr.ip, connection.laddr.port)
            for name, connection in connections(pid, "tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert len(listeners) > 10, "Ray's processes have many"
        public = {(ip, number) for _, ip, number in listeners if not _is_loopback(ip)}
        if public == wanted or time.monotonic() > end:
            break
        time.sleep(0.5)
    assert public == wanted, sorted(listeners)


def _is_loopback(ip: str) -> bool:
    return ipaddress.ip_address(ip.removeprefix("::ffff:")).is_loopback  # IPv4 on a socket of IPv6
