"""Which of the passages that Lucene answers with are taken for a sentence, and in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice

from ctxner.retrieval.lucene.lookups import Hits
from ctxner.retrieval.near_duplicates import Runs, character_runs, is_near_duplicate, repeats_sentence
from ctxner.retrieval.search.mentions import ComparedWords, Tokens, choose
from ctxner.retrieval.text import clean_text
from ctxner.schema import Passage, Sentence

_SPARE = 4  # passages chosen beyond those wanted, in place of near copies
# In the mode `entries`, least weight of the mentions that a text must add. On WNUT-17's dev set (social-wiki-news) 0.7
# halves the texts shown and costs 2 of 74 points of coverage.
_LEAST_GAIN = 0.7
_SMALL_CORPUS = 1000  # passages below which every text that covers a mention is taken: no word is rare there


@dataclass(frozen=True, slots=True)
class Answers:
    """Lucene's answers for a sentence, before any passage is read.

    Attributes:
        query: Query that Lucene ran.
        hits: Hits of the query.
        mentions: Candidate mentions with their weights.
        looked_up: Hits of each mention.
        error: Reason why a lookup failed, or None.
    """

    query: str
    hits: Hits = ()
    mentions: Mapping[Tokens, float] = field(default_factory=dict)
    looked_up: Sequence[Hits] = ()
    error: str | None = None

    def docs(self) -> set[int]:
        """Passages of all hits."""
        return {doc for hits in (self.hits, *self.looked_up) for doc, _ in hits}

    def scores(self) -> dict[int, float]:
        """Score of each passage: that of the query's hit, else that of a mention's."""
        return {doc: score for hits in reversed((self.hits, *self.looked_up)) for doc, score in reversed(hits)}

    def by_score(self, read: Mapping[int, ReadPassage]) -> list[int]:
        """All passages in the order of the query's scores, then of ids."""
        scores = dict(self.hits)
        return sorted(self.docs(), key=lambda doc: (-scores.get(doc, 0.0), read[doc].passage.id))


@dataclass(frozen=True)
class ReadPassage:
    """A passage of a batch of sentences, and what is compared of it; each computed once per batch.

    Attributes:
        passage: The passage.
        words: Its words; none where no mentions are covered.
    """

    passage: Passage
    words: ComparedWords | None = None

    @cached_property
    def runs(self) -> Runs:
        """Runs of characters, by which near copies are told."""
        return character_runs(self.passage.text)


def chosen(
    sentence: Sentence,
    answers: Answers,
    read: Mapping[int, ReadPassage],
    depth: int,
    *,
    least_gain: float = 0.0,
    by_holders: bool = False,
    drop_near_duplicates: bool = True,
) -> list[int]:
    """The passages that cover most of a sentence's mentions, then those that repeat the sentence or a better one.

    Args:
        sentence: Sentence that asks.
        answers: Lucene's answers.
        read: The passages of the answers, at least.
        depth: Most passages to choose.
        least_gain: Least weight of the mentions that a passage must add; see `least_gain_of`.
        by_holders: Whether a passage covers the mentions that Lucene found it by, whatever its words show: base forms
            of a word may hide there that the phrase holds the mention.
        drop_near_duplicates: False: passages that repeat others or the sentence are chosen as all others.
    """
    words = {doc: read[doc].words for doc in answers.by_score(read)}
    texts = {doc: compared for doc, compared in words.items() if compared is not None}
    holders = None
    if by_holders:
        looked_up = zip(answers.mentions, answers.looked_up, strict=True)
        holders = {mention: {doc for doc, _ in hits} for mention, hits in looked_up}
    covering = partial(choose, answers.mentions, texts, least_gain=least_gain, holders=holders)
    if not drop_near_duplicates:
        return list(islice(covering(lambda _: False), depth))
    sentence_runs = character_runs(clean_text(" ".join(sentence.words)))

    def repeats(doc: int) -> bool:
        return repeats_sentence(read[doc].runs, sentence_runs)

    best: list[int] = []
    copies: list[int] = []
    for doc in islice(covering(repeats), depth + _SPARE):
        if len(best) == depth:
            break
        is_copy = any(is_near_duplicate(read[doc].runs, read[better].runs) for better in best)
        (copies if is_copy else best).append(doc)
    return [*best, *(doc for doc, _ in answers.hits[:depth] if repeats(doc)), *copies]


def least_gain_of(num_documents: int) -> float:
    """Least weight of the mentions that a text must add to the entries of an index."""
    return _LEAST_GAIN if num_documents >= _SMALL_CORPUS else 0.0
