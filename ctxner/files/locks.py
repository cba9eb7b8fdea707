"""An exclusive lock on a file (flock): taken by waiting or not at all, and released when its process ends.

The file holds the process id of the last holder. Shared locks, as on a store of views while it is open, are taken where
they are needed.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)


@contextmanager
def exclusive(path: Path, *, wait: bool = True, remove: bool = False) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; no other thread or process does so at the same time.

    Args:
        path: Lock file; it and its folder are made when absent. A holder may remove both.
        wait: True waits for another holder; False raises at once.
        remove: Whether the file is removed in the end.

    Raises:
        BlockingIOError: `wait` is False and another one holds the lock; the message names its process.
    """
    with _locked(path, wait):
        try:
            yield
        finally:
            if remove:
                path.unlink(missing_ok=True)  # before the lock is released: a waiting process then sees another file


def _locked(path: Path, wait: bool) -> IO[bytes]:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file.fileno(), 20, 0).decode(errors="replace").strip() or "unknown"
            if not wait:
                file.close()
                raise BlockingIOError(f"{path}: locked by process {holder}") from None
            logger.debug("%s: waiting for process %s", path, holder)
            fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                file.write(b"%d\n" % os.getpid())
                return file
        file.close()  # its former holder removed the file between our two calls
