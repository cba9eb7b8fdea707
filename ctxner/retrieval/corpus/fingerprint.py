"""One hash of a whole corpus, independent of the order of its passages.

Ids used twice are found by `ctxner.files.unique_ids`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ctxner.schema import Passage

_CORPUS_MODULUS = 1 << 256


def passage_hash(passage: Passage) -> int:
    """SHA-256 over all fields, as a number."""
    fields = (passage.id, passage.source, passage.title, passage.text, passage.type, *passage.aliases)
    record = "\0".join(fields if passage.type or passage.aliases else fields[:4])
    return int.from_bytes(hashlib.sha256(record.encode()).digest(), "big")


class CorpusHash:
    """Sum of the passages' hashes. It does not depend on their order, and passages can be subtracted again."""

    def __init__(self, parts: Iterable[str] = ()):
        """Start with the sum of other corpus hashes (their `hex`)."""
        self._sum = sum(int(part, 16) for part in parts)

    def add(self, passage: Passage) -> None:
        """Add a passage."""
        self._sum += passage_hash(passage)

    def remove(self, passage: Passage) -> None:
        """Subtract a passage."""
        self._sum -= passage_hash(passage)

    def hex(self) -> str:
        """64 hexadecimal digits."""
        return f"{self._sum % _CORPUS_MODULUS:064x}"
