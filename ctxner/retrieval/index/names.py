"""The names of entries (titles and aliases), by which all entries that a sentence names are found in one pass.

`ctxner.retrieval.index.collected_names` collects and hashes them. The files are NumPy arrays in a version's folder,
memory-mapped when opened: 17 bytes per name, and 8 per beginning of a longer name.

    names/hashes.npy      uint64 [N] hash of each name, ascending
    names/places.npy      uint64 [N] shard << 32 | Lucene's document number within the shard
    names/capitals.npy    uint8  [N] whether most names of the entry's source are written with a capital
    names/beginnings.npy  uint64 [B] hashes of the first words of longer names, ascending and distinct
    names/words.npy       uint64 [W] hashes of words of the corpus's texts, ascending
    names/shares.npy      float32 [W] share of a word's occurrences, within sentences, that begin with a capital
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctxner.retrieval.index.collected_names import MAX_NAME_WORDS, Hashes, ShardNames, longer, word_hash

FOLDER = "names"
_MIN_OCCURRENCES = 2  # of a word within sentences; below, how it is written is unknown
_ARRAYS = ("hashes", "places", "capitals", "beginnings", "words", "shares")


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


def _write(version: Path, hashes: Hashes, places: Hashes, capitals: NDArray[np.uint8], *others: NDArray) -> int:
    num_shards = int((places >> np.uint64(32)).max(initial=0)) + 1
    in_corpus = (places & np.uint64(0xFFFFFFFF)) * np.uint64(num_shards) + (places >> np.uint64(32))
    order = np.lexsort((in_corpus, hashes))
    (version / FOLDER).mkdir()
    arrays: tuple[NDArray[Any], ...] = (hashes[order], places[order], capitals[order], *others)
    for name, array in zip(_ARRAYS, arrays, strict=True):
        np.save(version / FOLDER / f"{name}.npy", array)
    return len(hashes)
