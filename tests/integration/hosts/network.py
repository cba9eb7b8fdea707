"""Hosts on one machine: `with hosts(3, folder) as network`, each with processes, a network and disks of its own.

A host is a set of Linux namespaces (see `man namespaces`), kept by a shell that reads from a pipe of the test. When the
pipe closes, even because the test was killed, the kernel ends all processes of the host and removes its interfaces.
The hosts' links end in a bridge in a network namespace of its own, from where `Network.outside` runs clients. Nothing
is changed in the machine's own network.

Of the files, hosts share everything but `/dev/shm` and `/tmp/ray`, which are each host's own and limited.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SUBNET = "10.77.0"
LOCAL = Path("/tmp/ray")  # each host's own disk: Ray's sessions and spilled objects, and caches
# A FUSE mount whose program has ended, as gcsfuse or s3fs may: every access is "Transport endpoint is not connected".
_DEAD_MOUNT = """
import ctypes, os, sys
connection = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={connection},rootmode=40000,user_id=0,group_id=0".encode()
if ctypes.CDLL(None, use_errno=True).mount(b"gone", sys.argv[1].encode(), b"fuse", 0, options):
    sys.exit(os.strerror(ctypes.get_errno()))
"""
_KEEPER = "echo kept; while read -r _; do :; done"  # bash also reaps the children of processes that ended
_POLL_SECONDS = 0.2
_ENTRY = {"net", "mount", "pid", "uts", "ipc"}


def missing() -> str | None:
    """Why this machine cannot have hosts; None if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "namespaces want Linux and root"
    if absent := [tool for tool in ("ip", "unshare", "nsenter", "mount") if not shutil.which(tool)]:
        return f"not installed: {', '.join(absent)} (iproute2, util-linux)"
    trial = subprocess.run(
        [
            "unshare",
            *(f"--{kind}" for kind in sorted(_ENTRY)),
            "--fork",
            "ip",
            "link",
            "add",
            "bridge",
            "type",
            "bridge",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return None if trial.returncode == 0 else f"no namespaces or bridges here: {trial.stderr.strip()}"


@dataclass
class Host:
    """A host; its processes see only each other.

    Attributes:
        name: Host name.
        address: IPv4 address on the common network.
        variables: Environment of all its processes.
        keeper: Process outside of the namespaces that keeps them; its child is the host's process 1.
        pid: Number of that child on this machine.
        network: Where its link ends; None for the namespace of the bridge itself.
    """

    name: str
    address: str
    variables: Mapping[str, str]
    keeper: subprocess.Popen[str]
    pid: int
    network: Network | None = None

    def command(self, *command: object, timeout: float | None = None) -> list[str]:
        """The command line that runs a command on this host."""
        entry = [
            "nsenter",
            f"--target={self.pid}",
            "--net",
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            f"--wdns={Path.cwd()}",
        ]
        limit = [] if timeout is None else ["timeout", "--kill-after=5", f"{timeout:g}"]
        return [*entry, "--", *limit, *map(str, command)]

    def run(
        self, *command: object, timeout: float = 60, check: bool = True, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on this host and return what it wrote.

        Raises:
            AssertionError: It ended with another code than 0, while `check`; the error has its output.
        """
        environment = {**self.variables, **(variables or {})}
        line = self.command(*command, timeout=timeout)
        ended = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
        assert not check or ended.returncode == 0, (
            f"{self.name}: {' '.join(map(str, command))} ended with {ended.returncode}\n{ended.stdout}{ended.stderr}"
        )
        return ended

    def start(self, *command: object, log: Path, variables: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a command on this host; what it writes goes into the file `log`."""
        with log.open("wb") as out:
            environment = {**self.variables, **(variables or {})}
            return subprocess.Popen(self.command(*command), env=environment, stdout=out, stderr=subprocess.STDOUT)

    def cut(self) -> None:
        """Cut the host's link, as when somebody pulls its cable."""
        self._switch("down")

    def join(self) -> None:
        """Mend the host's link."""
        self._switch("up")

    def kill(self) -> None:
        """End all processes of the host by kill -9; the host is there and could start Ray again."""
        self.run("bash", "-c", "kill -9 -1; true", check=False)  # -1: all in this namespace but process 1 and itself

    def limit_disk(self, num_bytes: int) -> None:
        """Give the host's disk another size, e.g. what it holds already: then it is full."""
        self.run("mount", "-o", f"remount,size={num_bytes}", LOCAL)

    def lose_files(self) -> None:
        """Let every access to the common files fail; files that are open stay."""
        assert self.network
        self.run(sys.executable, "-c", _DEAD_MOUNT, self.network.files)

    def find_files(self) -> None:
        """Bring the common files back."""
        assert self.network
        self.run("umount", self.network.files)

    def _switch(self, state: str) -> None:
        assert self.network
        self.network.outside.run("ip", "link", "set", self.name, state)


@dataclass
class Network:
    """Hosts and what they have in common.

    Attributes:
        outside: Namespace of the bridge; a client there reaches all hosts.
        hosts: The hosts, the first one at `SUBNET`.1.
        files: Folder that all hosts and this process see at the same place.
    """

    outside: Host
    files: Path
    hosts: list[Host] = field(default_factory=list)


@contextmanager
def hosts(
    count: int, folder: Path, *, variables: Mapping[str, str] | None = None, disk_mib: int = 2048, shm_mib: int = 512
) -> Iterator[Network]:
    """Make hosts; at the end of the block they and all their processes are gone.

    Args:
        count: Number of hosts.
        folder: Folder for the common files.
        variables: Environment of the hosts' processes, beside PATH, HOME and those of the tests.
        disk_mib: Size of the disk of each host, in main memory.
        shm_mib: Size of each host's /dev/shm.
    """
    files, home = folder / "files", folder / "home"
    for path in (files, home):
        path.mkdir(parents=True)
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(home)}
    environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **(variables or {})}
    with ExitStack() as stack:
        outside = stack.enter_context(_kept("outside", f"{SUBNET}.254", environment))
        network = Network(outside, files)
        _all(outside, "ip link set lo up; ip link add bridge type bridge; ip link set bridge up")
        _all(outside, f"ip address add {outside.address}/24 dev bridge")
        for number in range(1, count + 1):
            host = stack.enter_context(_kept(f"host-{number}", f"{SUBNET}.{number}", environment))
            host.network = network
            network.hosts.append(host)
            _connect(outside, host)
            _private_folders(host, network, disk_mib=disk_mib, shm_mib=shm_mib)
        yield network


@contextmanager
def _kept(name: str, address: str, environment: Mapping[str, str]) -> Iterator[Host]:
    """A host without links, until the block ends."""
    command = ["unshare", *(f"--{kind}" for kind in sorted(_ENTRY)), "--mount-proc", "--propagation=private"]
    command += ["--fork", "--kill-child", "bash", "-c", f"hostname {name}; {_KEEPER}"]
    keeper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert keeper.stdout
        assert keeper.stdout.readline() == "kept\n", f"{name}: no namespaces"
        children = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children").read_text().split()
        yield Host(name, address, dict(environment), keeper, int(children[0]))
    finally:
        keeper.communicate()  # closes the pipe: the shell ends, and with process 1 the kernel ends all others


def _connect(outside: Host, host: Host) -> None:
    """A cable from the host to the bridge."""
    # In the bridge's network, but not among its processes: they would not know the host by its number here.
    link = ["ip", "link", "add", host.name, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid)]
    subprocess.run(["nsenter", f"--target={outside.pid}", "--net", "--", *link], check=True)
    _all(outside, f"ip link set {host.name} master bridge up")
    _all(host, f"ip link set lo up; ip address add {host.address}/24 dev eth0; ip link set eth0 up")
    _all(host, f"ip route add default via {outside.address}")  # Ray asks the routes which address is its own


