"""Exit codes that a scheduler can act on: done, failed, wrong input, or try again.

Wrong input is what somebody has to change first. "Try again" is what may pass by itself: a lost worker or node, a
storage that refuses, a full disk; every command that writes goes on where it stopped, so the same command is enough.
Any other failure is a fault of ctxner: it keeps Python's traceback and exit code 1.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

WRONG_INPUT, TRY_AGAIN = 2, 75  # 75 is EX_TEMPFAIL of sysexits.h; 2 is also Typer's code for wrong options
_PASSING = {
    errno.EAGAIN, errno.EBUSY, errno.EDQUOT, errno.EHOSTUNREACH, errno.EIO, errno.EMFILE, errno.ENETUNREACH,
    errno.ENFILE, errno.ENOSPC, errno.ESTALE,
    errno.ENOTCONN,  # the program behind a FUSE mount (gcsfuse, s3fs) has ended
}  # fmt: skip
# By the first part of their module: neither Ray nor a client of an object storage is imported to look.
_PASSING_NAMES = {
    "ray": {
        "ActorDiedError", "ActorUnavailableError", "GetTimeoutError", "NodeDiedError", "ObjectLostError",
        "OutOfDiskError", "OutOfMemoryError", "RayActorError", "RayChannelTimeoutError", "RaySystemError",
        "WorkerCrashedError",
    },
    "botocore": {"ConnectTimeoutError", "ConnectionClosedError", "EndpointConnectionError", "ReadTimeoutError"},
    "aiohttp": {"ClientConnectionError"},
    "google": {"ServiceUnavailable", "TooManyRequests"},
    "azure": {"ServiceRequestError", "ServiceResponseError"},
}  # fmt: skip


def exit_code(error: BaseException) -> int | None:
    """The exit code for an error that ends a command; None for a fault of ctxner, whose traceback is wanted."""
    if any(_may_pass(cause) for cause in _causes(error)):
        return TRY_AGAIN
    known = isinstance(error, (ValueError, OSError, FloatingPointError, MemoryError))
    return WRONG_INPUT if known else None


def _may_pass(error: BaseException) -> bool:
    if failures := getattr(error, "worker_failures", None):  # of Ray Train: the errors of its workers by rank
        from ctxner.training.failures import is_loss

        return is_loss(failures)
    if isinstance(error, OSError):
        return isinstance(error, (ConnectionError, TimeoutError)) or error.errno in _PASSING
    return any(
        kind.__name__ in _PASSING_NAMES.get(kind.__module__.partition(".")[0], ()) for kind in type(error).__mro__
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from, as far as that was said (`raise ... from`), in Ray's wrappers too."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or getattr(error, "cause", None) or getattr(error, "controller_failure", None)
        error = error if isinstance(error, BaseException) else None
