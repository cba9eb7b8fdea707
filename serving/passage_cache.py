"""The passages of the sentences that a retriever was asked for last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from ctxner.schema import ScoredPassage, Sentence

Key = tuple[tuple[str, ...], tuple[tuple[str, str], ...]]  # words and abbreviations of a sentence
_OBJECT_BYTES = 64  # of a string, or of a passage beside its strings


class PassageCache:
    """The passages of the sentences that came last, bounded in sentences and in bytes."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._entries: OrderedDict[Key, tuple[tuple[ScoredPassage, ...], int]] = OrderedDict()
        self.bytes = 0

    def get(self, sentence: Sentence) -> tuple[ScoredPassage, ...] | None:
        """The sentence's passages; None if they are not cached."""
        if (key := _key(sentence)) not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key][0]

    def add(self, sentence: Sentence, passages: tuple[ScoredPassage, ...]) -> None:
        """Cache passages, and forget those that were not needed for longest."""
        key, size = _key(sentence), _size(sentence, passages)
        self.bytes += size - self._entries.pop(key, ((), 0))[1]
        self._entries[key] = passages, size
        while self._entries and (len(self._entries) > self._most or self.bytes > self._most_bytes):
            self.bytes -= self._entries.popitem(last=False)[1][1]


def _key(sentence: Sentence) -> Key:
    return sentence.words, sentence.abbreviations


def _size(sentence: Sentence, passages: Sequence[ScoredPassage]) -> int:
    """Bytes of a cached sentence, about: two per character, and the objects around them."""
    texts = [*sentence.words, *(text for scored in passages for text in (scored.passage.text, scored.passage.title))]
    return sum(2 * len(text) + _OBJECT_BYTES for text in texts) + _OBJECT_BYTES * (len(passages) + 1)
