"""English sentences as queries: their words are cut in Python, which is fast, and meet what Lucene indexed.

`ctxner.retrieval.search.analyzed` does the same for other languages, by the index's analyzer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from ctxner.retrieval.lucene.lookups import Lookups
from ctxner.retrieval.search.mentions import CandidateSearch, ComparedWords, Tokens, candidate_mentions, compared_words
from ctxner.retrieval.search.query import ENGLISH_STOP_WORDS, searchable_terms, searched_words, weighted_query
from ctxner.retrieval.text import normalised_words
from ctxner.schema import Passage

_CACHED = 1 << 17  # terms whose document frequencies are cached for later sentences


class EnglishSentences:
    """Prepares sentences for an English index; not to be shared by threads."""

    def __init__(self, lookups: Lookups, *, num_documents: int, by_mention: bool) -> None:
        """Take an open index.

        Args:
            lookups: Lookups in the index.
            num_documents: Its number of passages.
            by_mention: Whether candidate mentions will be asked for, beside queries.
        """
        self._lookups, self._num_documents, self._by_mention = lookups, num_documents, by_mention
        self._frequencies: dict[str, int] = {}

    def prepare(self, sentences: Iterable[Sequence[str]]) -> None:
        """Look up the document frequencies of all terms of the next sentences in two calls."""
        if len(self._frequencies) > _CACHED:
            self._frequencies.clear()
        self._count(term for words in sentences for term in self._terms(words))

    def query(self, words: Sequence[str], *, max_terms: int) -> str:
        """The query of rare and capitalised terms, in the syntax of the kind `weighted`; see `weighted_query`."""
        return weighted_query(
            words,
            self.document_frequency,
            self._num_documents,
            max_terms=max_terms,
            stop_words=ENGLISH_STOP_WORDS,
        )

    def candidates(self, words: Sequence[str], predicted: Iterable[tuple[int, int]] = ()) -> CandidateSearch:
        """The candidate mentions; see `candidate_mentions`."""
        return candidate_mentions(
            searched_words(words),
            document_frequency=self.document_frequency,
            num_documents=self._num_documents,
            stop_words=ENGLISH_STOP_WORDS,
            predicted=tuple(predicted),
        )

    def surface(self, mention: Tokens) -> str:
        """The text of a candidate mention, in which it is looked up."""
        return " ".join(mention)

    def compared_words(self, passages: Mapping[int, Passage]) -> dict[int, ComparedWords]:
        """The words of passages, by the passages' keys."""
        return {key: compared_words(passage) for key, passage in passages.items()}

    def document_frequency(self, term: str) -> int:
        """Number of passages with the term after analysis; if the analyzer splits it, that of the rarest part."""
        if term not in self._frequencies:
            self._count([term])
        return self._frequencies[term]

    def _count(self, terms: Iterable[str]) -> None:
        """Look up the document frequencies of terms that are not cached."""
        unknown = [term for term in dict.fromkeys(terms) if term not in self._frequencies]
        analyzed = self._lookups.analyze(unknown)
        tokens = list(dict.fromkeys(chain.from_iterable(analyzed)))
        frequencies = dict(zip(tokens, self._lookups.document_frequencies(tokens), strict=True))
        for term, term_tokens in zip(unknown, analyzed, strict=True):
            self._frequencies[term] = min((frequencies[token] for token in term_tokens), default=0)

    def _terms(self, words: Sequence[str]) -> Iterable[str]:
        """The terms whose document frequencies are needed."""
        yield from (term for term, _ in searchable_terms(words, ENGLISH_STOP_WORDS))
        if self._by_mention:
            yield from (token for word in searched_words(words) for token in normalised_words(word))
