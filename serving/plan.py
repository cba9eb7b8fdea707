"""What is deployed: the YAML file of `ctxner serve` with the command's options applied, everything decided and checked.

`serving.cli` plans at the start; `serving.trial` plans again, in a process of its own, for each reload.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ctxner.config.text import explain, override, read_yaml
from ctxner.files.uris import is_uri
from serving.addresses import refuse_public, with_address

if TYPE_CHECKING:
    from serving.settings import ServeSettings


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `ctxner serve` that decide what is deployed; None: as the file says."""

    config: str
    model: str | None = None
    index: str | None = None
    host: str | None = None
    port: int | None = None
    overrides: tuple[str, ...] = ()


def plan(
    options: Options, *, first: Callable[[ServeSettings, bool], None] | None = None, serves: str = ""
) -> dict[str, Any]:
    """The file's content with the options applied.

    Args:
        options: Options of the command.
        first: Called before the model and the index are read, with the settings and whether the models serve already.
        serves: Release that serves now; models whose files are the same are not loaded again to be tried.

    Raises:
        FileNotFoundError, ValueError: The file, an option, the model or the index cannot be used.
    """
    from serving.app import models_of, settled
    from serving.settings import ServeSettings, index_wanted, keys_from, release_of

    tree = read_yaml(Path(options.config))
    try:
        (application,) = tree["applications"]
        arguments = {**(application.get("args") or {}), "release": ""}  # decided anew at each start and reload
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{options.config}: wanted one application under `applications`, with its `args`") from None
    http = tree["http_options"] = with_address(tree.get("http_options"), options.host, options.port)
    _apply(options, arguments)
    try:
        settings = ServeSettings.model_validate(arguments)
        if not (settings.keys or keys_from(os.environ)):
            refuse_public(str(http["host"]))
        is_tried = bool(serves) and release_of(models_of(settings)) == serves
        if first:
            first(settings, is_tried)
        settings = settled(settings, is_tried=is_tried)
    except ValidationError as error:
        raise ValueError(explain(error, ServeSettings, f"{options.config}: args", secret={"keys"})) from None
    names = {"Reranker"} if settings.reranker == "inside" or not settings.retrieval.rerank else set()
    names |= set() if settings.index else {"Retriever", "Reranker"}
    application["deployments"] = [
        deployment for deployment in application.get("deployments") or () if deployment.get("name") not in names
    ]
    if settings.index:  # no argument: Serve would roll in new replicas of everything
        _options(application["deployments"], "Retriever")["user_config"] = index_wanted(settings)
    application["args"] = settings.model_dump(mode="json", exclude_defaults=True)
    _refuse_unknown(tree, options.config)
    return tree


def _options(deployments: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Serve's options of a deployment; they are added to the list if it has none."""
    for deployment in deployments:
        if deployment.get("name") == name:
            return deployment
    deployments.append({"name": name})
    return deployments[-1]


def _apply(options: Options, arguments: dict[str, Any]) -> None:
    if options.model is not None:
        arguments |= {"model": options.model, "plain_model": None, "index": None}
    if options.index is not None:
        arguments["index"] = options.index
    for item in options.overrides:
        override(arguments, item)
    for name in ("model", "plain_model", "index"):  # absolute paths, as replicas have other working directories
        value = arguments.get(name)
        if isinstance(value, str) and value and not is_uri(value) and (name == "index" or Path(value).is_dir()):
            arguments[name] = str(Path(value).resolve())


def _refuse_unknown(tree: dict[str, Any], where: str) -> None:
    from ray.serve.schema import ServeDeploySchema

    try:
        ServeDeploySchema.model_validate(tree)
    except ValidationError as error:  # without the values, as one may be a password
        problems = error.errors(include_input=False, include_url=False)
        lines = (f"{where}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in problems)
        raise ValueError("\n".join(lines)) from None
