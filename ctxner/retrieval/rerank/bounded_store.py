"""Bytes by key in a folder on a local disk, bounded in size, used by any number of processes at once. Only a cache.

Two SQLite files at most: a newer generation, which is written, and an older one. When the newer is full, the older is
removed and a new one begun; what is found in the older is copied forward, so that what is used stays (nearly LRU). No
file's name is used again and a connection lasts for one call, so no process writes into a file that replaced another. A
process may be killed at any point. Whatever goes wrong, the store only forgets: it logs and never raises. SQLite reads
files without mapping them, so that a damaged one is an error (the file is dropped) and not a dead process.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path

from ctxner.files.atomic import new_file, target_of
from ctxner.files.locks import exclusive

logger = logging.getLogger(__name__)

MIN_BYTES = 1 << 20
_PAGE_BYTES = 4096
_TRANSACTION_BYTES = 4 << 20  # written at once
_KEYS_PER_QUERY = 500
_BUSY_SECONDS = 5.0  # then another process writes for too long, and we do without
_GENERATION = re.compile(r"\d{20}\.sqlite")
_TRANSIENT = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_NO_FAULT_OF_THE_FILE = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_FULL}


class BoundedStore:
    """A folder; no file of it stays open between calls."""

    def __init__(self, folder: Path, *, max_bytes: int):
        """Take a folder, which is made when first written to, and remove what exceeds the bound.

        Args:
            folder: On a local disk; SQLite's locks are not safe on network file systems.
            max_bytes: Largest size of all files together, at any time.

        Raises:
            ValueError: The bound is below 1 MiB.
        """
        if max_bytes < MIN_BYTES:
            raise ValueError(f"{folder}: the bound is {max_bytes} bytes; wanted at least {MIN_BYTES}")
        self.folder = folder
        self._share = max_bytes // 2
        self._transaction = min(_TRANSACTION_BYTES, self._share // 8)
        self._warned = False
        if folder.is_dir():
            with self._tolerating(folder), suppress(BlockingIOError), self._lock():
                self._prune()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The values that are there."""
        values_by_key: dict[bytes, bytes] = {}
        for age, path in enumerate(reversed(self._generations())):
            missing = [key for key in keys if key not in values_by_key]
            values = self._read(path, missing) if missing else {}
            values_by_key |= values
            if age:
                self.put(values)
        return values_by_key

    def put(self, items: Mapping[bytes, bytes]) -> None:
        """Add or replace values; any of them may be forgotten, sooner or later or at once."""
        batch: dict[bytes, bytes] = {}
        num_bytes = 0
        for key, value in items.items():
            batch[key] = value
            num_bytes += len(key) + len(value)
            if num_bytes >= self._transaction:
                self._write(batch)
                batch, num_bytes = {}, 0
        if batch:
            self._write(batch)

    def _read(self, path: Path, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        values_by_key: dict[bytes, bytes] = {}
        with self._tolerating(path), closing(_connect(path)) as database:
            for start in range(0, len(keys), _KEYS_PER_QUERY):
                chunk = keys[start : start + _KEYS_PER_QUERY]
                places = ",".join("?" * len(chunk))
                query = f"SELECT key, value FROM entries WHERE key IN ({places})"  # noqa: S608 - only question marks
                values_by_key |= database.execute(query, chunk).fetchall()
        return {key: value for key, value in values_by_key.items() if isinstance(value, bytes)}

    def _write(self, items: Mapping[bytes, bytes]) -> None:
        generations = self._generations()
        newest = generations[-1] if generations else self._begin(None)
        if newest and not self._insert(newest, items):
            following = self._begin(newest)
            if following:
                self._insert(following, items)

    def _insert(self, path: Path, items: Mapping[bytes, bytes]) -> bool:
        """False when the file is full."""
        with self._tolerating(path), closing(_connect(path)) as database:
            # A transaction's journal takes room too: the pages that it changes, as they were.
            database.execute(f"PRAGMA max_page_count = {(self._share - 2 * self._transaction) // _PAGE_BYTES}")
            database.execute("BEGIN IMMEDIATE")
            try:
                database.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", items.items())
                database.execute("COMMIT")
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_FULL:
                    raise
                return False
        return True

    def _begin(self, full: Path | None) -> Path | None:
        """The generation after `full` (None: the first); None while another process makes one."""
        with self._tolerating(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(BlockingIOError), self._lock():
                generations = self._generations()
                if generations and generations[-1] != full:
                    return generations[-1]  # made in the meantime
                path = self.folder / f"{time.time_ns():020d}.sqlite"
                with new_file(path) as aside, closing(_connect(aside, mode="rwc")) as database:
                    database.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
                    database.execute("CREATE TABLE entries (key BLOB PRIMARY KEY, value BLOB)")
                self._prune()
                return path
        return None

    def _prune(self) -> None:
        """Remove all but two generations, and those made under a wider bound."""
        keep = {path.name for path in self._generations() if path.stat().st_size <= self._share}
        for path in self.folder.iterdir():
            name = path.name.removesuffix("-journal")
            if target_of(name) or (_GENERATION.fullmatch(name) and name not in keep):
                path.unlink(missing_ok=True)

    def _generations(self) -> list[Path]:
        """The older file, then the newer one, as far as there are any."""
        try:
            names = sorted(name for name in os.listdir(self.folder) if _GENERATION.fullmatch(name))
        except OSError:
            return []
        return [self.folder / name for name in names[-2:]]

    def _lock(self) -> AbstractContextManager[None]:
        """The right to make and remove generations; BlockingIOError when another process has it."""
        return exclusive(self.folder / "lock", wait=False)

    @contextmanager
    def _tolerating(self, path: Path) -> Iterator[None]:
        """Do without the store when it fails; a file that SQLite cannot make sense of goes."""
        try:
            yield
        except sqlite3.Error as error:
            if _code(error) in _TRANSIENT or not path.exists():
                return
            if path == self.folder or _code(error) in _NO_FAULT_OF_THE_FILE:
                self._warn(error)
            else:
                self._drop(path, error)
        except OSError as error:
            self._warn(error)

    def _drop(self, path: Path, reason: Exception) -> None:
        logger.warning("%s: not a usable cache file (%s); dropped", path, reason)
        try:
            for name in (path.name, f"{path.name}-journal"):
                path.with_name(name).unlink(missing_ok=True)
        except OSError as error:
            self._warn(error)

    def _warn(self, error: Exception) -> None:
        """Once: the job goes on, only slower."""
        if not self._warned:
            logger.warning("%s: the cache does not work here (%s); going on without", self.folder, error)
        self._warned = True


def _connect(path: Path, *, mode: str = "rw") -> sqlite3.Connection:
    database = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=_BUSY_SECONDS, isolation_level=None
    )
    database.text_factory = bytes  # a damaged value may claim to be text
    database.execute("PRAGMA synchronous = OFF")  # lost power may cost the cache, never a result
    database.execute("PRAGMA cache_size = -8192")
    database.execute("PRAGMA cell_size_check = ON")
    return database


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
