"""Gloo connects workers by the interface of the node's address; tests/integration/hosts has two real hosts."""

from __future__ import annotations

import socket

import psutil

from ctxner.training.process_group import interface_of


def test_the_interface_is_the_one_that_has_the_address() -> None:
    loopback = interface_of("127.0.0.1")
    assert loopback in psutil.net_if_addrs()
    assert interface_of("192.0.2.123") is None, "an address for documents, which no machine has"
    for name, addresses in psutil.net_if_addrs().items():
        for given in addresses:
            if given.family == socket.AF_INET6:
                assert interface_of(given.address.partition("%")[0]) is not None, name
