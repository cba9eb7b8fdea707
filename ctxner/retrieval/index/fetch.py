"""Copying an index from shared or object storage to a node, once per node and version.

folder/<fingerprint>/           a whole index folder: CURRENT and one version (`ctxner.retrieval.index.versions`)
folder/.<fingerprint>.*.aside/  a copy on its way
folder/.fetch.lock              held (flock) by the process that copies; others wait for it
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ctxner.files.atomic import new_folder, remove_leftovers
from ctxner.files.locks import exclusive
from ctxner.retrieval.index.versions import (
    MAX_BYTES,
    IndexManifest,
    parse_current,
    parse_manifest,
    read_manifest,
    write_current,
)

if TYPE_CHECKING:
    from pyarrow import fs

_log = logging.getLogger(__name__)
_LOCK = ".fetch.lock"
_NUM_COPIES = 2  # copies that a node keeps: the one in use and the one before


def index_manifest(folder: Path, source: str | None = None) -> IndexManifest:
    """The manifest of the index to search: of `source` where there is one, else of `folder`.

    Raises:
        FileNotFoundError, ValueError: See `read_manifest` and `source_manifest`.
    """
    return source_manifest(source) if source else read_manifest(folder)


def source_manifest(source: str) -> IndexManifest:
    """The manifest of the current version of an index on shared or object storage.

    Args:
        source: Absolute path, or URI that pyarrow can read (`s3://`, `gs://`, `abfs://`, `hdfs://`, `file://`).

    Raises:
        FileNotFoundError: No index there.
        ValueError: A URI that pyarrow does not know, or a damaged manifest.
    """
    from pyarrow import fs

    files, root = _open(source)
    text = _read(files, f"{root}/CURRENT", source)
    names = (info.base_name for info in files.get_file_info(fs.FileSelector(root)))
    version = parse_current(text, f"{source}/CURRENT", names)
    path = f"{version}/manifest.json"
    return parse_manifest(_read(files, f"{root}/{path}", source), f"{source}/{path}", version)


def fetch_index(source: str, folder: Path, manifest: IndexManifest) -> Path:
    """A copy on this node of one version of the index; made when it is not there yet.

    Args:
        source: Path or URI of the index (see `source_manifest`).
        folder: Folder of this node's copies.
        manifest: Manifest of the wanted version, so that all nodes of a job search the same one.

    Returns:
        An index folder.

    Raises:
        FileNotFoundError: The source no longer has this version.
        ValueError: Too little room on the disk, or a file was not copied whole.
    """
    text = json.dumps(dataclasses.asdict(manifest), sort_keys=True)
    target = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
    with exclusive(folder / _LOCK):
        if target.is_dir():
            read_manifest(target)
            target.touch()  # the last used are kept
            return target
        remove_leftovers(folder)
        with new_folder(target) as aside:
            _copy(source, manifest, aside)
        _forget_old(folder)
    return target


def _copy(source: str, manifest: IndexManifest, aside: Path) -> None:
    from pyarrow import fs

    files, root = _open(source)
    there = f"{root}/{manifest.version}"
    try:
        infos = files.get_file_info(fs.FileSelector(there, recursive=True))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{source}: version {manifest.version} is gone meanwhile; start the job again with the current one"
        ) from None
    sizes = {info.path.removeprefix(f"{there}/"): info.size for info in infos if info.is_file}
    free = shutil.disk_usage(aside).free
    if sum(sizes.values()) > free:
        raise ValueError(
            f"{aside.parent}: {free >> 20} MiB free, but the index {source} has {sum(sizes.values()) >> 20} MiB; "
            "set index.folder to a larger disk"
        )
    _log.info("copying %d MiB of index from %s to %s", sum(sizes.values()) >> 20, source, aside.parent)
    version = aside / manifest.version
    fs.copy_files(there, str(version), source_filesystem=files, destination_filesystem=fs.LocalFileSystem())
    for name, size in sizes.items():
        copied = version / name
        if not copied.is_file() or copied.stat().st_size != size:
            raise ValueError(f"{source}/{manifest.version}/{name}: wanted {size} bytes, copied fewer; try again")
    write_current(aside, manifest.version)
    if read_manifest(aside) != manifest:
        raise ValueError(f"{source}: version {manifest.version} was replaced while it was copied; start the job again")


def _forget_old(folder: Path) -> None:
    """Delete all but the copies used last; a searcher that has a deleted copy open can read it until it ends."""
    copies = sorted(
        (path for path in folder.iterdir() if (path / "CURRENT").is_file()), key=lambda path: path.stat().st_mtime
    )
    for path in copies[:-_NUM_COPIES]:
        shutil.rmtree(path, ignore_errors=True)


def _open(source: str) -> tuple[fs.FileSystem, str]:
    import pyarrow as pa
    from pyarrow import fs

    try:
        files, root = fs.FileSystem.from_uri(source if "://" in source else str(Path(source).resolve()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise ValueError(f"index.source={source!r}: {error}; wanted a path, or s3://, gs://, hdfs:// ...") from None
    return files, root.rstrip("/")


def _read(files: fs.FileSystem, path: str, source: str) -> bytes:
    try:
        with files.open_input_file(path) as file:
            return bytes(file.read(MAX_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"{source}: no index there ({path} is missing); `ctxner index build` makes one"
        ) from None
