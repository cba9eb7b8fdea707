"""Shared by several replicas: a model's thread, the sentences of health checks, and calls of other replicas."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ray.serve.handle import DeploymentHandle

from serving.settings import ServeSettings

CHECKS = ("Marta Ilves moved from Tartu to Bergen .", "It rained .")


def model_thread(settings: ServeSettings) -> ThreadPoolExecutor:
    """The one thread in which a model computes; OpenMP's number of threads is set per calling thread."""
    import torch

    return ThreadPoolExecutor(1, "model", torch.set_num_threads, (settings.threads,))


def calling(handle: DeploymentHandle, method: str) -> Any:
    """A coroutine function that calls a method of a replica; cancelling it also cancels the call in the replica."""
    remote = getattr(handle, method)

    async def call(*arguments: Any) -> Any:
        response = remote.remote(*arguments)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise

    return call
