"""Sentences -> passages by BM25, over an index of `ctxner.retrieval.index`.

Queries go to Lucene one by one, through its query parser: unlike Anserini's batch call this takes weights and phrases,
a failing query harms no other, and it is faster (no stored document is read for a hit until all hits are known).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ctxner.retrieval.index import analyzer_for, read_manifest, stored_passage
from ctxner.retrieval.jvm import java_class
from ctxner.retrieval.query import (
    ENGLISH_STOP_WORDS,
    MAX_QUERY_TERMS,
    MAX_WORD_LENGTH,
    QueryMode,
    bag_of_words,
    weighted_query,
)
from ctxner.retrieval.reader import IdOrderedSearcher, open_reader
from ctxner.schema import Passage, ScoredPassage, Sentence

_log = logging.getLogger(__name__)
_FIELD = "contents"


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What was searched for a sentence and what was found.

    Attributes:
        query: As sent to Lucene; empty when the sentence has nothing to search for.
        hits: Best first; equal scores by id.
        error: Why the search failed, or None. A failed sentence has no hits.
    """

    query: str
    hits: tuple[ScoredPassage, ...] = ()
    error: str | None = None


class BM25Searcher:
    """An open index. Starts the JVM; build one in each process that searches, never before a fork or `ray.init()`.

    An index built into the same folder later is not seen: open a new searcher.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        k1: float = 0.9,
        b: float = 0.4,
        query_mode: QueryMode = "weighted",
        max_query_terms: int = 64,
        num_threads: int = 2,
    ):
        """Open the index in `folder`.

        Args:
            folder: Written by `build_index`.
            k1: BM25's saturation of repeated words; the defaults are Anserini's, which suit short passages.
            b: BM25's length normalisation.
            query_mode: `weighted`, or `bag` for the plain bag of words (the reference).
            max_query_terms: Most distinct terms of a query, at most 512.
            num_threads: Queries in flight.

        Raises:
            FileNotFoundError, ValueError: See `read_manifest`; or an argument is out of range.
        """
        if query_mode not in ("weighted", "bag"):
            raise ValueError(f"query_mode is {query_mode!r}; wanted 'weighted' or 'bag'")
        if not 1 <= max_query_terms <= MAX_QUERY_TERMS:
            raise ValueError(f"max_query_terms is {max_query_terms}; wanted 1 to {MAX_QUERY_TERMS}")
        if num_threads < 1:
            raise ValueError(f"num_threads is {num_threads}; wanted at least 1")
        self.manifest = read_manifest(folder)
        self._query_mode = query_mode
        self._max_query_terms = max_query_terms
        self._num_threads = num_threads
        self._analyzer = analyzer_for(self.manifest.language)
        self._stop_words = ENGLISH_STOP_WORDS if self.manifest.language == "en" else frozenset[str]()
        self._reader, self._searcher = _open_searcher(self.manifest.shard_folders(folder), k1, b)
        self.document_frequency = lru_cache(maxsize=1 << 17)(self._document_frequency)

    @property
    def num_documents(self) -> int:
        """Passages in the index."""
        return self.manifest.num_documents

    def search(self, sentences: Sequence[Sentence], *, depth: int) -> list[SearchResult]:
        """The best `depth` passages of every sentence, in the sentences' order.

        A sentence whose search fails gets an `error` and a logged warning, and leaves the others alone.
        """
        if depth < 1:
            raise ValueError(f"depth is {depth}; wanted at least 1")
        chunks = [sentences[start :: self._num_threads] for start in range(self._num_threads)]
        if len(sentences) <= 1 or self._num_threads == 1:
            found = [self._search_one(sentence, depth) for sentence in sentences]
        else:
            with ThreadPoolExecutor(self._num_threads) as pool:
                parts = list(pool.map(self._search_in_thread, chunks, [depth] * len(chunks)))
            found = [parts[n % self._num_threads][n // self._num_threads] for n in range(len(sentences))]
        passages = self._fetch({doc for _, hits, _ in found for doc, _ in hits})
        return [SearchResult(query, _scored(hits, passages), error) for query, hits, error in found]

    def query_text(self, words: Sequence[str]) -> str:
        """The query that a sentence of these words is searched with."""
        if self._query_mode == "bag":
            return bag_of_words(words, max_terms=self._max_query_terms)
        return weighted_query(
            words,
            self.document_frequency,
            self.num_documents,
            max_terms=self._max_query_terms,
            stop_words=self._stop_words,
        )

    def close(self) -> None:
        """Release the index's files."""
        self._reader.close()

    def _document_frequency(self, term: str) -> int:
        """Passages with the term, after analysis; of a term that the analyzer splits, the rarest part's number."""
        tokens = java_class("io.anserini.analysis.AnalyzerUtils").analyze(self._analyzer, term)
        lucene_term = java_class("org.apache.lucene.index.Term")
        return min((self._reader.docFreq(lucene_term(_FIELD, token)) for token in tokens.toArray()), default=0)

    def _search_in_thread(self, sentences: Sequence[Sentence], depth: int) -> list[_Found]:
        import jnius

        try:
            return [self._search_one(sentence, depth) for sentence in sentences]
        finally:
            jnius.detach()

    def _search_one(self, sentence: Sentence, depth: int) -> _Found:
        from jnius import JavaException

        query = self.query_text(sentence.words)
        if not query:
            return query, [], None
        try:
            top = self._searcher.search(self._parse(query), depth)
        except JavaException as error:
            _log.warning("sentence %r: search failed (%s); it gets no passages", sentence.id, error)
            return query, [], f"{type(error).__name__}: {error}"
        return query, [(hit.doc, hit.score) for hit in top.scoreDocs], None

    def _parse(self, query: str) -> Any:
        if self._query_mode == "bag":
            generator = java_class("io.anserini.search.query.BagOfWordsQueryGenerator")()
            return generator.buildQuery(_FIELD, self._analyzer, query)
        parser = java_class("org.apache.lucene.queryparser.classic.QueryParser")(_FIELD, self._analyzer)
        return parser.parse(query)

    def _fetch(self, docs: Iterable[int]) -> dict[int, Passage]:
        stored = self._reader.storedFields()
        return {doc: stored_passage(stored.document(doc).get("raw")) for doc in sorted(docs)}


_Found = tuple[str, list[tuple[int, float]], str | None]  # query, (Lucene's document number, score) of each hit, error


def _open_searcher(shards: Sequence[Path], k1: float, b: float) -> tuple[Any, IdOrderedSearcher]:
    reader = open_reader(shards)
    searcher = java_class("org.apache.lucene.search.IndexSearcher")(reader)
    searcher.setMaxClauseCount(MAX_QUERY_TERMS * MAX_WORD_LENGTH)  # an analyzer may split a word at every letter
    searcher.setSimilarity(java_class("org.apache.lucene.search.similarities.BM25Similarity")(k1, b))
    return reader, IdOrderedSearcher(searcher)


def _scored(hits: list[tuple[int, float]], passages: dict[int, Passage]) -> tuple[ScoredPassage, ...]:
    ordered = sorted(hits, key=lambda hit: (-hit[1], passages[hit[0]].id))
    return tuple(ScoredPassage(passages[doc], score, rank) for rank, (doc, score) in enumerate(ordered, 1))
