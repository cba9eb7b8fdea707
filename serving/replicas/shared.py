"""What several replicas share: the thread in which a model computes, checks that they answer, calls of one another."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ray.serve.handle import DeploymentHandle

from serving.settings import ServeSettings

CHECKS = ("Marta Ilves moved from Tartu to Bergen .", "It rained .")


def model_thread(settings: ServeSettings) -> ThreadPoolExecutor:
    """The one thread in which a model computes; OpenMP's number of threads is a setting of the thread that asks."""
    import torch

    return ThreadPoolExecutor(1, "model", torch.set_num_threads, (settings.threads,))


def calling(handle: DeploymentHandle, method: str) -> Any:
    """A coroutine function that calls a method of a replica; cancelled, it cancels there too."""
    remote = getattr(handle, method)

    async def call(*arguments: Any) -> Any:
        response = remote.remote(*arguments)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise

    return call
