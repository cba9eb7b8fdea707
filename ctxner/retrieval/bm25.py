"""Sentences -> passages by BM25, over an index of `ctxner.retrieval.index`.

Queries go to Lucene one by one, through its query parser: unlike Anserini's batch call this takes weights and phrases,
a failing query harms no other, and it is faster (no stored document is read for a hit until all hits are known).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

from ctxner.retrieval.duplicates import character_runs, is_near_duplicate, repeats_sentence
from ctxner.retrieval.index import analyzer_for, read_manifest, stored_passage
from ctxner.retrieval.jvm import java_class
from ctxner.retrieval.mentions import Tokens, candidate_mentions, choose
from ctxner.retrieval.query import (
    ENGLISH_STOP_WORDS,
    MAX_QUERY_TERMS,
    MAX_WORD_LENGTH,
    QueryMode,
    bag_of_words,
    clean_text,
    weighted_query,
)
from ctxner.retrieval.reader import IdOrderedSearcher, open_reader
from ctxner.schema import Passage, ScoredPassage, Sentence

_log = logging.getLogger(__name__)
_FIELD = "contents"
_PER_MENTION = 3  # passages looked up for a candidate mention
_SPARE = 4  # passages chosen beyond those wanted, in place of near copies
_POOL = 20  # passages of the weighted query to choose from


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


_Predicted = Mapping[str, Sequence[tuple[int, int]]]
_Hits = tuple[tuple[int, float], ...]  # (Lucene's document number, score), best first


@dataclass(frozen=True, slots=True)
class _Found:
    """What Lucene found for a sentence, before any passage is read."""

    query: str
    hits: _Hits = ()
    mentions: Mapping[Tokens, float] = field(default_factory=dict)
    looked_up: Mapping[Tokens, _Hits] = field(default_factory=dict)
    error: str | None = None

    def docs(self) -> set[int]:
        return {doc for hits in (self.hits, *self.looked_up.values()) for doc, _ in hits}


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
        query_mode: QueryMode = "mentions",
        max_query_terms: int = 64,
        drop_near_duplicates: bool = True,
        num_threads: int = 2,
    ):
        """Open the index in `folder`.

        Args:
            folder: Written by `build_index`.
            k1: BM25's saturation of repeated words; the defaults are Anserini's, which suit short passages.
            b: BM25's length normalisation.
            query_mode: `mentions`: every candidate mention is looked up, and passages are chosen that cover most of
                them. `weighted`: one query of weighted terms. `bag`: the plain bag of words (the reference).
            max_query_terms: Most distinct terms of a query, at most 512.
            drop_near_duplicates: With `mentions`, choose no passage that nearly repeats the sentence (it would seem to
                cover all of it) or a chosen one. Such passages follow the chosen ones, for the record.
            num_threads: Queries in flight.

        Raises:
            FileNotFoundError, ValueError: See `read_manifest`; or an argument is out of range.
        """
        if query_mode not in get_args(QueryMode):
            raise ValueError(f"query_mode is {query_mode!r}; wanted one of {', '.join(get_args(QueryMode))}")
        if not 1 <= max_query_terms <= MAX_QUERY_TERMS:
            raise ValueError(f"max_query_terms is {max_query_terms}; wanted 1 to {MAX_QUERY_TERMS}")
        if num_threads < 1:
            raise ValueError(f"num_threads is {num_threads}; wanted at least 1")
        self.manifest = read_manifest(folder)
        self._query_mode = query_mode
        self._drop_near_duplicates = drop_near_duplicates
        self._max_query_terms = max_query_terms
        self._num_threads = num_threads
        self._analyzer = analyzer_for(self.manifest.language)
        self._stop_words = ENGLISH_STOP_WORDS if self.manifest.language == "en" else frozenset[str]()
        self._reader, self._searcher = _open_searcher(self.manifest.shard_folders(folder), k1, b)
        self._query_builder = java_class("org.apache.lucene.util.QueryBuilder")(self._analyzer)
        self.document_frequency = lru_cache(maxsize=1 << 17)(self._document_frequency)
        self._look_up = lru_cache(maxsize=1 << 17)(self._search_run)

    @property
    def num_documents(self) -> int:
        """Passages in the index."""
        return self.manifest.num_documents

    def search(
        self,
        sentences: Sequence[Sentence],
        *,
        depth: int,
        predicted: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    ) -> list[SearchResult]:
        """The best `depth` passages of every sentence, in the sentences' order.

        A sentence whose search fails gets an `error` and a logged warning, and leaves the others alone.

        Args:
            sentences: Their words are searched for; tags are not looked at.
            depth: Passages a sentence, at most.
            predicted: By sentence id, the first word and one past the last of each mention that a tagger found;
                `mentions` covers them first.
        """
        if depth < 1:
            raise ValueError(f"depth is {depth}; wanted at least 1")
        spans = predicted or {}
        chunks = [sentences[start :: self._num_threads] for start in range(self._num_threads)]
        if len(sentences) <= 1 or self._num_threads == 1:
            found = [self._search_one(sentence, depth, spans) for sentence in sentences]
        else:
            with ThreadPoolExecutor(self._num_threads) as pool:
                parts = list(pool.map(lambda chunk: self._search_in_thread(chunk, depth, spans), chunks))
            found = [parts[n % self._num_threads][n // self._num_threads] for n in range(len(sentences))]
        passages = self._fetch({doc for own in found for doc in own.docs()})
        return [self._result(*pair, passages, depth) for pair in zip(sentences, found, strict=True)]

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

    def _search_in_thread(self, sentences: Sequence[Sentence], depth: int, predicted: _Predicted) -> list[_Found]:
        import jnius

        try:
            return [self._search_one(sentence, depth, predicted) for sentence in sentences]
        finally:
            jnius.detach()

    def _search_one(self, sentence: Sentence, depth: int, predicted: _Predicted) -> _Found:
        from jnius import JavaException

        query = self.query_text(sentence.words)
        if not query:
            return _Found(query)
        try:
            if self._query_mode != "mentions":
                return _Found(query, self._top(self._parse(query), depth))
            mentions = self._mentions(sentence, predicted.get(sentence.id, ()))
            looked_up = {mention: self._look_up(mention) for mention in mentions}
            return _Found(query, self._top(self._parse(query), max(depth, _POOL)), mentions, looked_up)
        except JavaException as error:
            _log.warning("sentence %r: search failed (%s); it gets no passages", sentence.id, error)
            return _Found(query, error=f"{type(error).__name__}: {error}")

    def _top(self, query: Any, depth: int) -> _Hits:
        return tuple((hit.doc, hit.score) for hit in self._searcher.search(query, depth).scoreDocs)

    def _mentions(self, sentence: Sentence, predicted: Sequence[tuple[int, int]]) -> dict[Tokens, float]:
        return candidate_mentions(
            [clean_text(word[:MAX_WORD_LENGTH]) for word in sentence.words[:MAX_QUERY_TERMS]],
            document_frequency=self.document_frequency,
            num_documents=self.num_documents,
            occurs=lambda mention: bool(self._look_up(mention)),
            stop_words=self._stop_words,
            predicted=predicted,
        )

    def _search_run(self, mention: Tokens) -> _Hits:
        """The best few passages with these tokens side by side, as far as the analyzer keeps them."""
        query = self._query_builder.createPhraseQuery(_FIELD, " ".join(mention))
        return self._top(query, _PER_MENTION) if query is not None else ()

    def _result(self, sentence: Sentence, found: _Found, passages: Mapping[int, Passage], depth: int) -> SearchResult:
        """The hits of one sentence: by score, or chosen to cover its mentions."""
        if self._query_mode != "mentions" or found.error is not None:
            ordered = sorted(found.hits, key=lambda hit: (-hit[1], passages[hit[0]].id))
            return SearchResult(found.query, _ranked(ordered, passages), found.error)
        scores, own = dict(found.hits), {doc: passages[doc] for doc in found.docs()}
        chosen, repeats = self._chosen(sentence, found, own, scores, depth)
        for hits in found.looked_up.values():
            for doc, score in hits:
                scores.setdefault(doc, score)
        return SearchResult(found.query, _ranked([(doc, scores[doc]) for doc in (*chosen, *repeats)], passages))

    def _chosen(
        self, sentence: Sentence, found: _Found, own: Mapping[int, Passage], scores: Mapping[int, float], depth: int
    ) -> tuple[list[int], list[int]]:
        """The passages chosen, and those that would have been did they not repeat the sentence or a better one."""
        if not self._drop_near_duplicates:
            return choose(found.mentions, own, scores, depth=depth), []
        runs = {doc: character_runs(passage.text) for doc, passage in own.items()}
        sentence_runs = character_runs(clean_text(" ".join(sentence.words)))
        repeats = [doc for doc, _ in found.hits[:depth] if repeats_sentence(runs[doc], sentence_runs)]
        fresh = {doc: passage for doc, passage in own.items() if not repeats_sentence(runs[doc], sentence_runs)}
        chosen: list[int] = []
        for doc in choose(found.mentions, fresh, scores, depth=depth + _SPARE):
            if len(chosen) < depth:
                copies = any(is_near_duplicate(runs[doc], runs[better]) for better in chosen)
                (repeats if copies else chosen).append(doc)
        return chosen, repeats

    def _parse(self, query: str) -> Any:
        if self._query_mode == "bag":
            generator = java_class("io.anserini.search.query.BagOfWordsQueryGenerator")()
            return generator.buildQuery(_FIELD, self._analyzer, query)
        parser = java_class("org.apache.lucene.queryparser.classic.QueryParser")(_FIELD, self._analyzer)
        return parser.parse(query)

    def _fetch(self, docs: Iterable[int]) -> dict[int, Passage]:
        stored = self._reader.storedFields()
        return {doc: stored_passage(stored.document(doc).get("raw")) for doc in sorted(docs)}


def _open_searcher(shards: Sequence[Path], k1: float, b: float) -> tuple[Any, IdOrderedSearcher]:
    reader = open_reader(shards)
    searcher = java_class("org.apache.lucene.search.IndexSearcher")(reader)
    searcher.setMaxClauseCount(MAX_QUERY_TERMS * MAX_WORD_LENGTH)  # an analyzer may split a word at every letter
    searcher.setSimilarity(java_class("org.apache.lucene.search.similarities.BM25Similarity")(k1, b))
    return reader, IdOrderedSearcher(searcher)


def _ranked(hits: Sequence[tuple[int, float]], passages: Mapping[int, Passage]) -> tuple[ScoredPassage, ...]:
    return tuple(ScoredPassage(passages[doc], score, rank) for rank, (doc, score) in enumerate(hits, 1))
