"""Building and changing an index whose folder is a URI: made on this node, then published as the store's next version.

    URI/CURRENT            names the current version; replaced as a whole, once that version is complete
    URI/v000002/.claim     made by the one writer of this version, who alone could create it
    URI/v000002/...        as in `ctxner.retrieval.index.versions`

Stores cannot rename, so a version is written under its own name; CURRENT does not name it before it is whole. What a
killed writer left is deleted when a later version is published.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ctxner.files.node_copies import scratch_folder
from ctxner.files.storage import create, exists, names_in, put_folder, read_bytes, remove, write_bytes
from ctxner.files.uris import is_uri
from ctxner.retrieval.index.fetch import index_here
from ctxner.retrieval.index.versions import MAX_BYTES, VERSION, IndexManifest, read_manifest

_CLAIM = ".claim"


@dataclass(frozen=True, slots=True)
class IndexWork:
    """An index that is being built or changed.

    Attributes:
        folder: Folder of this node to build in; the index itself, unless that is a URI.
        shards: URI to which shards are moved once they are written; None: they stay in the folder.
    """

    folder: Path
    shards: str | None = None

    def publish(self, manifest: IndexManifest) -> IndexManifest:
        """Make what was built the current version; returns its manifest there.

        Raises:
            BlockingIOError: Another writer has published meanwhile.
        """
        if self.shards is None:
            return manifest
        uri, _, name = self.shards.rpartition("/")
        built = self.folder / manifest.version
        manifest = dataclasses.replace(manifest, version=name)
        (built / "manifest.json").write_text(json.dumps(dataclasses.asdict(manifest), indent=2) + "\n")
        put_folder(built, self.shards, keep=True)
        if not exists(f"{self.shards}/{_CLAIM}"):
            remove(self.shards)
            raise BlockingIOError(f"{uri}: another process has published a version meanwhile; try again")
        before = _current(uri)
        write_bytes(f"{uri}/CURRENT", f"{name}\n".encode())
        for other in _versions(uri):
            if other < name and other != before:
                remove(f"{uri}/{other}")
        return manifest


@contextmanager
def index_work(folder: Path, *, changes: bool = False) -> Iterator[IndexWork]:
    """Give the place to build or change an index in; `IndexWork.publish` ends it.

    When the block fails, or ends without publishing, the store's index stays as it was.

    Args:
        folder: Index folder, or its URI.
        changes: Whether the present index is changed; else a new one is built.

    Raises:
        ValueError: The URI's folder holds other files.
        FileNotFoundError: There is no index to change.
    """
    if not is_uri(folder):
        yield IndexWork(folder)
        return
    uri = str(folder)
    if foreign := [name for name in names_in(uri) if name != "CURRENT" and not VERSION.fullmatch(name)]:
        raise ValueError(f"{uri}: holds other files ({', '.join(foreign[:3])}); give an index its own folder")
    with scratch_folder("index-builds") as work:
        if changes:
            here = index_here(folder)
            for name in ("CURRENT", read_manifest(here).version):
                _link(here / name, work / name)
        version = f"{uri}/{_claimed(uri)}"
        try:
            yield IndexWork(work, version)
        except BaseException:
            with suppress(OSError):  # the first error counts; the next writer deletes it too
                if _current(uri) != version.rpartition("/")[2]:
                    remove(version)
            raise


def _claimed(uri: str) -> str:
    """A name of a version above all that are there, which no other writer has."""
    number = max((int(name[1:]) for name in _versions(uri)), default=0) + 1
    while not create(f"{uri}/v{number:06d}/{_CLAIM}", f"{socket.gethostname()} {os.getpid()}\n".encode()):
        number += 1
    return f"v{number:06d}"


def _current(uri: str) -> str:
    """What CURRENT names; empty if there is none."""
    try:
        return read_bytes(f"{uri}/CURRENT", MAX_BYTES).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return ""


def _versions(uri: str) -> list[str]:
    return [name for name in names_in(uri) if VERSION.fullmatch(name)]


def _link(path: Path, target: Path) -> None:
    """The same files under another path, without copying them; they are never changed in place."""
    if path.is_dir():
        shutil.copytree(path, target, copy_function=os.link)
    else:
        shutil.copy(path, target)
