"""Copying an index from shared or object storage to a node, once per node and version.

folder/<fingerprint>/           a whole index folder: CURRENT and one version (`ctxner.retrieval.index.versions`)
folder/.<fingerprint>.*.aside/  a copy on its way
folder/.fetch.lock              held (flock) by the process that copies; others wait for it
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

from ctxner.files.atomic import new_folder, remove_leftovers
from ctxner.files.locks import exclusive
from ctxner.files.node_copies import CACHE_VARIABLE, cache_folder, copy_files, forget_old
from ctxner.files.storage import explained, filesystem, names_in, read_bytes
from ctxner.files.uris import is_uri
from ctxner.retrieval.index.versions import (
    MAX_BYTES,
    IndexManifest,
    parse_current,
    parse_manifest,
    read_manifest,
    write_current,
)

_LOCK = ".fetch.lock"


def index_manifest(folder: Path, source: str | None = None) -> IndexManifest:
    """The manifest of the index to search: of `source` where there is one, else of `folder`, a path or URI.

    Raises:
        FileNotFoundError, ValueError: See `read_manifest` and `source_manifest`.
    """
    if source is None and is_uri(folder):
        source = str(folder)
    return source_manifest(source) if source else read_manifest(folder)


def index_here(folder: Path, source: str | None = None, manifest: IndexManifest | None = None) -> Path:
    """The folder of this node to search: `folder`, or this node's copy of `source` or of what a URI names.

    Args:
        folder: Index folder, or its URI; with a source, the folder of this node's copies.
        source: Path or URI of an index that each node copies.
        manifest: Version that is wanted; None: the current one.

    Raises:
        FileNotFoundError, ValueError, OSError: See `source_manifest` and `fetch_index`.
    """
    if source is None and not is_uri(folder):
        return folder
    source, copies = (str(folder), _copies_of_uris()) if is_uri(folder) else (source, folder)
    assert source is not None
    return fetch_index(source, copies, manifest or source_manifest(source))


def source_manifest(source: str) -> IndexManifest:
    """The manifest of the current version of an index on shared or object storage.

    Args:
        source: Absolute path, or URI that fsspec can read (`s3://`, `gs://`, `abfs://`, `hdfs://`, `file://`).

    Raises:
        FileNotFoundError: No index there.
        ValueError: A URI that fsspec does not know, or a damaged manifest.
    """
    version = parse_current(_read(source, "CURRENT"), f"{source}/CURRENT", names_in(source))
    path = f"{version}/manifest.json"
    return parse_manifest(_read(source, path), f"{source}/{path}", version)


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
        OSError: Too little room on the disk, or the store refuses or does not answer.
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
        forget_old(path for path in folder.iterdir() if (path / "CURRENT").is_file())
    return target


def _copies_of_uris() -> Path:
    return cache_folder() / "indexes"


def _copy(source: str, manifest: IndexManifest, aside: Path) -> None:
    version = f"{source.rstrip('/')}/{manifest.version}"
    files, root = filesystem(version)
    with explained(version):
        listed = files.find(root, detail=True)
    if not listed:
        raise FileNotFoundError(
            f"{source}: version {manifest.version} is gone meanwhile; start the job again with the current one"
        )
    place = CACHE_VARIABLE if aside.parent == _copies_of_uris() else "index.folder"
    targets = [aside / manifest.version / name.removeprefix(root).lstrip("/") for name in listed]
    copy_files(source, listed, targets, f"set {place} to a folder on a larger disk of each node")
    write_current(aside, manifest.version)
    if read_manifest(aside) != manifest:
        raise ValueError(f"{source}: version {manifest.version} was replaced while it was copied; start the job again")


def _read(source: str, name: str) -> bytes:
    try:
        return read_bytes(f"{source.rstrip('/')}/{name}", MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"{source}: no index there ({name} is missing); `ctxner index build` makes one"
        ) from None
