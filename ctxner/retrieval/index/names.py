"""The names of entries (titles and aliases), by which all entries that a sentence names are found in one pass.

A name is a run of normalised words; a run's hash is made of its words' hashes, so that the runs of many sentences are
hashed and looked up together. The files are NumPy arrays in a version's folder, memory-mapped when opened: 17 bytes per
name, and 8 per beginning of a longer name. Lucene's document tells whether a name is truly the entry's: equal hashes of
different names are possible, though once in 2^64 pairs.

    names/hashes.npy      uint64 [N] hash of each name, ascending
    names/places.npy      uint64 [N] shard << 32 | Lucene's document number within the shard
    names/capitals.npy    uint8  [N] whether most names of the entry's source are written with a capital
    names/beginnings.npy  uint64 [B] hashes of the first words of longer names, ascending and distinct
    names/words.npy       uint64 [W] hashes of words of the corpus's texts, ascending
    names/shares.npy      float32 [W] share of a word's occurrences, within sentences, that begin with a capital
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctxner.retrieval.text import name_words
from ctxner.schema import Passage

FOLDER = "names"
MAX_NAME_WORDS = 16  # words of the longest name that is looked up
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SAMPLED_TEXTS = 50_000  # texts, and as many entries, per shard that tell how words are written
_MIN_OCCURRENCES = 2  # of a word within sentences; below, how it is written is unknown
_WITHIN_SENTENCE = re.compile(r"(?<=[\w,;] )[^\W\d_][\w]*")
_ARRAYS = ("hashes", "places", "capitals", "beginnings", "words", "shares")

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


def write_names(version: Path, shards: Sequence[ShardNames]) -> int:
    """Write the names of all shards of a new version; returns their number.

    Entries of one name are in the order of the corpus, as far as their places in the shards tell it.
    """
    lower, upper = Counter[int](), Counter[int]()
    for shard in shards:
        lower.update(shard.lower)
        upper.update(shard.upper)
    total = lower + upper
    words = np.array(sorted(word for word, count in total.items() if count >= _MIN_OCCURRENCES), np.uint64)
    shares = np.array([upper[word] / total[word] for word in words.tolist()], np.float32)
    places = [shard.documents | np.uint64(n << 32) for n, shard in enumerate(shards)]
    return _write(
        version,
        np.concatenate([shard.hashes for shard in shards]),
        np.concatenate(places),
        np.concatenate([shard.capitals for shard in shards]),
        np.unique(np.concatenate([shard.beginnings for shard in shards])),
        words,
        shares,
    )


def change_names(old: Path, version: Path, *, deleted: Sequence[Iterable[int]], added: Sequence[ShardNames]) -> int:
    """Write the names of a version that was made from another one by deleting and adding passages; returns their count.

    How the corpus writes words stays what it was.

    Args:
        old: Folder of the old version.
        version: Folder of the new version.
        deleted: For each shard the document numbers that were deleted; later documents move up.
        added: For each shard the names added, with their new document numbers.
    """
    names = Names(old)
    hashes, capitals, places = map(np.array, (names.hashes, names.capitals, names.places))
    for n, gone in enumerate(deleted):
        numbers = np.array(sorted(gone), np.uint64)
        if not len(numbers):
            continue
        documents, here = places & np.uint64(0xFFFFFFFF), places >> np.uint64(32) == n
        before = np.searchsorted(numbers, documents).astype(np.uint64)
        places = np.where(here, places - before, places)
        left = ~(here & np.isin(documents, numbers))
        hashes, capitals, places = hashes[left], capitals[left], places[left]
    return _write(
        version,
        np.concatenate([hashes, *(shard.hashes for shard in added)]),
        np.concatenate([places, *(shard.documents | np.uint64(n << 32) for n, shard in enumerate(added))]),
        np.concatenate([capitals, *(shard.capitals for shard in added)]),
        np.unique(np.concatenate([names.beginnings, *(shard.beginnings for shard in added)])),
        np.array(names.words),
        np.array(names.shares),
    )


class Names:
    """The names of a version, open.

    Attributes:
        hashes, places, capitals, beginnings, words, shares: See the module.
    """

    def __init__(self, version: Path) -> None:
        """Map the files into memory.

        Raises:
            ValueError: A file is missing or damaged, or the arrays do not fit together.
        """
        arrays = [_mapped(version / FOLDER / f"{name}.npy") for name in _ARRAYS]
        self.hashes, self.places, self.capitals, self.beginnings, self.words, self.shares = map(np.asarray, arrays)
        kinds = [(array.ndim, array.dtype.str) for array in arrays]
        wanted = [(1, kind) for kind in ("<u8", "<u8", "|u1", "<u8", "<u8", "<f4")]
        if kinds != wanted or not (
            len(self.hashes) == len(self.places) == len(self.capitals) and len(self.words) == len(self.shares)
        ):
            raise ValueError(f"{version / FOLDER}: damaged names (arrays of other types or lengths); build it again")
        self._name_table, self._beginning_table, self._word_table = map(
            _Table, (self.hashes, self.beginnings, self.words)
        )

    def __len__(self) -> int:
        """Number of names."""
        return len(self.hashes)

    def runs(self, words: Hashes, ends: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """All runs of words that are names.

        Args:
            words: Hash of each word, of any number of sentences, one after the other.
            ends: For each word one past the last word of its sentence.

        Returns:
            First word, one past the last, and row of the first entry of each run; shorter runs first.
        """
        starts = np.arange(len(words))
        runs = words
        found: list[tuple[NDArray[np.int64], ...]] = []
        for length in range(1, MAX_NAME_WORDS + 1):
            rows = self._name_table.rows(runs)
            hit = rows >= 0
            found.append((starts[hit], starts[hit] + length, rows[hit]))
            goes_on = starts + length < ends[starts]
            starts, runs = starts[goes_on], runs[goes_on]
            goes_on = self._beginning_table.rows(runs) >= 0
            starts = starts[goes_on]
            if not len(starts):
                break
            runs = longer(runs[goes_on], words[starts + length])
        first, last, rows = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return first, last, rows

    def row(self, words: Sequence[str]) -> int:
        """Row of the first entry with a name of these normalised words, or -1."""
        run = np.zeros(1, np.uint64)
        for word in words:
            run = longer(run, np.array([word_hash(word)], np.uint64))
        return int(self._name_table.rows(run)[0])

    def entries(self, row: int, most: int) -> list[tuple[int, int]]:
        """(shard, document number) of at most `most` entries that have the name in `row`, in the corpus's order."""
        rows = self.hashes[row : row + most] == self.hashes[row]
        places = self.places[row : row + most][rows].tolist()
        return [(place >> 32, place & 0xFFFFFFFF) for place in places]

    def same_as(self, shards: Sequence[ShardNames]) -> bool:
        """Whether these are the names of exactly these shards."""
        rows = [(shard.hashes, shard.documents | np.uint64(n << 32)) for n, shard in enumerate(shards)]
        hashes, places = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        wanted, present = np.lexsort((places, hashes)), np.lexsort((self.places, self.hashes))
        return np.array_equal(hashes[wanted], self.hashes[present]) and np.array_equal(
            places[wanted], self.places[present]
        )

    def capital_shares(self, words: Hashes) -> NDArray[np.float32]:
        """Share of each word's occurrences within sentences that begin with a capital; NaN when unknown."""
        rows = self._word_table.rows(words)
        return np.where(rows >= 0, self.shares[rows] if len(self.shares) else np.float32(0), np.float32(np.nan))


