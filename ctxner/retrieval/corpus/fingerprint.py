"""Hashes of passages: small ones that find an id used twice (`ctxner.files.unique_ids`), and one of a whole corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ctxner.schema import Passage

_CORPUS_MODULUS = 1 << 256


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
