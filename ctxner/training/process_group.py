"""Ray Train's process group, made so that its Gloo connections work between hosts."""

from __future__ import annotations

import os
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

_VARIABLE = "GLOO_SOCKET_IFNAME"


class NodeTorchConfig(TorchConfig):
    """Ray Train's settings of PyTorch, with a backend that connects workers by their nodes' addresses."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """Class of the backend that makes the process group."""
        return _NodeBackend


class _NodeBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(use_interface_of_node)
        super().on_start(worker_group, backend_config)


def use_interface_of_node() -> None:
    """Let Gloo of this process use the network interface that has Ray's address of this node, unless one is set.

    By itself, Gloo takes the address of the host's name. Many hosts resolve their names to a loopback address, e.g.
    Debian's `127.0.1.1`, at which workers on other hosts do not find them.
    """
    if interface := interface_of(ray.util.get_node_ip_address()):
        os.environ.setdefault(_VARIABLE, interface)


def interface_of(address: str) -> str | None:
    """Name of the network interface with an address; None if this machine has none, as behind a NAT."""
    return next(
        (
            name
            for name, addresses in psutil.net_if_addrs().items()
            if any(given.address.partition("%")[0] == address for given in addresses)
        ),
        None,
    )