def _mapped(path: Path) -> NDArray[Any]:
    if not path.is_file():
        raise ValueError(f"{path}: unreadable names (no such file, or not a regular one); build the index again")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: unreadable names ({error}); build the index again") from None


class _Table:
    """Looking up many hashes in an ascending array; hashes are spread evenly, so that each has a small bucket."""

    def __init__(self, hashes: Hashes) -> None:
        self._hashes = hashes
        bits = max(1, len(hashes).bit_length() - 1)
        self._shift = np.uint64(64 - bits)
        bounds = np.arange(1, 1 << bits, dtype=np.uint64) << self._shift
        inner = np.searchsorted(hashes, bounds)
        self._starts = np.concatenate([[0], inner, [len(hashes)]]).astype(np.uint32 if len(hashes) < 1 << 32 else int)

    def rows(self, hashes: Hashes) -> NDArray[np.int64]:
        """First row of each hash, or -1."""
        bucket = (hashes >> self._shift).astype(np.int64)
        rows, ends = self._starts[bucket].astype(np.int64), self._starts[bucket + 1].astype(np.int64)
        result = np.full(len(hashes), -1)
        active = np.flatnonzero(rows < ends)
        while len(active):
            values = self._hashes[rows[active]]
            result[active[values == hashes[active]]] = rows[active[values == hashes[active]]]
            active = active[values < hashes[active]]
            rows[active] += 1
            active = active[rows[active] < ends[active]]
        return result


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


def _write(version: Path, hashes: Hashes, places: Hashes, capitals: NDArray[np.uint8], *others: NDArray) -> int:
    num_shards = int((places >> np.uint64(32)).max(initial=0)) + 1
    in_corpus = (places & np.uint64(0xFFFFFFFF)) * np.uint64(num_shards) + (places >> np.uint64(32))
    order = np.lexsort((in_corpus, hashes))
    (version / FOLDER).mkdir()
    arrays: tuple[NDArray[Any], ...] = (hashes[order], places[order], capitals[order], *others)
    for name, array in zip(_ARRAYS, arrays, strict=True):
        np.save(version / FOLDER / f"{name}.npy", array)
    return len(hashes)
