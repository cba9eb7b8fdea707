"""The commands `ctxner serve` and `ctxner api-key`. All settings are checked before Ray starts
(`serving.local`). The `ctxner` command finds this module by its entry point.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.markup import escape

from ctxner.config.text import read_yaml
from ctxner.files.atomic import write_text
from ctxner.files.uris import path_or_uri
from serving.addresses import refuse_taken, with_address
from serving.local import console, prepare, serve_here
from serving.plan import Options, plan
from serving.trial import tried

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="markdown")

_DEFAULTS = Path(__file__).with_name("serve.yaml")


@app.command("serve")
def serve_command(
    model: Annotated[str | None, typer.Option("--model", "-m", help="Model folder or hub id.")] = None,
    index: Annotated[
        Path | None,
        typer.Option("--index", "-i", parser=path_or_uri, help="Index folder that `ctxner index` wrote, or its URI."),
    ] = None,
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
    options = Options(
        config=str(config),
        model=model,
        index=None if index is None else str(index),
        host=host,
        port=port,
        overrides=tuple(overrides or ()),
    )
    if not (dry_run or write):
        prepare()
    if not (dry_run or write or os.environ.get("RAY_ADDRESS")):
        refuse_taken(with_address(read_yaml(config).get("http_options"), host, port))
    tree = plan(options)
    if dry_run or write:
        text = yaml.safe_dump(tree, sort_keys=False)
        if not write:
            typer.echo(text)
            return
        write_text(write, text, private=True)  # it holds the hashes of keys
        console.print(f"wrote {write}; now: serve deploy {write}", markup=False)
        return
    serve_here(tree, partial(tried, options))


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


def main() -> None:
    """`python -m serving.cli`: an error that the user can correct is shown as one message, with exit code 2."""
    try:
        app()
    except (ValueError, OSError) as error:
        console.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
