"""How much of what a reader needs stands in the passages: of the gold mentions, and of the sentences' words.

Texts are compared as runs of normalised words. How many words two texts share is counted by pairs of adjacent ones in
scripts without blanks, of whose single characters any long text has most. Passages that nearly are the sentence count
for nothing: they prove no retrieval. Gold mentions serve for measuring only, never for a query.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from ctxner.labels import gold_spans, mention_text
from ctxner.retrieval.text import normalised_words, overlapping_words
from ctxner.schema import Example, Passage, Sentence, Span

SHARED_WORDS = 0.8  # of the shorter text's distinct words; from more on, two texts count as one


Surface = tuple[tuple[str, ...], str]  # normalised words of a mention (as it is when it has none), and its type


@dataclass(frozen=True, slots=True)
class Tally:
    """How many of how many."""

    found: int
    total: int

    @property
    def share(self) -> float | None:
        """Share found / total in [0, 1]; None when total is 0."""
        return self.found / self.total if self.total else None


@dataclass(frozen=True, slots=True)
class MentionTally:
    """Gold mentions found: all of them, those of each type, and those seen and not seen in training."""

    all: Tally
    by_type: Mapping[str, Tally]
    seen: Tally
    unseen: Tally


@dataclass(frozen=True, slots=True)
class LocatedMention:
    """A gold mention and where it was found.

    Attributes:
        sentence_id: Id of its sentence.
        span: Its words.
        surface: What it is compared by.
        rank: Rank of the best passage that it stands in, from 1; None when it stands in none.
    """

    sentence_id: str
    span: Span
    surface: Surface
    rank: int | None


def surfaces(sentences: Iterable[Sentence]) -> frozenset[Surface]:
    """The distinct mentions of tagged sentences, e.g. those seen in training; untagged ones have none."""
    return frozenset(surface for sentence in sentences for _, surface in gold_mentions(sentence))


def gold_mentions(sentence: Sentence) -> Iterator[tuple[Span, Surface]]:
    """The gold mentions in order: their words and what they are compared by; none if untagged (reports refuse that)."""
    for span in gold_spans(sentence) if sentence.tags is not None else ():
        text = mention_text(sentence, span)
        yield span, (tuple(normalised_words(text)) or (text,), span.type)


def shares_most_words(first: Set[str], second: Set[str]) -> bool:
    """Whether two texts, as sets of normalised words, share more than `SHARED_WORDS` of the shorter one's.

    The usual quick check for leaked text, coarser than `ctxner.retrieval.near_duplicates`: any two or three words in a
    long text make them alike.
    """
    return len(first & second) > SHARED_WORDS * min(len(first), len(second))


def locate_mentions(examples: Iterable[Example]) -> list[LocatedMention]:
    """Where each gold mention stands among the kept passages, title and text, in order.

    Ranks count the kept passages, without those that share most words with the sentence. A mention without letters
    and digits is never found.
    """
    located = []
    for example in examples:
        passages = [_between_blanks(_title_and_text(passage)) for passage in _others(example)]
        for span, surface in gold_mentions(example.sentence):
            wanted = _between_blanks(surface[0])
            rank = next((rank for rank, passage in enumerate(passages, 1) if wanted in passage), None)
            located.append(LocatedMention(example.sentence.id, span, surface, rank))
    return located


def mentions_in(passage: Passage, sentence: Sentence) -> list[Surface]:
    """The sentence's gold mentions whose words stand in a passage, title and text, by the rules of `locate_mentions`.

    None stand in a passage that shares most words with the sentence.
    """
    if _repeats(passage, set(_sentence_words(sentence))):
        return []
    text = _between_blanks(_title_and_text(passage))
    return [surface for _, surface in gold_mentions(sentence) if _between_blanks(surface[0]) in text]


def mention_coverage(
    examples: Iterable[Example], ks: Sequence[int], *, seen: Collection[Surface] = frozenset()
) -> dict[int, MentionTally]:
    """Gold mentions that stand in one of the first k kept passages (see `locate_mentions`), for each k.

    Args:
        examples: Tagged sentences and their passages, best first.
        ks: Numbers of passages, from 1.
        seen: The mentions of the training data, from `surfaces`.

    Raises:
        ValueError: A k is below 1.
    """
    _check_ks(ks)
    located = locate_mentions(examples)
    return {k: tally(located, seen, deepest=k) for k in ks}


def word_coverage(examples: Iterable[Example], ks: Sequence[int]) -> dict[int, Tally]:
    """The sentences' normalised words that stand in one of the first k kept passages, for each k; repeats count.

    The same passages count as in `locate_mentions`.

    Raises:
        ValueError: A k is below 1.
    """
    _check_ks(ks)
    covered, total = dict.fromkeys(ks, 0), 0
    for example in examples:
        words = _sentence_words(example.sentence)
        passages = [
            overlapping_words(text) for passage in _others(example) for text in [f"{passage.title} | {passage.text}"]
        ]
        total += len(words)
        for k in ks:
            known = set().union(*passages[:k])
            covered[k] += sum(word in known for word in words)
    return {k: Tally(covered[k], total) for k in ks}


def ceiling(
    corpus: Iterable[Passage], sentences: Iterable[Sentence], *, seen: Collection[Surface] = frozenset()
) -> MentionTally:
    """Gold mentions that stand anywhere in the corpus (see `locate_in_corpus`): what a perfect search could find.

    Args:
        corpus: Passages in any order.
        sentences: Tagged sentences.
        seen: The mentions of the training data, from `surfaces`.
    """
    return tally(locate_in_corpus(corpus, sentences), seen)


def locate_in_corpus(corpus: Iterable[Passage], sentences: Iterable[Sentence]) -> list[LocatedMention]:
    """Which gold mentions stand in a passage of the corpus that does not share most words with their sentence.

    Their rank is 1. The corpus is streamed once; memory is bounded by the sentences.
    """
    listed = list(sentences)
    words = [frozenset(_sentence_words(sentence)) for sentence in listed]
    waiting: dict[tuple[str, ...], set[int]] = {}  # mention -> sentences that have it and lack a passage with it
    for number, sentence in enumerate(listed):
        for _, (mention, _) in gold_mentions(sentence):
            waiting.setdefault(mention, set()).add(number)
    by_anchor: dict[str, dict[tuple[str, ...], str]] = {}
    for mention in waiting:  # a long word is mostly a rare one, so few passages are looked at
        by_anchor.setdefault(max(mention, key=len), {})[mention] = _between_blanks(mention)
    for passage in corpus:
        _strike_found(passage, by_anchor, waiting, words)
    return [
        LocatedMention(sentence.id, span, surface, None if number in waiting[surface[0]] else 1)
        for number, sentence in enumerate(listed)
        for span, surface in gold_mentions(sentence)
    ]


def tally(located: Sequence[LocatedMention], seen: Collection[Surface], *, deepest: int | None = None) -> MentionTally:
    """Count the mentions found down to a rank, in all and by group; types in alphabetical order."""

    def count(chosen: Iterable[LocatedMention]) -> Tally:
        ranks = [mention.rank for mention in chosen]
        return Tally(sum(rank is not None and (deepest is None or rank <= deepest) for rank in ranks), len(ranks))

    types = sorted({mention.surface[1] for mention in located})
    return MentionTally(
        count(located),
        {type: count(mention for mention in located if mention.surface[1] == type) for type in types},
        count(mention for mention in located if mention.surface in seen),
        count(mention for mention in located if mention.surface not in seen),
    )


def _strike_found(
    passage: Passage,
    by_anchor: dict[str, dict[tuple[str, ...], str]],
    waiting: dict[tuple[str, ...], set[int]],
    words: Sequence[frozenset[str]],
) -> None:
    """Take from `waiting` the sentences whose mention stands in the passage, and anchors once none is left."""
    tokens = _title_and_text(passage)
    anchors = by_anchor.keys() & set(tokens)
    if not anchors:
        return
    text, passage_words = _between_blanks(tokens), set(overlapping_words(passage.text))
    for anchor in anchors:
        for mention in [mention for mention, wanted in by_anchor[anchor].items() if wanted in text]:
            waiting[mention] = {
                number for number in waiting[mention] if shares_most_words(passage_words, words[number])
            }
            if not waiting[mention]:
                del by_anchor[anchor][mention]
        if not by_anchor[anchor]:
            del by_anchor[anchor]


def _others(example: Example) -> Iterator[Passage]:
    """The kept passages that do not share most words with the sentence."""
    words = set(_sentence_words(example.sentence))
    for scored in example.passages:
        if scored.dropped is None and not _repeats(scored.passage, words):
            yield scored.passage


def _repeats(passage: Passage, words: Set[str]) -> bool:
    """Whether a passage shares most words with a sentence of these words."""
    return shares_most_words(words, set(overlapping_words(passage.text)))


def _sentence_words(sentence: Sentence) -> list[str]:
    return overlapping_words(" ".join(sentence.words))


def _title_and_text(passage: Passage) -> list[str]:
    return [*normalised_words(passage.title), "", *normalised_words(passage.text)]  # "": no mention spans the two


def _between_blanks(words: Sequence[str]) -> str:
    """Words so joined that a run of words is a substring."""
    return f" {' '.join(words)} "


def _check_ks(ks: Sequence[int]) -> None:
    if any(k < 1 for k in ks):
        raise ValueError(f"k is {min(ks)}; wanted numbers of passages from 1")
