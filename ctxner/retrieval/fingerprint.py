"""Fingerprints of passages: small hashes that find an id used twice, and one of a whole corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from ctxner.schema import Passage

_CORPUS_MODULUS = 1 << 256


def id_hash(passage_id: str) -> bytes:
    """Eight bytes, the same in every process."""
    return hashlib.blake2b(passage_id.encode(), digest_size=8).digest()


class IdHashes:
    """Hashes of a corpus's ids, eight bytes each, where a set of the ids themselves would not fit into memory."""

    def __init__(self, parts: Iterable[bytes] = ()):
        """Start with the hashes of other collections (their `to_bytes`)."""
        self._hashes = bytearray().join(parts)

    def add(self, passage_id: str) -> None:
        """Take note of one more passage."""
        self._hashes += id_hash(passage_id)

    def __len__(self) -> int:
        """Number of passages noted."""
        return len(self._hashes) // 8

    def to_bytes(self) -> bytes:
        """All hashes, one after the other."""
        return bytes(self._hashes)

    def repeated(self) -> set[bytes]:
        """Hashes noted more than once: of ids used twice, or (one pair in 2^64) of two ids."""
        ordered = np.sort(np.frombuffer(self._hashes, dtype=np.uint64))
        return {value.tobytes() for value in ordered[1:][ordered[1:] == ordered[:-1]]}


def passage_hash(passage: Passage) -> int:
    """SHA-256 over id, source, title and text, as a number."""
    record = "\0".join((passage.id, passage.source, passage.title, passage.text))
    return int.from_bytes(hashlib.sha256(record.encode()).digest(), "big")


class CorpusHash:
    """The sum of all passages' hashes: it does not depend on their order, and passages can be taken away again."""

    def __init__(self, parts: Iterable[str] = ()):
        """Start with the hashes of other passages (their `hex`)."""
        self._sum = sum(int(part, 16) for part in parts)

    def add(self, passage: Passage) -> None:
        """Count a passage in."""
        self._sum += passage_hash(passage)

    def remove(self, passage: Passage) -> None:
        """Count a passage out."""
        self._sum -= passage_hash(passage)

    def hex(self) -> str:
        """64 hexadecimal digits."""
        return f"{self._sum % _CORPUS_MODULUS:064x}"
