"""Keeps tokenized views of a data set on disk: workers map the same files and share their memory pages.

folder/KEY/*.npy             flat arrays; starts.npy says where each view begins in the others
folder/KEY/store.json        version, key, length and CRC-32 of each array; locked (flock, shared) while it is open
folder/.KEY.*.aside          a store being written; renamed to KEY when it is complete
folder/KEY.lock              locked (flock) by the one process that writes or removes KEY

The folder is a cache on a local disk: it may be removed whenever no process writes to it. Batches are made elsewhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import shutil
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import NoReturn, overload
from weakref import finalize

import numpy as np

from ctxner.files.atomic import aside_of, put_in_place, remove_leftovers, target_of
from ctxner.files.locks import exclusive
from ctxner.schema import Example, ViewName
from ctxner.training.data.view_arrays import ARRAYS, MANIFEST, WIDE_PIECES, append, complete, manifest_of, mapped
from ctxner.training.data.view_key import hash_example, settings_hash
from ctxner.views.builder import ViewBuilder
from ctxner.views.view import View

logger = logging.getLogger(__name__)

_VIEWS_PER_CHUNK = 1024  # views written together, a few megabytes
_KEY = re.compile(r"[0-9a-f]{64}")


class ViewStore(Sequence[View]):
    """Read-only sequence of views in the order of their examples; `open_views` creates it.

    Each access builds a new view, without `passages`; `passage_pieces` gives what training needs to know about them.
    While this object lives, no process removes the store from its cache. Each process opens the store itself.
    """

    def __init__(self, path: Path, lock: int) -> None:
        """Map the arrays of a folder that was checked; `lock` is a file descriptor, closed with this object."""
        self.path = path
        arrays = {name: mapped(path / f"{name}.npy") for name in ARRAYS}
        self._starts = arrays["starts"].reshape(
            -1, 5
        )  # per view, and for the end: first row, word, passage, mark, byte
        self._rows, self._pieces, self._words = arrays["rows"], arrays["pieces"], arrays["words"]
        self._passages, self._marks, self._ids = arrays["passages"], arrays["marks"].reshape(-1, 2), arrays["ids"]
        finalize(self, os.close, lock)

    def __len__(self) -> int:
        """Number of views."""
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> View: ...
    @overload
    def __getitem__(self, index: slice) -> list[View]: ...
    def __getitem__(self, index: int | slice) -> View | list[View]:
        """The view of one example, or of several."""
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        (row, word, _, mark, byte), (last_row, last_word, _, last_mark, last_byte) = self._bounds(index)
        ends = self._rows[row : last_row + 1].tolist()
        pieces = self._pieces[ends[0] : ends[-1]].tolist()
        ends = [end - ends[0] for end in ends]
        windows = tuple(tuple(pieces[first:last]) for first, last in pairwise(ends))
        places = [(bisect_right(ends, place) - 1, place) for place in self._words[word:last_word].tolist()]
        sentence_id = self._ids[byte:last_byte].tobytes().decode("utf-8", "surrogatepass")
        words = tuple((window, place - ends[window]) for window, place in places)
        marks = tuple((position, used) for position, used in self._marks[mark:last_mark].tolist())
        return View(sentence_id, windows, words, marks=marks)

    def passage_pieces(self, index: int) -> tuple[int, ...]:
        """Number of pieces of each passage in a view's row, best first; in the row they precede the end piece."""
        (_, _, first, *_), (_, _, last, *_) = self._bounds(index)
        return tuple(self._passages[first:last].tolist())

    @cached_property
    def num_rows(self) -> np.ndarray:
        """Number of windows of each view, int64 [views]."""
        return np.diff(self._starts[:, 0])

    @cached_property
    def num_passages(self) -> np.ndarray:
        """Number of passages used in each view, int64 [views]."""
        return np.diff(self._starts[:, 2])

    def mark_places(self, index: int) -> tuple[int, ...]:
        """For each mark in a view's row, the place of its entry among the used passages."""
        (*_, first, _), (*_, last, _) = self._bounds(index)
        return tuple(self._marks[first:last, 1].tolist())

    @cached_property
    def num_pieces(self) -> np.ndarray:
        """Number of pieces in all windows of each view, int64 [views]."""
        return np.diff(self._rows[self._starts[:, 0]])

    @cached_property
    def longest_row(self) -> np.ndarray:
        """Number of pieces in the longest window of each view, int64 [views]."""
        return np.maximum.reduceat(np.diff(self._rows), self._starts[:-1, 0])

    def _bounds(self, index: int) -> list[list[int]]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.path}: view {index} of {len(self)}")
        index %= len(self)
        return self._starts[index : index + 2].tolist()

    def __reduce__(self) -> NoReturn:
        """Refuse pickling, because a copy would hold all arrays in memory."""
        raise TypeError(f"{self.path}: a store is not sent to another process; call open_views there")


def open_views(
    folder: Path, key: str, examples: Iterable[Example], builder: ViewBuilder, which: ViewName, *, keep: int = 8
) -> ViewStore:
    """Open the store of these views: the one in the cache if it is intact, else a new one.

    Any number of processes may call this at once: one writes and the others wait for it. Every byte is checked at
    opening (2 GB/s from the page cache). Memory use does not grow with the number of examples.

    Args:
        folder: Cache folder on a local disk; created if absent.
        key: Result of `views_key` for the arguments that follow.
        examples: Examples to build views of; read only when the store must be written.
        builder: Builder of the views; plain views are built from the sentence alone.
        which: Kind of view, plain or context.
        keep: Largest number of stores in the cache, with this one; those used longest ago are removed unless open.

    Raises:
        ValueError: The folder cannot be used, the key is not that of the arguments, or a sentence has no words.
    """
    if keep < 1:
        raise ValueError(f"keep={keep}: wanted at least 1, for the store that is opened")
    path = folder / key
    with _advising(folder):
        folder.mkdir(parents=True, exist_ok=True)
        store = _open(path)
    if store is not None:
        return store
    with contextlib.ExitStack() as stack:
        with _advising(folder):
            stack.enter_context(exclusive(_lock(path), remove=True))
            store = _open(path, warn=True)
        if store is None:
            _write(path, examples, builder, which)
            with _advising(folder):
                store = _open(path, warn=True)
    if store is None:
        raise ValueError(f"{path}: what was written is not what is read; set a cache folder on another disk")
    with contextlib.suppress(OSError):  # another user's store
        _forget_old(folder, keep)
    return store


