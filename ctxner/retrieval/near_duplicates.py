"""When two texts say the same: the one rule by which near duplicates are recognised, and what is kept by it.

Texts are compared as sets of overlapping character runs of their letters and digits, lower-cased, without addresses and
user names. Runs of characters see through tokenisation ("do n't", "# tag"), punctuation and retweet marks, and need no
notion of a word, so that they serve every language.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Callable, Sequence

from ctxner.files.words import CLUSTERED, MARKS
from ctxner.schema import ScoredPassage

RUN_LENGTH = 6  # characters
THRESHOLD = 0.8  # share of runs in common
_MIN_CONTAINED = 20  # characters; a shorter sentence may well be part of a passage that is no copy of it
_MIN_PART = 0.5  # a passage within the sentence is a copy from this share of the sentence's runs on

_NOISE = re.compile(r"(?:https?:|www\.)\S*|@\s?\w+|\brt\b", re.IGNORECASE)
_NOT_ALPHANUMERIC = re.compile(rf"(?:(?![{MARKS}{CLUSTERED}])[\W_])+")  # vowel signs tell words apart, as letters do

Runs = frozenset[str]


def character_runs(text: str) -> Runs:
    """The text's runs of `RUN_LENGTH` letters and digits; a shorter text is one run, and one without any has none."""
    characters = _NOT_ALPHANUMERIC.sub("", _NOISE.sub(" ", unicodedata.normalize("NFKC", text))).casefold()
    if len(characters) <= RUN_LENGTH:
        return frozenset((characters,)) if characters else frozenset()
    starts = range(len(characters) - RUN_LENGTH + 1)
    ends = range(RUN_LENGTH, len(characters) + 1)
    return frozenset(map(characters.__getitem__, map(slice, starts, ends)))  # a third faster than a generator


def is_near_duplicate(first: Runs, second: Runs) -> bool:
    """Whether two texts are equal or nearly so: at least `THRESHOLD` of all their runs are in both (Jaccard)."""
    if not first or not second or min(len(first), len(second)) < THRESHOLD * max(len(first), len(second)):
        return False
    common = len(first & second)
    return common >= THRESHOLD * (len(first) + len(second) - common)


def repeats_sentence(passage: Runs, sentence: Runs) -> bool:
    """Whether a passage nearly repeats a sentence, so that it tells nothing new and may leak its labels' origin.

    True for near duplicates, for a passage that contains the sentence (of at least 20 characters), and for one that is
    at least half of the sentence, e.g. a truncated retweet.
    """
    if is_near_duplicate(passage, sentence):
        return True
    if len(sentence) + RUN_LENGTH - 1 < _MIN_CONTAINED:
        return False
    common = len(passage & sentence)
    if common >= THRESHOLD * len(sentence):
        return True
    return len(passage) >= _MIN_PART * len(sentence) and common >= THRESHOLD * len(passage)


def keep_first(
    text: str, hits: Sequence[ScoredPassage], *, depth: int, drop_near_duplicates: bool = True
) -> tuple[ScoredPassage, ...]:
    """Keep the first `depth` hits, and say why the others are dropped.

    Args:
        text: The sentence.
        hits: Passages, best first.
        depth: Largest number of passages kept.
        drop_near_duplicates: Whether to drop passages that nearly repeat the sentence or a kept passage.

    Returns:
        The kept passages, then the dropped ones; both in the order of the hits.
    """
    runs_of = (lambda hit: character_runs(hit.passage.text)) if drop_near_duplicates else None
    return thin_out(hits, depth=depth, runs_of=runs_of, sentence=character_runs(text))


def thin_out(
    hits: Sequence[ScoredPassage],
    *,
    depth: int,
    runs_of: Callable[[ScoredPassage], Runs] | None,
    sentence: Runs = frozenset(),
) -> tuple[ScoredPassage, ...]:
    """Keep the first `depth` hits that repeat neither the sentence nor a kept hit (`keep_first` with runs at hand).

    Args:
        hits: Passages, best first.
        depth: Largest number of passages kept.
        runs_of: Character runs of a hit; None keeps near duplicates.
        sentence: Character runs of the sentence; none when repetitions of it are gone already.

    Returns:
        The kept passages, then the dropped ones with the reason; both in the order of the hits.
    """
    kept: list[ScoredPassage] = []
    kept_runs: list[Runs] = []
    dropped: list[ScoredPassage] = []
    for hit in hits:
        if len(kept) == depth:
            dropped.append(dataclasses.replace(hit, dropped="below_depth"))
            continue
        runs = runs_of(hit) if runs_of else frozenset()
        if repeats_sentence(runs, sentence) or any(is_near_duplicate(runs, better) for better in kept_runs):
            dropped.append(dataclasses.replace(hit, dropped="near_duplicate"))
        else:
            kept.append(hit)
            kept_runs.append(runs)
    return (*kept, *dropped)
