"""Finding candidate mentions in a sentence, and choosing the few passages that cover most of them.

The best passages of a single query all match its rarest word. Therefore each candidate mention is looked up separately
(`ctxner.retrieval.search.bm25`), and `choose` then repeatedly takes the passage that adds most to the mentions covered
so far. Pure Python, without gold tags or a model: capitals, rarity and the index decide.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from typing import NamedTuple, TypeVar

from ctxner.retrieval.search.query import ENGLISH_STOP_WORDS, inverse_frequency
from ctxner.retrieval.text import is_address, normalised_words
from ctxner.schema import Passage

Tokens = tuple[str, ...]
Span = tuple[int, int]
CandidateSearch = Generator[list[Tokens], Callable[[Tokens], bool], dict[Tokens, float]]
D = TypeVar("D", bound=Hashable)

MAX_MENTION_TOKENS = 5
CAPITAL_WEIGHT = 4.0  # chosen on WNUT-17 dev, where 3 to 6 differ by at most 0.3 points
_PREDICTED_WEIGHT = 4.0  # on dev 2 to 10 differ by at most 0.2 points

# Share of a mention's weight that remains after each passage that covers it. With 0, coverage on dev is 0.3 points
# higher, but a passage about a common word displaces a second one about a name, which a tagger can use.
_AGAIN = 0.2
# Extra gain, as a share of a mention's weight, of a passage whose title is exactly the mention ("Snow Blind", not "Snow
# Blind Friend"). On dev, 25% instead of 13% of the mentions get the passage of that title among six, at 0 to 0.3 points
# less coverage.
_TITLE = 0.3
JOINERS = ("-", "'", "’", ".", "&")


class MentionToken(NamedTuple):
    """A token that candidate mentions are made of.

    Attributes:
        term: What it is compared and looked up by.
        weight: Rarity; 0 for stop words and for terms in no passage.
        at_end: Whether a mention may begin or end with it.
    """

    term: str
    weight: float
    at_end: bool


def candidate_mentions(
    words: Sequence[str],
    *,
    document_frequency: Callable[[str], int],
    num_documents: int,
    stop_words: frozenset[str] = ENGLISH_STOP_WORDS,
    predicted: Iterable[tuple[int, int]] = (),
) -> CandidateSearch:
    """Every run of up to five tokens that occurs in the corpus, with no stop word at its ends, except capitals ("New").

    A generator, so that the runs of many sentences can be looked up together. It yields the runs to look up next, short
    ones first, and is sent a function that tells which of them occur in some passage.

    Args:
        words: The sentence's words; their case matters.
        document_frequency: Number of passages with a token.
        num_documents: Passages in the index.
        stop_words: Lower-case words that name nothing, except in capitals ("US").
        predicted: First word, and one past the last, of each mention that a tagger predicted.

    Yields:
        Runs of two or more tokens whose shorter parts all occur in some passage.

    Returns:
        Weight by run: the sum of its tokens' idf, each from 0 to 1, times four for tokens that look like a name, and
        times four for a predicted run.
    """
    stretches = _stretches(words, document_frequency, num_documents, stop_words)
    named = {tuple(normalised_words(" ".join(words[start:end]))) for start, end in predicted}
    return (yield from candidate_runs(stretches, predicted=named))


def candidate_runs(
    stretches: Sequence[Sequence[MentionToken]],
    *,
    predicted: Iterable[Tokens] = (),
    most_tokens: int = MAX_MENTION_TOKENS,
) -> CandidateSearch:
    """`candidate_mentions` of tokens that are cut and weighed already.

    Args:
        stretches: The sentence's tokens in order, cut where no name goes on.
        predicted: Runs that a tagger predicted.
        most_tokens: Length of the longest run.
    """
    occurring = [{(n, n + 1) for n, token in enumerate(tokens) if token.weight} for tokens in stretches]
    for length in range(2, most_tokens + 1):
        runs = [list(_runs(*pair, length)) for pair in zip(stretches, occurring, strict=True)]
        if not any(runs):
            continue
        occurs = yield [run for stretch_runs in runs for _, run in stretch_runs]
        for stretch_runs, spans in zip(runs, occurring, strict=True):
            spans.update(span for span, run in stretch_runs if occurs(run))
    weights: dict[Tokens, float] = {}
    for tokens, spans in zip(stretches, occurring, strict=True):
        for start, end in spans:
            mention = tuple(token.term for token in tokens[start:end])
            weights[mention] = max(weights.get(mention, 0.0), sum(token.weight for token in tokens[start:end]))
    for mention in set(predicted):
        if mention in weights:
            weights[mention] *= _PREDICTED_WEIGHT
    return weights


def _runs(tokens: Sequence[MentionToken], occurring: Set[Span], length: int) -> Iterator[tuple[Span, Tokens]]:
    """The runs of this length that may be mentions, because their shorter parts occur in the corpus."""
    for start in range(len(tokens) - length + 1):
        run, end = tokens[start : start + length], start + length
        if not (run[0].at_end and run[-1].at_end and any(token.weight for token in run)):
            continue
        if length > 2 and run[-2].weight and (start, end - 1) not in occurring:
            continue
        if length > 2 and run[1].weight and (start + 1, end) not in occurring:
            continue
        yield (start, end), tuple(token.term for token in run)


class ComparedWords(NamedTuple):
    """A passage's normalised words: title and text as one string, in which no run spans both, and the title alone."""

    all: str
    title: Tokens


