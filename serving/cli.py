"""`ctxner serve` and `ctxner api-key`: Typer's declarations, and what `serve run` would do, with everything checked
before Ray starts. The `ctxner` command finds them by their entry point.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from pydantic import ValidationError

from ctxner.files.atomic import write_text
from serving.local import console, serve_here

if TYPE_CHECKING:
    from serving.settings import ServeSettings

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="markdown")

_DEFAULTS = Path(__file__).with_name("serve.yaml")


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
    serve_here(tree, lambda: _tree(config, model, index, host, port, overrides or ()))


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

    from ctxner.settings_text import override, read_yaml

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
    application["deployments"] = [
        deployment for deployment in application.get("deployments") or () if deployment.get("name") not in names
    ]
    application["args"] = settings.model_dump(mode="json", exclude_defaults=True)
    try:
        ServeDeploySchema.model_validate(tree)
    except ValidationError as error:
        raise ValueError(f"{config}: {error}") from None
    return tree


def _settled(arguments: dict[str, Any], where: str) -> ServeSettings:
    from ctxner.settings_text import explain
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
