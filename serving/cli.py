"""The commands `ctxner serve` and `ctxner api-key`. All settings are checked before Ray starts
(`serving.local`). The `ctxner` command finds this module by its entry point.
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

    Ctrl-C ends the server; `kill -HUP` rolls in the current model and index without dropping a request. If
    `RAY_ADDRESS` is set, the command deploys to that cluster and returns.

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
    name: Annotated[str, typer.Argument(help="Who will use it; shown in the access log.")],
) -> None:
    """Make an API key. Give the key to its user, and put the entry with its hash under `args.keys` in the YAML file.

    Example: `ctxner api-key search-team`
    """
    from serving.settings import ApiKey, hashed

    key = secrets.token_urlsafe(32)
    entry = ApiKey(name=name, sha256=hashed(key))
    typer.echo(json.dumps({"key": key, "keys": [entry.model_dump(exclude_none=True)]}))


def _tree(
    config: Path, model: str | None, index: Path | None, host: str | None, port: int | None, overrides: Sequence[str]
) -> dict[str, Any]:
    """The YAML file's content with the command's options applied, all arguments decided and checked.

    Raises:
        FileNotFoundError, ValueError: The file, an option, the model or the index cannot be used.
    """
    from ray.serve.schema import ServeDeploySchema

    from ctxner.settings_text import override, read_yaml

    tree = read_yaml(config)
    try:
        (application,) = tree["applications"]
        arguments = {**(application.get("args") or {}), "release": ""}  # decided anew at each start and reload
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

    for name in ("model", "plain_model", "index"):  # absolute paths, as replicas have other working directories
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
    """`python -m serving.cli`: an error that the user can correct is shown as one message, with exit code 1."""
    try:
        app()
    except (ValueError, OSError) as error:
        console.print(f"[red]error:[/] {error}", soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
