"""The hosts of these tests are hosts: own processes, own disks, links that break, and nothing is left of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psutil
import pytest

from tests.integration.hosts.network import LOCAL, Host, hosts, missing, wait_until

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "")


def test_links_processes_and_files_of_hosts(tmp_path: Path) -> None:
    with hosts(2, tmp_path) as network:
        first, second = network.hosts
        assert _reaches(first, second)
        assert _reaches(network.outside, second)
        second.cut()
        assert not _reaches(first, second)
        second.join()
        assert _reaches(first, second)

        sleeping = _sleeping(second, tmp_path / "first")
        second.kill()
        assert sleeping.wait(10) == -9
        assert second.run("hostname").stdout == "host-2\n"

        shared = network.files / "shared"
        shared.write_text("for all")
        first.run("touch", LOCAL / "own")
        assert second.run("cat", shared, LOCAL / "own", check=False).stdout == "for all", "its disk is its own"
        second.limit_disk(1 << 20)
        assert "No space left" in second.run("dd", "if=/dev/zero", f"of={LOCAL}/big", check=False).stderr
        second.lose_files()
        refused = second.run("bash", "-c", f"cat {shared}; echo lost > {network.files}/new", check=False).stderr
        assert refused.count("Transport endpoint is not connected") == 2
        assert first.run("cat", shared).stdout == "for all"
        second.find_files()
        assert second.run("cat", shared).stdout == "for all"

        kept = _sleeping(first, tmp_path / "second")
    assert kept.wait(10) == -9
    assert not _left(tmp_path)
    assert not psutil.pid_exists(first.pid)


def _reaches(host: Host, other: Host) -> bool:
    """Whether a connection to a port of the other comes back refused, which is an answer."""
    connect = "import socket, sys; socket.create_connection((sys.argv[1], 9), 1)"
    return "Refused" in host.run("python", "-c", connect, other.address, check=False).stderr


def _sleeping(host: Host, log: Path) -> subprocess.Popen[bytes]:
    """A process of the host, once it runs."""
    process = host.start("bash", "-c", "echo here; exec sleep 100", log=log)
    wait_until(log.read_text, seconds=10, what="a process of the host")
    return process


def _left(folder: Path) -> list[str]:
    """Interfaces of hosts, and mounts below a folder, that this machine has."""
    links = subprocess.run(["ip", "-brief", "link"], check=True, capture_output=True, text=True).stdout
    mounts = Path("/proc/self/mounts").read_text()
    return [line for line in links.splitlines() if line.startswith(("host-", "bridge"))] + [
        line for line in mounts.splitlines() if str(folder) in line
    ]
