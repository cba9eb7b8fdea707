"""Ray and Ray Serve on this machine, while `ctxner serve` runs; with HAProxy in front if it is installed.

If RAY_ADDRESS is set, the application is deployed to that cluster instead, and the command returns.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from ctxner.batch.local_ray import ENVIRONMENT, LOOPBACK_ONLY
from ctxner.files.ray_token import private_token
from serving.ending import drain, end_on_signals, end_ray

if TYPE_CHECKING:
    from serving.settings import Limits, ReloadLimits

console = Console(stderr=True)

_MIN_LOCAL_CPUS = 8  # logical; most replicas reserve 0.5, and twice as many run while a new version rolls in
_READY_SECONDS = 600
_SAY_SECONDS = 30  # between lines in a log on what is waited for; a terminal shows it all the time
# Sockets lie there, whose paths may have at most 107 bytes, in folders that only this user enters.
_SHORT = "/tmp" if os.path.isdir("/tmp") else None  # noqa: S108
_LOCAL = {
    **ENVIRONMENT,
    **LOOPBACK_ONLY,
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",  # our code never blocks the event loop
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",  # a dead proxy is replaced sooner
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "20",  # default 5: on a busy machine it is killed while it starts
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",  # HAProxy's mode sets 1,000: log lines come late, or never
    "RAY_worker_niceness": "0",  # Ray's default gives other processes priority
}


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
    from serving.edge import behind_proxy, fast_proxy, variables

    if not address:
        signal.signal(signal.SIGHUP, lambda *_: reload.set())
        proxy = fast_proxy(tree["http_options"], Path(folder.name), _limits(tree))
        for name, value in {**variables(_limits(tree)), **proxy}.items():
            os.environ.setdefault(name, value)
    import ray
    from ray import serve
    from ray.serve.context import _get_global_client  # `serve run` and `serve deploy` call it, too
    from ray.serve.schema import ServeDeploySchema

    started, deployed = time.perf_counter(), threading.Event()
    if not address:
        end_on_signals(ended, deployed, folder.cleanup)
    try:
        with nullcontext() if address else private_token():
            ray.init(
                address=address or "local",
                num_cpus=None if address else max(_MIN_LOCAL_CPUS, os.cpu_count() or 1),
                logging_level=logging.WARNING,
                log_to_driver=False,
                include_dashboard=bool(address) or None,
            )
        schema = ServeDeploySchema.model_validate(behind_proxy(tree))
        serve.start(proxy_location=schema.proxy_location, http_options=schema.http_options.model_dump())
        client = _get_global_client()
        assert client is not None, "it was started just now"
        deployed.set()
        client.deploy_apps(schema)
        _wait_until_ready(schema.applications[0].name, ended)
        if not ended.is_set():
            _greet(tree, time.perf_counter() - started)
        if address:
            return
        while not ended.wait(0.2):
            if reload.is_set():
                reload.clear()
                tree = _reload(client, tree, again, ended)
    finally:
        if not address:
            if ended.is_set():
                _drain(tree)
            end_ray(1 if sys.exc_info()[0] else 0)
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


def _limits(tree: Mapping[str, Any]) -> Limits:
    from serving.settings import Limits

    (application,) = tree["applications"]
    return Limits.model_validate(application["args"].get("limits") or {})


def _drain(tree: dict[str, Any]) -> None:
    """Let what is in work finish, within the time that `limits.drain_seconds` states."""
    (application,), seconds = tree["applications"], _limits(tree).drain_seconds
    console.print(f"ending: what is in work may take {seconds:g} s more, new requests are refused")
    try:
        num = drain(application["name"], seconds)
    except Exception as error:  # whatever became of the routers, the server has to end
        console.print(f"[red]the routers did not end as they should[/] ({type(error).__name__})")
        return
    console.print(f"ended: {num} requests and lines were given up" if num else "ended: all work was finished")


def _reload(client: Any, tree: dict[str, Any], again: _Again, ended: threading.Event) -> dict[str, Any]:
    """Roll in the current model and index, once they have been tried; after any failure the old replicas stay.

    Returns:
        What is deployed now.
    """
    from ray.serve.schema import ServeDeploySchema

    from serving.edge import behind_proxy
    from serving.settings import ReloadLimits

    started, deployed = time.perf_counter(), False
    arguments = tree["applications"][0].get("args") or {}
    limits = ReloadLimits.model_validate(arguments.get("reload") or {})
    try:
        new = again(limits, ended, str(arguments.get("release") or ""))
        if new["http_options"] != tree["http_options"]:
            raise ValueError("http_options have changed; Ray Serve keeps them until it ends, so start the server again")
        schema = ServeDeploySchema.model_validate(behind_proxy(new))
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
    if ended.is_set():
        return new
    console.print(f"{_release(new)} after {time.perf_counter() - started:.1f} s", markup=False)
    return new


def _restore(client: Any, tree: dict[str, Any]) -> None:
    """Make the old version the wanted one again, so that Serve stops starting replicas of the new one."""
    from ray.serve.schema import ServeDeploySchema

    from serving.edge import behind_proxy

    try:
        client.deploy_apps(ServeDeploySchema.model_validate(behind_proxy(tree)))
    except Exception as error:
        console.print(f"the old version could not be deployed again: {error}", markup=False)


def _wait_until_ready(name: str, ended: threading.Event) -> None:
    """Wait until every deployment runs, or the server shall end.

    Raises:
        ValueError: A deployment failed.
        TimeoutError: The deployments are not ready in time.
    """
    from ray import serve

    begun = said = time.monotonic()
    states = "nothing is deployed yet"
    with console.status("starting") as shown:
        while (now := time.monotonic()) < begun + _READY_SECONDS and not ended.is_set():
            application = serve.status().applications.get(name)
            if application is not None:
                states = _states(application.deployments) or states
                if application.status == "RUNNING":
                    return
                if application.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                    messages = [application.message, *(status.message for status in application.deployments.values())]
                    raise ValueError("\n".join(filter(None, messages)).strip()[-2000:])
                shown.update(f"starting: {escape(states)}")
            if not console.is_terminal and now > said + _SAY_SECONDS:
                said = now
                console.print(f"not ready after {now - begun:.0f} s: {states}", markup=False, soft_wrap=True)
            ended.wait(0.2)
    if ended.is_set():
        return
    raise TimeoutError(f"not ready after {_READY_SECONDS} s: {states}; see `serve status`")


def _states(deployments: Mapping[str, Any]) -> str:
    """What Serve says of each deployment, in one line."""
    return ", ".join(
        " ".join(filter(None, (name, own.status.value.lower(), own.message))) for name, own in deployments.items()
    )


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
    url = f"{scheme}://{'127.0.0.1' if host == '0.0.0.0' else host}:{http['port']}"  # noqa: S104 - only printed
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
