"""All-or-nothing writes: a file or a folder is written aside, synced to disk, and renamed into place.

A reader sees the old content or the new content, never a part of it. What is written aside lies in the target's folder
as `.NAME.RANDOM.aside`; it is removed when the writer fails, and `remove_leftovers` removes what killed writers left.
Locks, for targets with several writers, are in `ctxner.files.locks`.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_ASIDE = re.compile(r"\.(.+)\.[0-9a-f]{8}\.aside", re.DOTALL)


def aside_of(path: Path) -> Path:
    """An unused path beside `path`, for what will be renamed to it."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.aside")


def target_of(name: str) -> str | None:
    """Name of the target, when `name` is that of a file or folder written aside; else None."""
    match = _ASIDE.fullmatch(name)
    return match and match[1]


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a path to write a file to; it becomes `path` when the block ends, and is removed when the block fails."""
    aside = aside_of(path)
    try:
        yield aside
        put_in_place(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill; it becomes `path` when the block ends, and is removed when the block fails."""
    aside = aside_of(path)
    aside.mkdir()
    try:
        yield aside
        put_in_place(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Write a text file in UTF-8, all or nothing; line ends stay as they are in `text`.

    Args:
        path: File to write.
        text: Its content.
        private: Whether only the file's owner may read it (mode 0600).
    """
    with new_file(path) as aside:
        aside.touch(0o600 if private else 0o666, exist_ok=False)
        aside.write_text(text, encoding="utf-8", newline="")


def put_in_place(aside: Path, path: Path) -> None:
    """Sync a complete file or folder and rename it to `path`, in place of what is there.

    A rename cannot replace a folder that holds files. Such a folder is moved aside first and removed afterwards, so a
    reader may find no folder for an instant, and a writer killed then leaves the old folder aside.
    """
    _sync_all(aside)
    if aside.is_dir() and path.is_dir():
        _replace_folder(aside, path)
    else:
        aside.replace(path)
    _sync_folder(path.parent)


def remove_leftovers(folder: Path, target: str | None = None) -> None:
    """Remove what killed writers left aside in a folder; only for a caller that is the only writer there now.

    Args:
        folder: Folder of the targets.
        target: Name of the only target whose leftovers are removed; None for all.
    """
    for path in folder.iterdir():
        name = target_of(path.name)
        if name is not None and target in (None, name):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder; what is gone already is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _replace_folder(aside: Path, path: Path) -> None:
    old = aside_of(path)
    path.rename(old)
    try:
        aside.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sync_all(path: Path) -> None:
    if not path.is_dir():
        _sync(path)
    for folder, _, names in os.walk(path):
        for name in names:
            _sync(Path(folder, name))
        _sync_folder(Path(folder))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Sync a folder's entries; file systems that cannot do this (FUSE mounts) are used without it."""
    with suppress(OSError):
        _sync(folder)
