"""Versions of a model in a folder or object storage, and `latest`, which leads to one of them.

    TO/VERSION/model/             what `ctxner train` wrote, with calibration.json: for `ctxner serve` and others
    TO/VERSION/index              link to the index in the store; a copy with `copy_index` (at a URI: only then)
    TO/VERSION/pages/             pages of the evaluation and the calibration
    TO/VERSION/manifest.json      inputs, scores, the index, and the files with their hashes; at a URI written last
    TO/latest                     link to a version; at a URI a file with its name

A folder's version is written aside and renamed. `ctxner serve` follows the links when it starts and at `kill -HUP`. A
version is never replaced by one with another key; to publish the same again moves `latest` back to it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxner.files.atomic import aside_of, new_folder, remove_leftovers
from ctxner.files.bounded import read_json_object
from ctxner.files.locks import exclusive
from ctxner.files.storage import exists, explained, filesystem, put_file, read_bytes, write_bytes
from ctxner.files.uris import is_uri, path_or_uri
from ctxner.training.export.provenance import sha256
from jobs.pipeline.definition import LATEST

MANIFEST = "manifest.json"
_MAX_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class Published:
    """What lies under the name of a version.

    Attributes:
        manifest: Its `manifest.json`; None: nothing is published.
        is_whole: Whether all files are there with their sizes.
        is_latest: Whether `latest` leads there.
    """

    manifest: Mapping[str, Any] | None = None
    is_whole: bool = False
    is_latest: bool = False

    @property
    def key(self) -> str | None:
        """Key of what is published."""
        return str(self.manifest["key"]) if self.manifest else None


def look(to: str, version: str, key: str) -> Published:
    """What is published under a version's name.

    Args:
        to: Folder or URI of all versions.
        version: Name of the version.
        key: Key of what shall be published.

    Raises:
        ValueError: Something else has this name: another key, or no published version at all.
    """
    there = _look_at_uri(to, version) if is_uri(to) else _look_at_folder(path_or_uri(to), version)
    if there.key not in (None, key):
        raise ValueError(
            f"{to.rstrip('/')}/{version}: published before from other inputs (key {there.key}, now {key}), and never "
            "replaced; set publish.version to another name, or leave it out to name versions by their key"
        )
    return there


def publish(
    to: str, version: str, manifest: Mapping[str, Any], files: Mapping[str, Path], index: Path | None = None
) -> None:
    """Publish a version, unless it is there whole, and let `latest` lead to it.

    Args:
        to: Folder or URI of all versions.
        version: Name of the version.
        manifest: What `manifest.json` says, with the version's `key`; the files are added.
        files: Files by their paths in the version.
        index: Folder that the version links to as its index; only for folders.

    Raises:
        ValueError: See `look`.
    """
    listed = {name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for name, path in sorted(files.items())}
    text = json.dumps({**manifest, "files": listed}, indent=1, ensure_ascii=False) + "\n"
    if is_uri(to):
        _put(to.rstrip("/"), version, manifest["key"], text, files)
        return
    folder = path_or_uri(to)
    with exclusive(folder / ".lock"):
        if not look(to, version, manifest["key"]).is_whole:
            remove_leftovers(folder)
            with new_folder(folder / version) as aside:
                for name, path in files.items():
                    (aside / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, aside / name)
                if index is not None:
                    (aside / "index").symlink_to(index)
                (aside / MANIFEST).write_text(text, encoding="utf-8")
        link = aside_of(folder / LATEST)
        link.symlink_to(version)
        link.replace(folder / LATEST)


def _look_at_folder(folder: Path, version: str) -> Published:
    latest = folder / LATEST
    if latest.exists() and not latest.is_symlink():
        raise ValueError(f"{latest}: no link to a version, so {folder} is no folder of published versions; use another")
    path = folder / version / MANIFEST
    if not path.is_file():
        if (folder / version).exists():
            raise ValueError(f"{folder / version}: is there and no published version; remove it or use another folder")
        return Published()
    manifest = read_json_object(path, _MAX_BYTES)
    sizes = {name: _size(path.parent / name) for name in manifest["files"]}
    is_latest = latest.is_symlink() and latest.readlink() == Path(version)
    return Published(manifest, _is_whole(manifest, sizes), is_latest)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _is_whole(manifest: Mapping[str, Any], sizes: Mapping[str, int | None]) -> bool:
    return all(sizes.get(name) == facts["bytes"] for name, facts in manifest["files"].items())


def _look_at_uri(uri: str, version: str) -> Published:
    here, latest = f"{uri.rstrip('/')}/{version}", f"{uri.rstrip('/')}/{LATEST}"
    if not exists(f"{here}/{MANIFEST}"):
        return Published()
    manifest = json.loads(read_bytes(f"{here}/{MANIFEST}", _MAX_BYTES))
    files, root = filesystem(here)
    with explained(here):
        found = files.find(root, detail=True)
    sizes = {path.removeprefix(root).lstrip("/"): facts["size"] for path, facts in found.items()}
    is_latest = exists(latest) and read_bytes(latest, _MAX_BYTES).decode().strip() == version
    return Published(manifest, _is_whole(manifest, sizes), is_latest)


def _put(uri: str, version: str, key: str, text: str, files: Mapping[str, Path]) -> None:
    if not look(uri, version, key).is_whole:
        for name, path in files.items():
            put_file(path, f"{uri}/{version}/{name}")
        write_bytes(f"{uri}/{version}/{MANIFEST}", text.encode())
    write_bytes(f"{uri}/{LATEST}", f"{version}\n".encode())
