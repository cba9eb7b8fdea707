"""Errors of a request, from a full queue to an HTTP status and code.

Groups raise OverloadedError and DownError, routing raises UnavailableError. The service and `serving.web`
raise RefusedError for requests that they do not answer; HTTP sends its status, code and message.
"""

from __future__ import annotations


class OverloadedError(Exception):
    """The queue of a group is full."""


class DownError(Exception):
    """No replica of a group answers, or its code failed."""


class UnavailableError(Exception):
    """No view can answer now.

    Attributes:
        retry_after: Seconds after which another try may succeed.
        is_failure: Whether a replica failed, which the work itself may have caused; otherwise all were late or full.
    """

    def __init__(self, message: str, retry_after: float, *, is_failure: bool) -> None:
        super().__init__(message)
        self.retry_after, self.is_failure = retry_after, is_failure


class RefusedError(Exception):
    """A request that is not answered.

    Attributes:
        status: HTTP status.
        code: Error code for programs.
        retry_after: Seconds after which another try may succeed; None: not stated.
    """

    def __init__(self, status: int, code: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.retry_after = status, code, retry_after


def place_of(error: BaseException) -> str:
    """File and line in which an error was raised; its message may contain a caller's text and is not shown."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else "?"
