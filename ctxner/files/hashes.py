"""Hashes of model folders, so that a job notices when a model that its rows depend on has changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ctxner.files.node_copies import local


def folder_sha256(folder: str | Path) -> str | None:
    """SHA-256 over the names and contents of all files below a folder, hidden ones left out; None if it is no folder.

    Every file counts: config.json, the tokenizer's files and calibration.json change answers as the weights do.
    """
    folder = Path(local(str(folder)))
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            with path.open("rb") as file:
                digest.update(f"{name.as_posix()}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
