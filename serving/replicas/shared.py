"""Shared by several replicas: a model's thread, memory, the port for other replicas, and calls of other replicas."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ray._common.tls_utils import add_port_to_grpc_server
from ray.serve.handle import DeploymentHandle

from ctxner.batch.local_ray import LOOPBACK_ONLY
from serving.settings import ServeSettings

_NICENESS = 10


def listen_on_loopback() -> None:
    """Bind this replica's port for other replicas to loopback, if all of Ray is on this machine.

    Ray Serve 2.60 binds it to all addresses, whatever the node's address is; only Ray's token guards it then. Call this
    in a replica's constructor, which runs before the port is bound. `tests/integration/serve/test_doors.py` checks it.
    """
    if any(os.environ.get(name) != value for name, value in LOOPBACK_ONLY.items()):
        return
    from ray.serve._private import replica

    replica.add_port_to_grpc_server = partial(_bind_to_loopback, add_port_to_grpc_server)


def _bind_to_loopback(bind: Any, server: Any, address: str) -> Any:
    return bind(server, address.replace("[::]", "127.0.0.1"))


def model_thread(settings: ServeSettings) -> ThreadPoolExecutor:
    """The one thread in which a model computes.

    It yields the processor to what answers clients: where cores are shared, work that can wait would otherwise delay
    the router, and with it all requests.
    """
    return ThreadPoolExecutor(1, "model", _in_background, (settings.threads,))


def _in_background(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)  # OpenMP's number is set per calling thread
    if sys.platform == "linux":
        thread = threading.get_native_id()  # Linux has a priority per thread; raising one is not allowed to everybody
        os.setpriority(os.PRIO_PROCESS, thread, max(_NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))


def shown(model: str) -> str:
    """A model as answers name it: its hub id, or its folder without the folders above."""
    return Path(model).name if Path(model).is_absolute() else model


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
