"""Finding an id that is used twice among millions, where a set of the ids themselves would not fit into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def id_hash(id: str) -> bytes:
    """Eight bytes, the same in every process."""
    return hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest()


class IdHashes:
    """Hashes of ids, eight bytes each."""

    def __init__(self, parts: Iterable[bytes] = ()):
        """Start with the hashes of other collections (their `to_bytes`)."""
        self._hashes = bytearray().join(parts)

    def add(self, id: str) -> None:
        """Take note of one more id."""
        self._hashes += id_hash(id)

    def __len__(self) -> int:
        """Number of ids noted."""
        return len(self._hashes) // 8

    def to_bytes(self) -> bytes:
        """All hashes, one after the other, in any order."""
        return bytes(self._hashes)

    def repeated(self) -> set[bytes]:
        """Hashes noted more than once: of ids used twice, or (one pair in 2^64) of two ids."""
        import numpy as np

        ordered = np.frombuffer(self._hashes, dtype=np.uint64)
        ordered.sort()  # in place: a copy would double the memory
        return {value.tobytes() for value in ordered[1:][ordered[1:] == ordered[:-1]]}


def refuse_repeats(hashes: IdHashes, again: Iterable[tuple[int, str, str]], unit: str) -> None:
    """ValueError that names both places of an id used twice; equal hashes alone are looked into, not believed.

    Args:
        hashes: Of the ids of one file.
        again: Number of the line or row, its place as an error names it, and its id; read only when a hash is repeated.
        unit: What is numbered: line or row.
    """
    repeated = hashes.repeated()
    if not repeated:
        return
    first: dict[str, int] = {}
    for number, where, id in again:
        if id_hash(id) not in repeated:
            continue
        if id in first:
            raise ValueError(f"{where}: id {id!r} is already that of {unit} {first[id]}; ids must be unique")
        first[id] = number
