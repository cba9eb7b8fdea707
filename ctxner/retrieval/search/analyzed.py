"""Sentences as the index's analyzer cuts them: query terms and candidate mentions of every language but English.

English words are cut in Python, which is fast, and meet what Lucene indexed. In other languages they would not: their
analyzers index pairs of Chinese characters, dictionary words of Japanese, words without the article. There the
analyzer's own tokens, with their places in the sentence, are weighed, joined to candidate mentions and compared with
passages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from ctxner.languages import CLUSTERED
from ctxner.retrieval.lucene.lookups import Lookups, Token
from ctxner.retrieval.search.mentions import (
    CAPITAL_WEIGHT,
    JOINERS,
    MAX_MENTION_TOKENS,
    CandidateSearch,
    ComparedWords,
    MentionToken,
    Tokens,
    candidate_runs,
)
from ctxner.retrieval.search.query import CAPITAL_BOOST, heaviest_terms, inverse_frequency, joined, searched_words
from ctxner.retrieval.text import analyzed_form, clean_text, is_address
from ctxner.schema import Passage

_MAX_CLUSTERS = 12  # tokens of the longest candidate mention where a token is but a cluster of letters
_OPERATORS = ("AND", "OR", "NOT")  # of Lucene's query syntax; a Polish lemma may be written so


@dataclass(frozen=True, slots=True)
class _Sentence:
    """Words as one text, and what the analyzer makes of it.

    Attributes:
        words: The words, cleaned.
        text: What the analyzer was given.
        owners: Word of each character of the text; that of a blank is the word before it.
        tokens: Distinct places of tokens, in order, each with its terms: a word may have several base forms.
    """

    words: Sequence[str]
    text: str
    owners: Sequence[int]
    tokens: Sequence[tuple[Token, Sequence[str]]]


class AnalyzedSentences:
    """Prepares sentences for an index whose language is not English; not to be shared by threads."""

    def __init__(self, lookups: Lookups, *, language: str, num_documents: int) -> None:
        """Take an open index.

        Args:
            lookups: Lookups in the index.
            language: Its language.
            num_documents: Its number of passages.
        """
        self._lookups, self._num_documents = lookups, num_documents
        self._most_tokens = _MAX_CLUSTERS if language in CLUSTERED else MAX_MENTION_TOKENS
        self._sentences: dict[tuple[str, ...], _Sentence] = {}
        self._frequencies: dict[str, int] = {}
        self._surfaces: dict[Tokens, str] = {}

    def prepare(self, sentences: Iterable[Sequence[str]]) -> None:
        """Analyze the words of the next sentences and count their terms, in two calls; forget those before."""
        distinct = list(dict.fromkeys(tuple(searched_words(words)) for words in sentences))
        texts = [joined_text(words) for words in distinct]
        tokens = self._lookups.tokens([text for text, _ in texts])
        self._sentences = {
            words: _Sentence(words, text, owners, _by_place(sentence_tokens))
            for words, (text, owners), sentence_tokens in zip(distinct, texts, tokens, strict=True)
        }
        terms = list(dict.fromkeys(token.term for token in chain.from_iterable(tokens)))
        self._frequencies = dict(zip(terms, self._lookups.document_frequencies(terms), strict=True))
        self._surfaces = {}

    def query(self, words: Sequence[str], *, max_terms: int) -> str:
        """The query of rare and capitalised terms (as `weighted_query`), in the syntax of the kind `terms`."""
        sentence = self._sentence(words)
        case_tells = any(word.islower() for word in sentence.words)
        weights: dict[str, float] = {}
        for token, terms in sentence.tokens:
            surface = sentence.text[token.start : token.end]
            boost = CAPITAL_BOOST if case_tells and surface != surface.lower() else 1.0
            for term in terms:
                if self._frequencies[term]:
                    weights[term] = max(weights.get(term, 0.0), self._idf(term) * boost)
        return heaviest_terms({_escaped(term): weight for term, weight in weights.items()}, max_terms)

    def candidates(self, words: Sequence[str], predicted: Iterable[tuple[int, int]] = ()) -> CandidateSearch:
        """The candidate mentions (see `candidate_mentions`): runs of the analyzer's tokens."""
        sentence = self._sentence(words)
        words, case_tells = sentence.words, any(word.islower() for word in sentence.words)
        stretches: list[list[MentionToken]] = [[]]
        places: list[list[Token]] = [[]]
        last = 0  # word of the token before
        for token, terms in sentence.tokens:
            first = sentence.owners[token.start]
            if any(_cuts(word) for word in words[last + 1 : first]):
                stretches.append([])
                places.append([])
            last = sentence.owners[token.end - 1]
            term = max(terms, key=lambda term: self._frequencies[term])
            is_name = case_tells and words[first] != words[first].lower()
            weight = self._idf(term) * (CAPITAL_WEIGHT if is_name else 1.0) if self._frequencies[term] else 0.0
            stretches[-1].append(MentionToken(term, weight, weight > 0))
            places[-1].append(token)
        for tokens, its_places in zip(stretches, places, strict=True):
            self._remember_surfaces(sentence.text, tokens, its_places)
        runs = {self._run(sentence, start, end) for start, end in predicted}
        return candidate_runs(stretches, predicted=runs, most_tokens=self._most_tokens)

    def surface(self, mention: Tokens) -> str:
        """The text of a candidate mention in a sentence that has it; it is looked up in this form."""
        return self._surfaces[mention]

    def compared_words(self, passages: Mapping[int, Passage]) -> dict[int, ComparedWords]:
        """The words of passages as the index has them, by the passages' keys."""
        texts = [analyzed_form(text) for passage in passages.values() for text in (passage.title, passage.text)]
        analyzed = iter(self._lookups.analyze(texts))
        compared = {}
        for key, title, text in zip(passages, analyzed, analyzed, strict=True):
            whole = f" {' '.join(text)} "
            compared[key] = ComparedWords(f" {' '.join(title)} |{whole}" if title else whole, tuple(title))
        return compared

    def _sentence(self, words: Sequence[str]) -> _Sentence:
        key = tuple(searched_words(words))
        if key not in self._sentences:
            self.prepare([words])
        return self._sentences[key]

    def _idf(self, term: str) -> float:
        return inverse_frequency(self._frequencies[term], self._num_documents)

    def _remember_surfaces(self, text: str, tokens: Sequence[MentionToken], places: Sequence[Token]) -> None:
        for start in range(len(tokens)):
            for end in range(start + 1, min(start + self._most_tokens, len(tokens)) + 1):
                run = tuple(token.term for token in tokens[start:end])
                self._surfaces.setdefault(run, text[places[start].start : places[end - 1].end])

    def _run(self, sentence: _Sentence, start: int, end: int) -> Tokens:
        """The tokens that lie within the words from `start` to `end`."""
        return tuple(
            max(terms, key=lambda term: self._frequencies[term])
            for token, terms in sentence.tokens
            if start <= sentence.owners[token.start] and sentence.owners[token.end - 1] < end
        )


def joined_text(words: Sequence[str]) -> tuple[str, list[int]]:
    """The words as one text for the analyzer, without addresses, and the word of each of its characters."""
    forms = ["" if is_address(word) else analyzed_form(clean_text(word)).strip() for word in words]
    owners: list[int] = []
    text = joined(forms, owners)
    return text, owners


def _by_place(tokens: Iterable[Token]) -> list[tuple[Token, list[str]]]:
    places: dict[tuple[int, int], tuple[Token, list[str]]] = {}
    for token in tokens:
        places.setdefault((token.start, token.end), (token, []))[1].append(token.term)
    return list(places.values())


def _cuts(word: str) -> bool:
    """Whether a word that the analyzer leaves out ends a name: punctuation and addresses do, stop words do not."""
    return is_address(word) or not (word in JOINERS or any(character.isalnum() for character in word))


def _escaped(term: str) -> str:
    return f"\\{term}" if term in _OPERATORS else re.sub(r"(\W)", r"\\\1", term)