def _write(path: Path, examples: Iterable[Example], builder: ViewBuilder, which: ViewName) -> None:
    """Write a store into a temporary folder and rename that; the caller holds the store's lock."""
    aside, digest, num_views = aside_of(path), settings_hash(builder, which), -1
    logger.debug("%s: tokenizing %s views", path, which)
    try:
        with _advising(path.parent):
            remove_leftovers(path.parent, path.name)
            aside.mkdir()
        for chunk in _chunks(examples, builder, which, digest):
            with _advising(path.parent):
                for name, values in chunk.items():
                    append(aside / f"{name}.npy", values)
            num_views += len(chunk["starts"]) // 4
        if digest.hexdigest() != path.name:
            raise ValueError(
                f"{path}: the key of what was tokenized is {digest.hexdigest()}; give views_key of the same arguments, "
                "and examples that can be gone through twice"
            )
        with _advising(path.parent):
            complete(aside, path.name)
            put_in_place(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    logger.debug("%s: wrote %d %s views", path, num_views, which)


def _chunks(
    examples: Iterable[Example], builder: ViewBuilder, which: ViewName, digest: hashlib._Hash
) -> Iterator[dict[str, array]]:
    """Yield the arrays in chunks of `_VIEWS_PER_CHUNK` views, and add each example to the hash `digest`."""
    small = max(builder.tokenizer.get_vocab().values()) < 1 << 16
    codes = ARRAYS if small else {**ARRAYS, "pieces": WIDE_PIECES}
    chunk = {name: array(code) for name, code in codes.items()}
    ends: tuple[int, ...] = (0, 0, 0, 0, 0)
    num_pieces = 0
    chunk["starts"].extend(ends)
    chunk["rows"].append(0)
    for number, example in enumerate(examples, 1):
        hash_example(digest, example, which)
        view = builder.context(example) if which == "context" else builder.plain(example.sentence)
        used = [scored.num_pieces for scored in view.passages if scored.num_pieces is not None]
        sentence_id = view.sentence_id.encode("utf-8", "surrogatepass")
        firsts = list(accumulate(map(len, view.windows), initial=0))  # start of each window within the view's pieces
        chunk["pieces"].extend(chain.from_iterable(view.windows))
        chunk["rows"].extend(num_pieces + end for end in firsts[1:])
        chunk["words"].extend(firsts[window] + place for window, place in view.word_places)
        chunk["passages"].extend(used)
        chunk["marks"].extend(chain.from_iterable(view.marks))
        chunk["ids"].frombytes(sentence_id)
        sizes = (view.num_rows, len(view.word_places), len(used), len(view.marks), len(sentence_id))
        ends = tuple(map(sum, zip(ends, sizes, strict=True)))
        num_pieces += firsts[-1]
        chunk["starts"].extend(ends)
        if number % _VIEWS_PER_CHUNK == 0:
            yield chunk
            chunk = {name: array(code) for name, code in codes.items()}
    yield chunk


def _open(path: Path, *, warn: bool = False) -> ViewStore | None:
    """Open the store in a folder; None if it is absent, or not byte for byte what was written."""
    with contextlib.ExitStack() as stack:
        try:
            lock = os.open(path / MANIFEST, os.O_RDONLY)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_SH)  # waits only while another process removes the store
            if (path / MANIFEST).read_bytes() == manifest_of(path, path.name):
                store = ViewStore(path, lock)
                stack.pop_all()
                with contextlib.suppress(OSError):  # another user's store, or a read-only disk
                    os.utime(path / MANIFEST)
                return store
        except FileNotFoundError:
            pass
    if warn and path.exists():
        logger.warning("%s: not whole, or of another version; writing it anew", path)
    return None


def _forget_old(folder: Path, keep: int) -> None:
    """Remove the stores used longest ago and leftovers of killed processes, but no store that is open or written to."""
    names = [path.name for path in folder.iterdir()]
    stores = sorted((folder / name for name in names if _KEY.fullmatch(name)), key=_last_use, reverse=True)
    for path in stores[keep:]:
        with (
            contextlib.suppress(BlockingIOError),
            exclusive(_lock(path), wait=False, remove=True),
            contextlib.ExitStack() as stack,
        ):
            with contextlib.suppress(FileNotFoundError):
                manifest = stack.enter_context((path / MANIFEST).open("rb"))
                fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    for key in {target for name in names if (target := target_of(name)) and _KEY.fullmatch(target)}:
        with contextlib.suppress(BlockingIOError), exclusive(_lock(folder / key), wait=False, remove=True):
            remove_leftovers(folder, key)


def _lock(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _last_use(path: Path) -> float:
    try:
        return (path / MANIFEST).stat().st_mtime
    except FileNotFoundError:
        return 0.0


@contextlib.contextmanager
def _advising(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"cache folder {folder}: {error}; set another cache folder, with room, on a local disk"
        ) from error