def _private_folders(host: Host, network: Network, *, disk_mib: int, shm_mib: int) -> None:
    """Mounts that only this host sees."""
    _all(host, f"mount -t tmpfs -o size={shm_mib}m tmpfs /dev/shm")
    _all(host, f"mkdir -p {LOCAL}; mount -t tmpfs -o size={disk_mib}m tmpfs {LOCAL}")
    names = network.files.parent / f"{host.name}.names"
    names.write_text(f"127.0.0.1 localhost\n127.0.1.1 {host.name}\n")  # as Debian's installer does
    _all(host, f"mount --bind {names} /etc/hosts")


def _all(host: Host, commands: str) -> None:
    host.run("bash", "-ec", commands)


def wait_for_end(process: subprocess.Popen[bytes], log: Path, *, seconds: float) -> str:
    """What a process wrote, once it has ended with code 0.

    Raises:
        AssertionError: Another code, or no end in time; the error has the last lines of the log.
    """
    code: int | str
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        code = f"no end after {seconds:g} s"
    text = log.read_text(errors="replace")
    assert code == 0, f"{code}: {text[-4000:]}"
    return text


def wait_until(happens: Callable[[], Any], *, seconds: float, what: str) -> Any:
    """Wait until a function returns something true, and return it.

    Raises:
        AssertionError: It does not in time.
    """
    until = time.monotonic() + seconds
    while not (seen := happens()):
        assert time.monotonic() < until, f"not within {seconds:g} s: {what}"
        time.sleep(_POLL_SECONDS)
    return seen
