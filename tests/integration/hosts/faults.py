"""What can happen to a host while a job or a server runs, and how the cluster is made whole again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.integration.hosts.cluster import RayCluster
from tests.integration.hosts.network import LOCAL, Host

Fault = Callable[[RayCluster], Iterator[None]]

_CUT_SECONDS, _NO_FILES_SECONDS = 30, 60
_SLOW = "tbf rate 2mbit burst 32kbit latency 200ms"  # netem, which adds delay and loss, is not in every kernel


def victim(ray: RayCluster) -> Host:
    """The host to which it happens: never the head, on which the jobs' drivers run."""
    return ray.workers[0]


def killed(ray: RayCluster) -> Iterator[None]:
    """All processes of a host end."""
    victim(ray).kill()
    yield


def cut_for_good(ray: RayCluster) -> Iterator[None]:
    """A host cannot be reached any more, but goes on."""
    victim(ray).cut()
    yield
    victim(ray).join()


def cut_for_a_while(ray: RayCluster) -> Iterator[None]:
    """A host cannot be reached for 30 seconds."""
    victim(ray).cut()
    mend = threading.Timer(_CUT_SECONDS, victim(ray).join)
    mend.start()
    yield
    mend.join()


def disk_full(ray: RayCluster) -> Iterator[None]:
    """A host's disk for Ray's logs, sessions and spilled objects takes no more bytes."""
    used = int(victim(ray).run("df", "--block-size=1", "--output=used", LOCAL).stdout.split()[-1])
    victim(ray).limit_disk(used)
    yield
    victim(ray).limit_disk(2 << 30)


def slow(ray: RayCluster) -> Iterator[None]:
    """A host sends and gets 2 Mbit/s."""
    host, outside = victim(ray), ray.network.outside
    host.run("tc", "qdisc", "add", "dev", "eth0", "root", *_SLOW.split())
    outside.run("tc", "qdisc", "add", "dev", host.name, "root", *_SLOW.split())
    yield
    outside.run("tc", "qdisc", "del", "dev", host.name, "root")
    host.run("tc", "qdisc", "del", "dev", "eth0", "root")


def no_files(ray: RayCluster) -> Iterator[None]:
    """No host can open or write common files for a minute."""
    for host in ray.network.hosts:
        host.lose_files()

    def mend() -> None:
        for host in ray.network.hosts:
            host.find_files()

    timer = threading.Timer(_NO_FILES_SECONDS, mend)
    timer.start()
    yield
    timer.join()


@contextmanager
def struck(ray: RayCluster, fault: Fault) -> Iterator[None]:
    """Let it happen; at the end of the block it is over, and all hosts are in the cluster again."""
    happening = fault(ray)
    next(happening)
    try:
        yield
    finally:
        next(happening, None)
        make_whole(ray)


def make_whole(ray: RayCluster) -> None:
    """Start Ray again on the hosts that are not in the cluster."""
    alive = ray.nodes()
    for host in ray.workers:
        if host.address not in alive or not host.run("pgrep", "raylet", check=False).stdout:
            host.kill()
            ray.start(host)
    ray.wait_for_nodes(*ray.network.hosts)
