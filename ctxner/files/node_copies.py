"""A node's copies of what lies behind URIs: made once per node and state of the store, whole or not at all.

    CACHE/<what>/<state>/bucket/path    a copy; <what> hashes the URIs, <state> the store's marks of their files
    CACHE/<what>/.lock                  held (flock) by the process that copies; others wait for it

CACHE is `$CTXNER_CACHE/storage`, by default `~/.cache/ctxner/storage`. Local paths are used where they are, uncopied.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

from ctxner.files.atomic import new_folder, remove_leftovers
from ctxner.files.locks import exclusive
from ctxner.files.storage import explained, filesystem, passes
from ctxner.files.uris import UriPath, is_uri, path_or_uri

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "CTXNER_CACHE"
_NUM_COPIES = 2  # copies of the same thing that a node keeps: the one in use and the one before
_MARKS = ("etag", "md5hash", "generation", "size", "lastmodified", "last_modified", "mtime", "created")
_MAGIC_PART = re.compile(r"[^/]*[*?[]")


@overload
def local(place: str) -> str: ...
@overload
def local(place: Path) -> Path: ...
def local(place: str | Path) -> str | Path:
    """A path of this node: this node's copy of what a URI (a file, folder or pattern) names, or the path as it is.

    Raises:
        FileNotFoundError: There is nothing behind the URI.
        OSError: The disk is too small, the store refuses, or does not answer (see `explained`).
    """
    if not is_uri(place):
        return path_or_uri(place) if isinstance(place, Path) else place
    (copy,) = fetched([place])
    return str(copy) if isinstance(place, str) else copy


def fetched(places: Sequence[str | Path]) -> list[Path]:
    """The same for several places, whose copies lie in one folder as in the store: names of files stay distinct."""
    paths = [path_or_uri(place) for place in places]
    uris = [path for path in paths if isinstance(path, UriPath)]
    if not uris:
        return paths
    listed = {uri: _listed(uri) for uri in uris}
    folder = cache_folder() / "storage" / _digest(sorted(map(str, uris)))
    target = folder / _digest(listed)
    with exclusive(folder / ".lock"):
        if target.is_dir():
            target.touch()  # the last used are kept
        else:
            remove_leftovers(folder)
            with new_folder(target) as aside:
                for uri, files in listed.items():
                    _copy(uri, files, aside)
            forget_old(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [target / _place(filesystem(path)[1]) if isinstance(path, UriPath) else path for path in paths]


def forget_old(copies: Iterable[Path]) -> None:
    """Delete all but the copies used last; whoever has files of a deleted copy open can read them until it ends."""
    for copy in sorted(copies, key=lambda path: path.stat().st_mtime)[:-_NUM_COPIES]:
        shutil.rmtree(copy, ignore_errors=True)


@contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """A new folder among those of a name in the cache, which is on a disk of this node; deleted with the block."""
    (folder := cache_folder() / name).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        yield Path(scratch)


def cache_folder() -> Path:
    """Folder of things that this node can make again."""
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/ctxner").expanduser()


def _listed(uri: Path) -> dict[str, Mapping[str, Any]]:
    """What the store says of each file that a URI names, by its path; files with a hidden part are left out."""
    files, path = filesystem(uri)
    with explained(uri):
        try:
            info = files.info(path)
        except FileNotFoundError as error:
            if passes(error):
                raise
            info = {"type": "folder or pattern"}
        if info["type"] == "file":
            return {path: info}
        is_pattern = glob.has_magic(path) and not files.exists(path)
        infos = files.glob(path, detail=True) if is_pattern else files.find(path, detail=True)
    above = _MAGIC_PART.split(path)[0] if is_pattern else path
    wanted = {
        name: info
        for name, info in infos.items()
        if info["type"] == "file"
        and not name.endswith("/")
        and not any(part.startswith(".") for part in name.removeprefix(above).split("/"))
    }
    if not wanted:
        raise FileNotFoundError(f"{uri}: no such file, folder or pattern in the store")
    return wanted


def work_folder(folder: Path) -> Path:
    """The folder of a result on this node: the result's own, or for a URI one for the files that are uploaded to it.

    For the same URI it is always the same folder.
    """
    if not is_uri(folder):
        return folder.resolve()
    path = cache_folder() / "work" / _digest([str(folder)]) / folder.name
    path.mkdir(parents=True, exist_ok=True)
    return path


def copy_files(uri: str | Path, listed: Mapping[str, Mapping[str, Any]], targets: Sequence[Path], advice: str) -> None:
    """Copy listed files of a store to this node.

    Args:
        uri: What they belong to, for errors.
        listed: What the store said of each file, by its path.
        targets: Where each is copied to, all below one new folder.
        advice: How to use a larger disk.

    Raises:
        OSError: Too little room on the disk, or a file that has changed since it was listed (see `explained` too).
    """
    folder = Path(os.path.commonpath([target.parent for target in targets]))
    folder.mkdir(parents=True, exist_ok=True)
    num_bytes, free = sum(info["size"] or 0 for info in listed.values()), shutil.disk_usage(folder).free
    if num_bytes > free:
        raise OSError(
            errno.ENOSPC,
            f"{uri}: {num_bytes >> 20} MiB, but {folder} has {free >> 20} MiB free; make room there, or {advice}",
        )
    logger.info("copying %d files, %d MiB, of %s to %s", len(listed), num_bytes >> 20, uri, folder)
    files, _ = filesystem(uri)
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
    with explained(uri):
        files.get(list(listed), list(map(str, targets)))
    for info, target in zip(listed.values(), targets, strict=True):
        if info["size"] is not None and target.stat().st_size != info["size"]:
            raise OSError(errno.ESTALE, f"{uri}: {target.name} changed while it was copied; start the job again")


def _copy(uri: Path, listed: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Copy the files of a URI below a folder; a store whose files change meanwhile is refused."""
    advice = f"set {CACHE_VARIABLE} to a folder on a larger disk of each node"
    copy_files(uri, listed, [folder / _place(name) for name in listed], advice)
    if _marks(_listed(uri)) != _marks(listed):
        raise OSError(errno.ESTALE, f"{uri}: it changed while it was copied to this node; start the job again")


def _marks(listed: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """What changes whenever a file's content does: its size and the store's own marks."""
    return [
        (name, *(f"{key}={str(info[key]).strip(chr(34))}" for key in sorted(info) if key.lower() in _MARKS))
        for name, info in sorted(listed.items())
    ]


def _digest(content: Any) -> str:
    listed = [_marks(files) for _, files in sorted(content.items())] if isinstance(content, dict) else content
    return hashlib.sha256(repr(listed).encode()).hexdigest()[:16]


def _place(path: str) -> str:
    """The place of an object in the folder of copies."""
    parts = path.partition("://")[2] or path
    return "/".join(part for part in parts.split("/") if part not in ("", ".", ".."))
