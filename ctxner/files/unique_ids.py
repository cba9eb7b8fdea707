"""Finding an id that is used twice among millions, with eight bytes of memory per id.

A set of the ids themselves would not fit into memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def id_hash(id: str) -> bytes:
    """Hash of an id: eight bytes, the same in every process."""
    return hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest()


class IdHashes:
    """Hashes of ids, eight bytes each."""

    def __init__(self, parts: Iterable[bytes] = ()):
        """Start with the hashes of other collections (their `to_bytes`)."""
        self._hashes = bytearray().join(parts)

    def add(self, id: str) -> None:
        """Add one id."""
        self._hashes += id_hash(id)

    def __len__(self) -> int:
        """Number of ids added."""
        return len(self._hashes) // 8

    def to_bytes(self) -> bytes:
        """All hashes, one after the other, in any order."""
        return bytes(self._hashes)

    def num_distinct(self) -> int:
        """Number of different hashes."""
        import numpy as np

        ordered = np.frombuffer(self._hashes, dtype=np.uint64)
        ordered.sort()  # in place: a copy would double the memory
        return int(np.count_nonzero(ordered[1:] != ordered[:-1])) + bool(len(ordered))

    def repeated(self) -> set[bytes]:
        """Hashes added more than once: of an id used twice or, for one pair of ids in 2^64, of two different ids."""
        import numpy as np

        ordered = np.frombuffer(self._hashes, dtype=np.uint64)
        ordered.sort()  # in place: a copy would double the memory
        return {value.tobytes() for value in ordered[1:][ordered[1:] == ordered[:-1]]}


def refuse_repeats(hashes: IdHashes, read_again: Iterable[tuple[str, str]]) -> None:
    """Refuse an id that is used twice. Ids with equal hashes are read again and compared.

    Args:
        hashes: Hashes of all ids.
        read_again: Place, as errors name it, and id of each; read only when a hash is repeated.

    Raises:
        ValueError: An id is used twice; both places are named.
    """
    repeated = hashes.repeated()
    if not repeated:
        return
    first_place: dict[str, str] = {}
    for place, id in read_again:
        if id_hash(id) not in repeated:
            continue
        if id in first_place:
            raise ValueError(f"{place}: id {id!r} was used before at {first_place[id]}; ids must be unique")
        first_place[id] = place
