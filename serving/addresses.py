"""The address on which a server listens: decided explicitly, free, and never public without keys.

Ray Serve's default address is every interface of the machine, so an absent one must not reach it.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from typing import Any

LOOPBACK = "127.0.0.1"
_PORT = 8000  # Ray Serve's default


def with_address(http: Mapping[str, Any] | None, host: str | None, port: int | None) -> dict[str, Any]:
    """Ray Serve's `http_options` with host and port decided: what is given, else the file's, else loopback and 8000.

    Raises:
        ValueError: The file's `http_options` are no mapping, or the port is none.
    """
    options = {} if http is None else http
    if not isinstance(options, Mapping):
        raise ValueError(f"http_options: found {type(options).__name__}, wanted a mapping with host and port")
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    written = {name: value for name, value in options.items() if value is not None}
    decided = {"host": LOOPBACK, "port": _PORT} | written | given
    if not isinstance(decided["port"], int) or not 0 <= decided["port"] < 1 << 16:
        raise ValueError(f"http_options.port: found {decided['port']!r:.40}, wanted a number from 0 to 65535")
    return decided


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def refuse_public(host: str) -> None:
    """Refuse an address that other machines can reach; for a server without keys.

    Raises:
        ValueError: It is not a loopback address.
    """
    if not is_loopback(host):
        raise ValueError(
            f"host {host} can be reached from other machines and there is no key: anybody could ask; make one "
            "with `ctxner api-key NAME` and put it under args.keys or into CTXNER_API_KEYS, or serve on 127.0.0.1"
        )


def refuse_taken(http: Mapping[str, Any]) -> None:
    """Say before anything is started that a server cannot listen with these options.

    Raises:
        ValueError: Another process listens on the port, or this machine does not have the address.
    """
    host, port = http["host"], http["port"]
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as taker:
            taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # old connections do not take a port
            taker.bind(address)
    except OSError as error:
        raise ValueError(
            f"cannot listen on {host} port {port}: {error.strerror}; end the process that does, or set --port or --host"
        ) from None
