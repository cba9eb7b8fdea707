"""Collects the names of entries (titles and aliases) while an index is written: runs of normalised words, as hashes.

A run's hash is made of its words' hashes, so that the runs of many sentences are hashed and looked up together.
Lucene's document tells whether a name is truly the entry's: equal hashes of different names are possible, though once
in 2^64 pairs.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ctxner.retrieval.text import name_words
from ctxner.schema import Passage

MAX_NAME_WORDS = 16  # words of the longest name that is looked up
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SAMPLED_TEXTS = 50_000  # texts, and as many entries, per shard that tell how words are written
_WITHIN_SENTENCE = re.compile(r"(?<=[\w,;] )[^\W\d_][\w]*")
Hashes = NDArray[np.uint64]


@lru_cache(maxsize=1 << 17)
def word_hash(word: str) -> int:
    """Hash of one normalised word: 64 bits, the same in every process."""
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def longer(run: Hashes, word: Hashes) -> Hashes:
    """Hashes of runs with one more word, from the hashes of both."""
    return run * _MULTIPLIER + word


@dataclass(frozen=True)
class ShardNames:
    """The names of one shard, in the order of its documents.

    Attributes:
        hashes: Hash of each name.
        documents: Document number of each name's entry.
        capitals: Whether most names of each entry's source are written with a capital, as those of people are and most
            terms of science are not.
        beginnings: Hashes of the first words of longer names.
        lower: Occurrences within sentences in lower case, by hash of the word.
        upper: Occurrences within sentences with a capital, by hash of the word.
    """

    hashes: Hashes
    documents: Hashes
    capitals: NDArray[np.uint8]
    beginnings: Hashes
    lower: dict[int, int]
    upper: dict[int, int]


class NamesWriter:
    """Collects the names of the passages of one shard, or of an addition to it."""

    def __init__(self, language: str) -> None:
        """Start an empty collection; the index's language decides how words are normalised."""
        self._language = language
        self.num_passages = 0
        self._words: list[int] = []  # hashes of the words of all names, one name after the other
        self._lengths: list[int] = []
        self._documents: list[int] = []
        self._sources: list[str] = []
        self._num_capitals: Counter[str] = Counter()  # by source
        self._surfaces: Counter[str] = Counter()
        self._sampled: Counter[bool] = Counter()

    def add(self, passage: Passage) -> None:
        """Add the names of the next passage; how its text writes words is counted for the first ones only."""
        for words, has_capital in _names(passage, self._language):
            self._words.extend(map(word_hash, words))
            self._lengths.append(len(words))
            self._documents.append(self.num_passages)
            self._sources.append(passage.source)
            self._num_capitals[passage.source] += has_capital
        if self._sampled[passage.is_text] < _SAMPLED_TEXTS:
            self._sampled[passage.is_text] += 1
            text = passage.text.removeprefix(passage.title) if passage.title else passage.text
            self._surfaces.update(_WITHIN_SENTENCE.findall(text))
        self.num_passages += 1

    def names(self) -> ShardNames:
        """The names collected."""
        lengths = np.array(self._lengths, np.int64)
        words = np.array(self._words, np.uint64)
        firsts = np.cumsum(lengths) - lengths
        runs, beginnings = np.zeros(len(lengths), np.uint64), []
        for n in range(int(lengths.max(initial=0))):
            more = np.flatnonzero(lengths > n)
            if n:
                beginnings.append(np.unique(runs[more]))
            runs[more] = longer(runs[more], words[firsts[more] + n])
        counts: dict[bool, dict[int, int]] = {False: {}, True: {}}
        for surface, count in self._surfaces.items():
            words_of_surface = name_words(surface, self._language)
            if len(words_of_surface) == 1:
                by_word, key = counts[surface[0].isupper()], word_hash(words_of_surface[0])
                by_word[key] = by_word.get(key, 0) + count
        is_proper = {source: 2 * self._num_capitals[source] > n for source, n in Counter(self._sources).items()}
        return ShardNames(
            runs,
            np.array(self._documents, np.uint64),
            np.array([is_proper[source] for source in self._sources], np.uint8),
            np.unique(np.concatenate(beginnings)) if beginnings else np.zeros(0, np.uint64),
            lower=counts[False],
            upper=counts[True],
        )


def _names(passage: Passage, language: str) -> Iterable[tuple[tuple[str, ...], bool]]:
    """Distinct names of a passage as normalised words, each with whether it is written with a capital."""
    if not passage.title:
        return ()
    names: dict[tuple[str, ...], bool] = {}
    for name in (passage.title, *passage.aliases):
        words = tuple(name_words(name, language))
        if 0 < len(words) <= MAX_NAME_WORDS:
            names.setdefault(words, name != name.lower())
    return names.items()