def compared_words(passage: Passage) -> ComparedWords:
    """The words of a passage, as `choose` compares them."""
    text, title = f" {' '.join(normalised_words(passage.text))} ", tuple(normalised_words(passage.title))
    return ComparedWords(f" {' '.join(title)} |{text}" if title else text, title)


def choose(
    mentions: Mapping[Tokens, float],
    passages: Mapping[D, ComparedWords],
    refuse: Callable[[D], bool],
    *,
    least_gain: float = 0.0,
    holders: Mapping[Tokens, Set[D]] | None = None,
) -> Iterator[D]:
    """The passages that together cover most of the weight, in the order of choice; a mention counts less each time.

    A passage whose title is a mention gains a little more.

    Args:
        mentions: Weight of each candidate mention.
        passages: Passages to choose from, by any key. Their order decides between equal gains, and alone decides when
            no mention is covered.
        refuse: Function that is called with the best remaining passage; True skips it and leaves its mentions
            uncovered.
        least_gain: Gain below which nothing more is chosen.
        holders: Passages that are known to hold a mention, whatever their words.
    """
    needles = [(mention, f" {' '.join(mention)} ") for mention in mentions]
    covers = {key: [mention for mention, needle in needles if needle in words.all] for key, words in passages.items()}
    for mention, keys in (holders or {}).items():
        for key in keys:
            if mention not in covers[key]:
                covers[key].append(mention)
    left = dict(mentions)
    left_titles = {mention: _TITLE * weight for mention, weight in mentions.items()}

    def gain(key: D) -> float:
        return math.fsum(left[mention] for mention in covers[key]) + left_titles.get(passages[key].title, 0.0)

    queue = [(-gain(key), place, key) for place, key in enumerate(passages)]
    heapq.heapify(queue)
    while queue:
        before, place, key = queue[0]
        if -(now := gain(key)) != before:  # gains only shrink: the first entry with an up-to-date gain is best
            heapq.heapreplace(queue, (-now, place, key))
            continue
        if now < least_gain:
            return
        heapq.heappop(queue)
        if not refuse(key):
            left.update({mention: _AGAIN * left[mention] for mention in covers[key]})
            if (title := passages[key].title) in left_titles:
                left_titles[title] *= _AGAIN
            yield key


def _stretches(
    words: Sequence[str], document_frequency: Callable[[str], int], num_documents: int, stop_words: frozenset[str]
) -> list[list[MentionToken]]:
    """The sentence's tokens in order, cut at words that no name contains."""
    case_tells = any(word.islower() for word in words)
    stretches: list[list[MentionToken]] = [[]]
    for word in words:
        terms = normalised_words(word)
        if is_address(word) or not (terms or word in JOINERS):
            stretches.append([])
            continue
        is_name = case_tells and word != word.lower()
        for term in terms:
            is_stop = term in stop_words and not (is_name and len(word) > 1 and word.isupper())
            frequency = 0 if is_stop else document_frequency(term)
            idf = inverse_frequency(frequency, num_documents) if frequency else 0.0
            weight = idf * (CAPITAL_WEIGHT if is_name else 1.0)
            stretches[-1].append(MentionToken(term, weight, weight > 0 or (is_stop and is_name)))
    return stretches
