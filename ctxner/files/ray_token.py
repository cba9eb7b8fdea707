"""The file with Ray's token, which only this user may read. Ray itself is started elsewhere."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

logger = logging.getLogger(__name__)


@contextmanager
def private_token() -> Iterator[None]:
    """Context in which Ray starts: the token that it may write into `~/.ray` is readable to this user only.

    Whoever has the token can run code through Ray's ports, also through those on loopback. Ray writes it with the mode
    that the umask leaves, mostly 0644; into a file that exists, it writes without changing the mode. It takes an empty
    file for none. A token that was there before stays as it is, with a warning if others can read it.
    """
    path, is_made = Path.home() / ".ray" / "auth_token", False
    with suppress(OSError):  # if Ray needs the file, it says what is wrong
        path.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            is_made = True
        except FileExistsError:
            if path.stat().st_mode & 0o077:
                logger.warning("%s: others may read Ray's token and run code with it; chmod 600 it", path)
    try:
        yield
    finally:
        with suppress(OSError):
            if is_made and not path.stat().st_size:
                path.unlink()
