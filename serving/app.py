"""The application: which replicas it has and which of them call which. `serve build`, `serve deploy` and `ctxner serve`
build it here, with the arguments of `serving.settings`.
"""

import os  # no `from __future__ import annotations` here: Serve reads the type of build's argument
from pathlib import Path
from typing import Any

from ray.serve import Application
from ray.serve.config import ProxyLocation

from ctxner.files.node_copies import local
from ctxner.model.calibration_file import Calibration
from ctxner.retriever import decided
from serving.addresses import refuse_public
from serving.deployments import ContextTagger, PlainTagger, Reranker, Retriever, Router
from serving.settings import ServeSettings, index_wanted, keys_from, release_of


def build(args: ServeSettings) -> Application:
    """Build the application from its settings.

    Raises:
        FileNotFoundError, ValueError: The model, the index or CTXNER_API_KEYS cannot be used; or there are no keys and
            Serve listens on an address that other machines can reach.
    """
    settings = settled(args)
    if not settings.keys:
        _refuse_public_server()
    tree = settings.model_dump(mode="json")
    retriever = None
    if settings.index is not None:
        inside = settings.reranker == "inside" or not settings.retrieval.rerank
        reranker = None if inside else Reranker.bind(tree)
        retriever = Retriever.options(user_config=index_wanted(settings)).bind(tree, settings.release, reranker)
    return Router.bind(
        tree,
        settings.threshold,
        PlainTagger.bind(settings.plain_model or settings.model, tree, settings.release),
        ContextTagger.bind(settings.model, tree, settings.release),
        retriever,
    )


def models_of(settings: ServeSettings) -> list[str]:
    """The models of the context view and of the plain view, each once."""
    return list(dict.fromkeys((settings.model, settings.plain_model or settings.model)))


def _refuse_public_server() -> None:
    """Ask the Serve that runs for its address: it keeps that of its start, whatever a file says that comes later."""
    import ray
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False) if ray.is_initialized() else None
    if client is not None and client.http_config.location != ProxyLocation.Disabled:
        refuse_public(client.http_config.host or "0.0.0.0")  # noqa: S104 - refused, not bound


def settled(args: ServeSettings, *, is_tried: bool = False) -> ServeSettings:
    """The settings, with open choices decided: keys, threshold, release, and the re-ranker's precision.

    Args:
        args: Settings of the application.
        is_tried: Whether the models have been loaded as they are now, so that they need not be tried again.

    Raises:
        FileNotFoundError, ValueError: The model, the index or CTXNER_API_KEYS cannot be used.
    """
    models = models_of(args)
    if not is_tried:
        from ctxner.model.tagger import load_tagger

        for model in models:
            load_tagger(model)  # a broken model must not reach a replica
    keys = tuple(dict.fromkeys((*args.keys, *keys_from(os.environ))))  # `ctxner serve` may have added these already
    changes: dict[str, Any] = {"retrieval": decided(args.retrieval), "keys": keys}
    if args.threshold is None:
        calibration = Calibration.load(Path(local(args.plain_model or args.model)))
        changes["threshold"] = calibration.threshold if calibration else None
    index_wanted(args)  # an index that cannot be read must not reach one, either
    if not args.release:
        changes["release"] = release_of(models)
    return ServeSettings.model_validate({**args.model_dump(), **changes})
