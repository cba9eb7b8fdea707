"""What can go wrong with a request, and the status and code that HTTP gives for it.

Inside, groups raise OverloadedError and DownError, routing UnavailableError; the service turns what nobody else can
answer into a RefusedError, which `serving.web` sends as it is.
"""

from __future__ import annotations


class OverloadedError(Exception):
    """The queue of a group is full."""


class DownError(Exception):
    """No replica of a group answers."""


class UnavailableError(Exception):
    """Nobody can answer now.

    Attributes:
        retry_after: Seconds after which it is worth another try.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RefusedError(Exception):
    """A request that is not answered.

    Attributes:
        status: HTTP's.
        code: For programs.
        retry_after: Seconds, where another try may be worth it.
    """

    def __init__(self, status: int, code: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.retry_after = status, code, retry_after
