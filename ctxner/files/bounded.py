"""Reads small files that somebody else may have damaged: never more bytes than wanted, and only from regular files.

A pipe in a file's place would block its reader for ever, a device would fill the memory.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any


def read_bounded(path: Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is larger, or no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{path}: not a readable file ({error.strerror})") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{path}: not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{path}: more than {most:,} bytes")
    return content


def read_json_object(path: Path, most: int) -> dict[str, Any]:
    """The JSON object in a regular file of at most `most` bytes.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is larger, no regular file, or holds no JSON object.
    """
    content = read_bounded(path, most)
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError) as error:  # deep JSON exceeds Python's recursion limit
        raise ValueError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: holds a JSON {type(tree).__name__}, wanted an object")
    return tree
