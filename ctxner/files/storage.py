"""Files behind URIs (`s3://`, `gs://`, `abfs://`, whatever fsspec knows): read, listed, written, deleted.

An object appears in a store whole or not at all; of a folder, the file that makes it valid is written last. Clients'
errors become ours, which name the URI. Copies on a node are in `ctxner.files.node_copies`.
"""

from __future__ import annotations

import errno
import glob
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxner.files.uris import UriPath, path_or_uri

if TYPE_CHECKING:
    from pyarrow import fs as arrow

# Five tries of a call, some 15 s of waiting between them if the store refuses at once; s3fs repeats time-outs itself.
_S3 = {
    "config_kwargs": {
        "connect_timeout": 10,
        "read_timeout": 20,
        "retries": {"mode": "standard", "total_max_attempts": 5},
    }
}
_OPTIONS: dict[str, dict[str, Any]] = {"s3": _S3, "s3a": _S3}
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure", "az": "azure"}
_PASSING = {  # of the clients of object stores, which are not imported to look
    "ClientConnectionError", "ConnectTimeoutError", "ConnectionClosedError", "EndpointConnectionError",
    "FSTimeoutError", "HTTPClientError", "ReadTimeoutError", "ServiceRequestError", "ServiceResponseError",
    "ServiceUnavailable", "TooManyRequests",
}  # fmt: skip
_NO_KEYS = {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "ClientAuthenticationError"}
_BUSY = {errno.EBUSY, errno.EIO, errno.EAGAIN}
_BUSY_STATUS = {429, 500, 502, 503, 504}  # of HTTP


def filesystem(uri: str | Path) -> tuple[Any, str]:
    """The fsspec file system of a URI or a path, without a cache of listings, and the path in it.

    Raises:
        ValueError: fsspec does not know the scheme, or the package of its client is absent.
    """
    import fsspec

    place = path_or_uri(uri)
    if not isinstance(place, UriPath):  # in a path, `::` chains no file systems
        return fsspec.filesystem("file"), str(place.absolute())
    scheme = str(uri).partition("://")[0].lower()
    try:
        return fsspec.core.url_to_fs(str(uri), use_listings_cache=False, **_OPTIONS.get(scheme, {}))
    except ImportError as error:
        advice = f"; pip install 'ctxner[{_EXTRAS[scheme]}]'" if scheme in _EXTRAS else ""
        raise ValueError(f"{uri}: {error}{advice}") from None
    except ValueError as error:
        raise ValueError(f"{uri}: {error}; wanted a path, or s3://, gs://, abfs:// ...") from None


def arrow_filesystem(uri: str | Path) -> tuple[arrow.FileSystem, str]:
    """The same for pyarrow and Ray, so that all of a job has the same settings, keys and time-outs."""
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    files, path = filesystem(uri)
    return PyFileSystem(FSSpecHandler(files)), path


@contextmanager
def explained(uri: str | Path) -> Iterator[None]:
    """Turn a client's errors into ours, which name the URI and what to do.

    Raises:
        FileNotFoundError: There is nothing, or no such bucket.
        PermissionError: There are no keys, or the store refuses them.
        ConnectionError: The store cannot be reached or is too busy; the same call may succeed later.
    """
    try:
        yield
    except Exception as error:
        names = {kind.__name__ for kind in type(error).__mro__}
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        if isinstance(error, FileNotFoundError) and not passes(error):
            raise FileNotFoundError(f"{uri}: not there, or no such bucket ({str(error)[:200]})") from None
        if isinstance(error, PermissionError) or names & _NO_KEYS:
            raise PermissionError(
                f"{uri}: access refused ({reason}); check the keys or the role on this node, and what they allow"
            ) from error
        if passes(error):
            raise ConnectionError(
                f"{uri}: the store does not answer ({reason}); is it up, and AWS_ENDPOINT_URL (or its like) right?"
            ) from error
        if isinstance(error, OSError):
            raise OSError(error.errno, f"{uri}: {reason}") from error
        raise


def passes(error: BaseException) -> bool:
    """Whether a client's error says that the store cannot be reached or is too busy; the call may succeed later."""
    if isinstance(error, FileNotFoundError) and error.__cause__:
        error = error.__cause__  # HTTP's client calls whatever fails not found
    names = {kind.__name__ for kind in type(error).__mro__}
    code = error.errno if isinstance(error, OSError) else None
    is_busy = code in _BUSY or getattr(error, "status", 0) in _BUSY_STATUS
    return isinstance(error, (ConnectionError, TimeoutError)) or bool(names & _PASSING) or is_busy


def read_bytes(uri: str | Path, most: int) -> bytes:
    """The content of an object; errors as in `explained`, and a ValueError for more than `most` bytes."""
    files, path = filesystem(uri)
    with explained(uri):
        content: bytes = files.cat_file(path, start=0, end=most + 1) if files.size(path) else b""
    if len(content) > most:
        raise ValueError(f"{uri}: more than {most} bytes")
    return content


def write_bytes(uri: str | Path, content: bytes) -> None:
    """Write or replace an object, whole or not at all."""
    files, path = filesystem(uri)
    with explained(uri):
        files.pipe_file(path, content)


def create(uri: str | Path, content: bytes) -> bool:
    """Write an object unless it exists; False if it does. Of several writers at once only one gets True."""
    files, path = filesystem(uri)
    with explained(uri):
        try:
            files.pipe_file(path, content, mode="create")
        except FileExistsError:
            return False
    return True


def exists(uri: str | Path) -> bool:
    """Whether there is an object, or a folder with objects."""
    files, path = filesystem(uri)
    with explained(uri):
        return bool(files.exists(path))


def names_in(uri: str | Path) -> list[str]:
    """Names of the objects and folders directly in a folder, sorted; none if there is no such folder."""
    files, path = filesystem(uri)
    with explained(uri):
        try:
            return sorted(str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in files.ls(path, detail=False))
        except FileNotFoundError:
            return []


def remove(uri: str | Path) -> None:
    """Delete an object, or a folder with all that is in it; what is gone already is no error."""
    files, path = filesystem(uri)
    with explained(uri):
        try:
            files.rm(glob.escape(path), recursive=True)
        except FileNotFoundError:
            return


def put_file(path: Path, uri: str | Path) -> None:
    """Copy a file to an object, which is replaced as a whole."""
    files, target = filesystem(uri)
    with explained(uri):
        files.put_file(str(path), target)


def put_folder(folder: Path, uri: str | Path, *, last: str | None = None, keep: bool = False) -> None:
    """Make a store's folder equal to a local one, hidden files left out.

    Args:
        folder: Folder to copy.
        uri: Folder in the store.
        last: File without which the folder is not valid: it is deleted first and written last, so that a reader
            finds the old folder, none, or the new one. None: the folder is not read before the caller says so.
        keep: Whether what the store's folder has beside stays; else it is deleted.
    """
    files, root = filesystem(uri)
    wanted = {path.relative_to(folder).as_posix(): path for path in _visible(folder)}
    first = [name for name in wanted if name != last]
    with explained(uri):
        before = {path.removeprefix(root).lstrip("/") for path in files.find(root)}
        if last in before:
            files.rm_file(f"{root}/{last}")
        files.put([str(wanted[name]) for name in first], [f"{root}/{name}" for name in first])
        if not keep and (old := [glob.escape(f"{root}/{name}") for name in sorted(before - {*wanted, last}) if name]):
            files.rm(old)
        if last is not None:
            files.put_file(str(wanted[last]), f"{root}/{last}")


def _visible(folder: Path) -> list[Path]:
    """All files in and below a folder, unless a part of their name begins with a dot."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
