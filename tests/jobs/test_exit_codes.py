"""What a scheduler is told: 2 for what somebody has to change, 75 for what may pass, and a traceback for our faults."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.exit_codes import TRY_AGAIN, WRONG_INPUT, exit_code


def _caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def _of(module: str, name: str, base: type[Exception] = Exception) -> Exception:
    return type(name, (base,), {"__module__": module})("lost")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("line 3: no such tag"), WRONG_INPUT),
        (FileNotFoundError(errno.ENOENT, "no such file"), WRONG_INPUT),
        (PermissionError(errno.EACCES, "not allowed"), WRONG_INPUT),
        (FloatingPointError("the loss is not finite"), WRONG_INPUT),
        (MemoryError("lower optim.batch_pieces"), WRONG_INPUT),
        (OSError(errno.ENOSPC, "no space left on device"), TRY_AGAIN),
        (OSError(errno.ESTALE, "stale file handle"), TRY_AGAIN),
        (OSError(errno.ENOTCONN, "the program behind a FUSE mount has ended"), TRY_AGAIN),
        (ConnectionRefusedError(errno.ECONNREFUSED, "connection refused"), TRY_AGAIN),
        (TimeoutError("no answer"), TRY_AGAIN),
        (_caused(ValueError("s3://b/x cannot be read"), ConnectionResetError("reset")), TRY_AGAIN),
        (_of("ray.exceptions", "NodeDiedError"), TRY_AGAIN),
        (_of("botocore.exceptions", "EndpointConnectionError"), TRY_AGAIN),
        (_of("elsewhere", "NodeDiedError"), None),
        (KeyError("a fault of ours"), None),
        (ZeroDivisionError(), None),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_an_error_has_the_code_of_what_to_do_about_it(error: BaseException, code: int | None) -> None:
    assert exit_code(error) == code


def test_rays_own_errors_are_known_by_their_names() -> None:
    ray = pytest.importorskip("ray")
    from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

    for kind in ("ActorDiedError", "NodeDiedError", "OutOfMemoryError", "WorkerCrashedError", "RaySystemError"):
        assert exit_code(getattr(ray.exceptions, kind).__new__(getattr(ray.exceptions, kind))) == TRY_AGAIN
    lost = ray.exceptions.WorkerCrashedError()
    assert (
        exit_code(WorkerGroupError("a worker was lost", {0: lost, 1: RuntimeError("connection closed")})) == TRY_AGAIN
    )
    assert exit_code(ControllerError(lost)) == TRY_AGAIN
    assert exit_code(ControllerError(KeyError("a fault of ours"))) is None


def test_a_fault_of_ours_in_a_worker_keeps_its_traceback() -> None:
    """Before, all failures of workers were "try again", and a scheduler would have tried for ever."""
    pytest.importorskip("ray")
    from ray.train.v2.api.exceptions import WorkerGroupError

    assert exit_code(WorkerGroupError("a worker failed", {0: TypeError("no such argument")})) is None


def test_a_circle_of_causes_ends() -> None:
    first, second = KeyError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert exit_code(first) is None


def test_a_storage_that_refuses_is_try_again_and_says_so(tmp_path: Path) -> None:
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", 0))  # taken, and nobody listens
        uri = f"http://127.0.0.1:{taker.getsockname()[1]}/texts.jsonl"
        command = [sys.executable, "-m", "jobs", "tag", uri, "tagged", "--model", "absent", "--dry-run"]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == TRY_AGAIN, ended.stderr
    assert "this may pass; the same command goes on where it stopped" in ended.stderr
    assert "Traceback" not in ended.stderr
