"""Leakage audit: which texts repeat a data set's sentences, and which of its mentions were seen in training.

Every sentence is compared with every text of a corpus or of another split, by the rule that retrieval drops passages
by (`ctxner.retrieval.near_duplicates`) and by shared words (`ctxner.retrieval.measure.coverage`). The texts are
streamed past an index of the sentences, so memory is bounded by the sentences and the texts may be any number.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ctxner.retrieval.measure.coverage import SHARED_WORDS, Tally, gold_mentions, shares_most_words, surfaces
from ctxner.retrieval.near_duplicates import THRESHOLD, Runs, character_runs, repeats_sentence
from ctxner.retrieval.text import clean_text, overlapping_words
from ctxner.schema import Sentence


@dataclass(frozen=True, slots=True)
class Copy:
    """A text that nearly repeats a sentence.

    Attributes:
        id: Id of the passage, or of the other sentence.
        text: As it is.
        containment: Share of the sentence's character runs that are in the text, in [0, 1].
    """

    id: str
    text: str
    containment: float


@dataclass(slots=True)
class SentenceCopies:
    """The texts that repeat one sentence.

    Attributes:
        num_exact: Texts of the same letters and digits, in any case.
        num_near: Texts that retrieval drops as near duplicates, exact ones among them.
        num_word_copies: Texts that share most words with the sentence, a coarser rule.
        ids: Ids of the near duplicates, in the order of the texts, up to a bound.
        closest: The near duplicate with the greatest containment, the first of equals.
    """

    num_exact: int = 0
    num_near: int = 0
    num_word_copies: int = 0
    ids: list[str] = field(default_factory=list)
    closest: Copy | None = None


@dataclass(frozen=True, slots=True)
class CopyShares:
    """Of how many sentences there is a copy: exact, by the rule of retrieval, by shared words."""

    exact: Tally
    near: Tally
    words: Tally


@dataclass(frozen=True, slots=True)
class SeenMentions:
    """How much of a split's gold mentions occurs in training, with the same type.

    Attributes:
        mentions: Tally of all mentions.
        surfaces: Tally of the distinct ones: normalised words and type.
    """

    mentions: Tally
    surfaces: Tally


class OverlapIndex:
    """Sets of strings, looked up by how much another set has in common with them; exact (prefix filtering).

    When two sets share at least c of n strings of one of them, any n - c + 1 strings of that one include a shared one.
    So a pair is looked at only when it shares one of the n - c + 1 *rarest* strings, which few sets have. Rarity is
    counted over the indexed sets; strings that none of them has come first, so that most sets cost one intersection.
    """

    def __init__(self, sets: Sequence[frozenset[str]], needed: Callable[[int], int]):
        """Index sets.

        Args:
            sets: What is looked up.
            needed: How many of a set's n strings another set has to share, c for n.
        """
        self._needed = needed
        self._frequency = Counter(member for set_ in sets for member in set_)
        self._holders: dict[str, list[int]] = {}
        self._anchored: dict[str, list[int]] = {}
        for number, set_ in enumerate(sets):
            by_rarity = sorted(set_, key=lambda member: (self._frequency[member], member))
            for place, member in enumerate(by_rarity):
                self._holders.setdefault(member, []).append(number)
                if place <= len(set_) - needed(len(set_)):
                    self._anchored.setdefault(member, []).append(number)

    def candidates(self, other: frozenset[str]) -> set[int]:
        """The numbers of all sets that share what is needed of themselves or of `other`, and of some more sets."""
        known = self._holders.keys() & other
        numbers = {number for member in self._anchored.keys() & known for number in self._anchored[member]}
        num_anchors = len(known) - self._needed(len(other)) + 1
        if num_anchors > 0:
            rarest = sorted(known, key=self._frequency.__getitem__)[:num_anchors]
            numbers.update(number for member in rarest for number in self._holders[member])
        return numbers


def find_copies(
    texts: Iterable[tuple[str, str]],
    sentences: Sequence[Sentence],
    *,
    same: bool = False,
    max_named: int = 100,
) -> list[SentenceCopies]:
    """Find the texts that repeat sentences; every text is compared with every sentence, exactly.

    Args:
        texts: (id, text) of the passages of a corpus, or `texts_of` other sentences.
        sentences: What may have leaked.
        same: The texts are those of the sentences, in order: none counts as a copy of itself.
        max_named: Most ids kept a sentence; the counts are of all.

    Returns:
        The copies of each sentence.
    """
    bare = [text for _, text in texts_of(sentences)]
    runs, words = [character_runs(text) for text in bare], [_words(text) for text in bare]
    by_runs = OverlapIndex(runs, lambda size: math.ceil(THRESHOLD * size))
    by_words = OverlapIndex(words, lambda size: math.floor(SHARED_WORDS * size) + 1)
    copies = [SentenceCopies() for _ in bare]
    for place, (id, text) in enumerate(texts):
        text_runs, text_words = character_runs(text), _words(text)
        for number in by_runs.candidates(text_runs):
            if repeats_sentence(text_runs, runs[number]) and not (same and number == place):
                _add(copies[number], id, text, text_runs, runs[number], max_named)
        for number in by_words.candidates(text_words):
            if shares_most_words(text_words, words[number]) and not (same and number == place):
                copies[number].num_word_copies += 1
    return copies


def texts_of(sentences: Iterable[Sentence]) -> Iterator[tuple[str, str]]:
    """(id, text) of sentences, as retrieval compares them with passages."""
    for sentence in sentences:
        yield sentence.id, clean_text(" ".join(sentence.words))


def copy_shares(copies: Sequence[SentenceCopies]) -> CopyShares:
    """How many of a split's sentences have a copy, from `find_copies`."""
    return CopyShares(
        Tally(sum(copy.num_exact > 0 for copy in copies), len(copies)),
        Tally(sum(copy.num_near > 0 for copy in copies), len(copies)),
        Tally(sum(copy.num_word_copies > 0 for copy in copies), len(copies)),
    )


def entity_overlap(
    training: Iterable[Sentence], sentences: Sequence[Sentence]
) -> tuple[SeenMentions, dict[str, SeenMentions]]:
    """The mentions of a split that were seen in training, in all and by type."""
    known = surfaces(training)
    mentions = [surface for sentence in sentences for _, surface in gold_mentions(sentence)]

    def seen(type: str | None) -> SeenMentions:
        chosen = [surface for surface in mentions if type is None or surface[1] == type]
        distinct = set(chosen)
        return SeenMentions(
            Tally(sum(surface in known for surface in chosen), len(chosen)),
            Tally(len(distinct & known), len(distinct)),
        )

    return seen(None), {type: seen(type) for type in sorted({type for _, type in mentions})}


def _add(copies: SentenceCopies, id: str, text: str, text_runs: Runs, runs: Runs, max_named: int) -> None:
    copies.num_near += 1
    copies.num_exact += text_runs == runs
    if len(copies.ids) < max_named:
        copies.ids.append(id)
    containment = len(text_runs & runs) / len(runs)
    if copies.closest is None or containment > copies.closest.containment:
        copies.closest = Copy(id, text, containment)


def _words(text: str) -> frozenset[str]:
    return frozenset(overlapping_words(text))
