"""Paths that are URIs, such as `s3://bucket/folder`: told apart from local paths, and kept as what was written.

`ctxner.files.storage` reads and writes what lies behind them.
"""

from __future__ import annotations

import re
from pathlib import Path, PosixPath

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/+", re.IGNORECASE)


class UriPath(PosixPath):
    """A URI with the methods of a path that name things: `/`, `name`, `parent`, `suffix`, `with_name`.

    Whatever would look for it on this machine's disk is refused: `ctxner.files.storage.local` copies it there first.
    """

    __slots__ = ()

    def __str__(self) -> str:
        """The URI as it was written; a plain path would fold its two slashes into one."""
        scheme, _, rest = super().__str__().partition(":/")
        return f"{scheme}://{rest}"

    def __fspath__(self) -> str:
        raise TypeError(f"{self}: a URI where a file of this machine is wanted")

    def absolute(self) -> UriPath:
        """The URI itself."""
        return self

    def resolve(self, strict: bool = False) -> UriPath:
        """The URI itself."""
        return self

    def expanduser(self) -> UriPath:
        """The URI itself."""
        return self


def path_or_uri(value: str | Path) -> Path:
    """A path, or a `UriPath` for a URI; `file://` is a path of this machine."""
    if isinstance(value, UriPath):
        return value
    match = _SCHEME.match(text := str(value)) if "://" in str(value) else None
    if match is None:
        return Path(value)
    if match[1].lower() == "file":
        return Path("/" + text[match.end() :])
    return UriPath(text)


def is_uri(place: str | Path) -> bool:
    """Whether a place is a URI of another store than this machine's files."""
    return isinstance(path_or_uri(place), UriPath)
