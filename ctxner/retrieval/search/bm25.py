"""Searching passages for sentences: entries by name and texts by BM25, in an index of `ctxner.retrieval.index.build`.

Sentences are searched together: their lookups go to Lucene in a few batches (`ctxner.retrieval.lucene.lookups`), and
equal ones only once. A query that fails affects no other sentence.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import get_args

from ctxner.retrieval.index.names import Names
from ctxner.retrieval.index.versions import read_manifest
from ctxner.retrieval.lucene.lookups import Hits, Lookups, QueryKind
from ctxner.retrieval.lucene.reader import open_reader
from ctxner.retrieval.lucene.shard_writer import analyzer_for
from ctxner.retrieval.near_duplicates import Runs, character_runs, is_near_duplicate, repeats_sentence
from ctxner.retrieval.search.analyzed import AnalyzedSentences
from ctxner.retrieval.search.links import Linker, named_entries
from ctxner.retrieval.search.mentions import (
    CandidateSearch,
    ComparedWords,
    Tokens,
    candidate_mentions,
    choose,
    compared_words,
)
from ctxner.retrieval.search.query import (
    ENGLISH_STOP_WORDS,
    MAX_QUERY_TERMS,
    MAX_WORD_LENGTH,
    QueryMode,
    bag_of_words,
    searchable_terms,
    weighted_query,
)
from ctxner.retrieval.text import clean_text, normalised_words
from ctxner.schema import Passage, ScoredPassage, Sentence

_log = logging.getLogger(__name__)
_PER_MENTION = 3  # passages looked up for a candidate mention
_PER_NAME = 8  # entries of one name to choose from
_SPARE = 4  # passages chosen beyond those wanted, in place of near copies
_POOL = 20  # passages of the weighted query to choose from
# In the mode `entries`, least weight of the mentions that a text must add. On WNUT-17's dev set (social-wiki-news) 0.7
# halves the texts shown and costs 2 of 74 points of coverage.
_LEAST_GAIN = 0.7
_SMALL_CORPUS = 1000  # passages below which every text that covers a mention is taken: no word is rare there
_CACHED = 1 << 17  # terms and mentions whose answers are cached for later sentences


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Query and hits of a sentence.

    Attributes:
        query: Query that Lucene ran; empty when the sentence has nothing to search for.
        hits: Passages, in the order of score and then id; in the query mode `mentions`, in the order of choice.
        error: Reason why the search failed, or None. A failed sentence has no hits.
    """

    query: str
    hits: tuple[ScoredPassage, ...] = ()
    error: str | None = None


_Spans = Sequence[tuple[int, int]]  # first word, and one past the last


@dataclass(frozen=True, slots=True)
class _Answers:
    """Lucene's answers for a sentence, before any passage is read."""

    query: str
    hits: Hits = ()
    mentions: Mapping[Tokens, float] = field(default_factory=dict)
    looked_up: Sequence[Hits] = ()
    error: str | None = None

    def docs(self) -> set[int]:
        return {doc for hits in (self.hits, *self.looked_up) for doc, _ in hits}


class _Read:
    """A passage of a batch of sentences, and what is compared of it; each computed once per batch."""

    def __init__(self, passage: Passage):
        self.passage = passage

    @cached_property
    def words(self) -> ComparedWords:
        return compared_words(self.passage)

    @cached_property
    def runs(self) -> Runs:
        return character_runs(self.passage.text)


class BM25Searcher:
    """An open index. Starts the JVM; build one in each process that searches, never before a fork or `ray.init()`.

    The searcher keeps the version that it opened. To search a later one, open a new searcher.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        k1: float = 0.9,
        b: float = 0.4,
        query_mode: QueryMode = "entries",
        max_query_terms: int = 64,
        max_entries: int = 12,
        drop_near_duplicates: bool = True,
        num_threads: int = 2,
    ):
        """Open the index in `folder`.

        Args:
            folder: Index folder that `build_index` wrote.
            k1: BM25's saturation of repeated words; the defaults are Anserini's, which suit short passages.
            b: BM25's length normalisation.
            query_mode: Way of searching. `entries` takes the entries that the sentence names, then searches the texts
                as `mentions` for what is left; `mentions` looks up every candidate mention and chooses the passages
                that cover most of them, `weighted` runs one query of weighted terms, `bag` runs a bag of words
                (baseline).
            max_query_terms: Most distinct terms per query, at most 512.
            max_entries: Most entries per sentence.
            drop_near_duplicates: Whether `mentions` skips passages that nearly repeat a chosen one or the sentence
                (such a passage would seem to cover every mention). They follow the chosen ones, for the record.
            num_threads: Number of queries that run at once.

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
        if self.manifest.is_asked_by_other_rules:
            _log.warning(
                "%s: a former release indexed its text by other rules than queries follow now, so passages are missed; "
                "build it again with `ctxner index`",
                folder,
            )
        self._query_mode, self._max_entries = query_mode, max_entries
        self._by_mention = query_mode in ("entries", "mentions")
        self._drop_near_duplicates = drop_near_duplicates
        self._max_query_terms = max_query_terms
        self._stop_words = ENGLISH_STOP_WORDS if self.manifest.language == "en" else frozenset[str]()
        self._reader = open_reader(self.manifest.shard_folders(folder))
        if self._reader.numDocs() != self.manifest.num_documents:
            raise ValueError(
                f"{folder}: {self.manifest.num_documents} passages by manifest.json, but {self._reader.numDocs()} in "
                "Lucene's files; build the index again"
            )
        self._lookups = Lookups(
            self._reader,
            analyzer_for(self.manifest.language),
            k1=k1,
            b=b,
            max_clauses=MAX_QUERY_TERMS * MAX_WORD_LENGTH,  # an analyzer may split a word at every letter
            num_threads=num_threads,
            texts_only=query_mode == "entries",
        )
        self._first_documents = [0, *accumulate(self.manifest.shard_documents)]  # of each shard
        if query_mode == "entries":
            self._names = Names(Path(folder, self.manifest.version))
            self._linker = Linker(self._names, language=self.manifest.language, stop_words=self._stop_words)
        self._analyzed = None
        if self.manifest.language != "en":
            self._analyzed = AnalyzedSentences(
                self._lookups, language=self.manifest.language, num_documents=self.num_documents
            )
        self._frequencies: dict[str, int] = {}
        self._phrases: dict[Tokens, Hits | str] = {}

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

        A sentence whose search fails gets an `error` and a logged warning, and leaves the others alone. In the mode
        `entries`, more than `depth` entries may be named; they leave no room for texts then.

        Args:
            sentences: Sentences whose words are searched for; tags are ignored.
            depth: Most passages per sentence.
            predicted: Mentions that a tagger predicted, by sentence id: first word, and one past the last.
                `mentions` covers them first.
        """
        if depth < 1:
            raise ValueError(f"depth is {depth}; wanted at least 1")
        if self._query_mode != "entries":
            return self._searched(sentences, [depth] * len(sentences), predicted or {})
        entries = self._entries(sentences)
        asked = [n for n, named in enumerate(entries) if len(named) < depth] if self.manifest.num_texts else []
        rooms = [depth - len(entries[n]) for n in asked]
        results = self._searched([sentences[n] for n in asked], rooms, predicted or {})
        texts = dict(zip(asked, results, strict=True))
        return [_joined(named, texts.get(n, SearchResult(""))) for n, named in enumerate(entries)]

    def query_text(self, words: Sequence[str]) -> str:
        """The query that a sentence of these words is searched with."""
        if self._query_mode == "bag":
            return bag_of_words(words, max_terms=self._max_query_terms)
        if self._analyzed:
            return self._analyzed.query(_searched_words(words), max_terms=self._max_query_terms)
        return weighted_query(
            words,
            self.document_frequency,
            self.num_documents,
            max_terms=self._max_query_terms,
            stop_words=self._stop_words,
        )

    def document_frequency(self, term: str) -> int:
        """Number of passages with the term after analysis; if the analyzer splits it, that of the rarest part."""
        if term not in self._frequencies:
            self._count([term])
        return self._frequencies[term]

    def close(self) -> None:
        """Release the index's files."""
        self._lookups.close()
        self._reader.close()

    def _entries(self, sentences: Sequence[Sentence]) -> list[list[ScoredPassage]]:
        """The entries that each sentence names, in the order of its words."""
        links = self._linker.link(sentences)
        rows = {link.row for sentence_links in links for link in sentence_links}
        documents = {
            row: [self._first_documents[shard] + number for shard, number in self._names.entries(row, _PER_NAME)]
            for row in rows
        }
        passages = self._lookups.passages({doc for docs in documents.values() for doc in docs})
        return [
            named_entries(
                sentence,
                sentence_links,
                {link.row: [passages[doc] for doc in documents[link.row]] for link in sentence_links},
                most=self._max_entries,
            )
            for sentence, sentence_links in zip(sentences, links, strict=True)
        ]

    def _searched(
        self, sentences: Sequence[Sentence], depths: Sequence[int], predicted: Mapping[str, _Spans]
    ) -> list[SearchResult]:
        """The best passages of every sentence by BM25, for each sentence as many as `depths` says."""
        answers = self._ask(sentences, max(depths, default=1), predicted)
        docs = {doc for sentence_answers in answers for doc in sentence_answers.docs()}
        passages = self._lookups.passages(docs)
        read = {doc: _Read(passage) for doc, passage in passages.items()}
        if self._analyzed and self._by_mention:
            for doc, words in self._analyzed.compared_words(passages).items():
                read[doc].words = words
        return [
            self._result(sentence, answer, read, depth)
            for sentence, answer, depth in zip(sentences, answers, depths, strict=True)
        ]

    def _ask(self, sentences: Sequence[Sentence], depth: int, predicted: Mapping[str, _Spans]) -> list[_Answers]:
        """All lookups but those of the passages' texts."""
        if len(self._frequencies) > _CACHED:
            self._frequencies.clear()
        if len(self._phrases) > _CACHED:
            self._phrases.clear()
        if self._query_mode != "bag" and self._analyzed:
            self._analyzed.prepare(_searched_words(sentence.words) for sentence in sentences)
        elif self._query_mode != "bag":
            self._count(term for sentence in sentences for term in self._terms(sentence))
        queries = [self.query_text(sentence.words) for sentence in sentences]
        kind: QueryKind = "bag" if self._query_mode == "bag" else "terms" if self._analyzed else "weighted"
        pool = max(depth, _POOL) if self._by_mention else depth
        distinct = [query for query in dict.fromkeys(queries) if query]
        answers = dict(zip(distinct, self._lookups.search(kind, distinct, pool), strict=True))
        searches = [
            self._candidates(sentence, predicted.get(sentence.id, ())) if query and self._by_mention else None
            for sentence, query in zip(sentences, queries, strict=True)
        ]
        return [
            self._answers(sentence, query, answers.get(query, ()), mentions)
            for sentence, query, mentions in zip(sentences, queries, self._looked_up(searches), strict=True)
        ]

    def _answers(self, sentence: Sentence, query: str, hits: Hits | str, mentions: Mapping[Tokens, float]) -> _Answers:
        looked_up: list[Hits] = []
        for answer in (hits, *(self._phrases[mention] for mention in mentions)):
            if isinstance(answer, str):
                _log.warning("sentence %r: search failed (%s); it gets no passages", sentence.id, answer)
                return _Answers(query, error=answer)
            looked_up.append(answer)
        return _Answers(query, looked_up[0], mentions, looked_up[1:])

    def _count(self, terms: Iterable[str]) -> None:
        """Look up the document frequencies of terms that are not cached."""
        unknown = [term for term in dict.fromkeys(terms) if term not in self._frequencies]
        analyzed = self._lookups.analyze(unknown)
        tokens = list(dict.fromkeys(chain.from_iterable(analyzed)))
        frequencies = dict(zip(tokens, self._lookups.document_frequencies(tokens), strict=True))
        for term, term_tokens in zip(unknown, analyzed, strict=True):
            self._frequencies[term] = min((frequencies[token] for token in term_tokens), default=0)

    def _terms(self, sentence: Sentence) -> Iterator[str]:
        """The terms whose document frequencies are needed."""
        yield from (term for term, _ in searchable_terms(sentence.words, self._stop_words))
        if self._by_mention:
            yield from (token for word in _searched_words(sentence.words) for token in normalised_words(word))

    def _candidates(self, sentence: Sentence, predicted: _Spans) -> CandidateSearch:
        if self._analyzed:
            return self._analyzed.candidates(_searched_words(sentence.words), predicted)
        return candidate_mentions(
            _searched_words(sentence.words),
            document_frequency=self.document_frequency,
            num_documents=self.num_documents,
            stop_words=self._stop_words,
            predicted=predicted,
        )

    def _looked_up(self, searches: Sequence[CandidateSearch | None]) -> list[dict[Tokens, float]]:
        """The candidate mentions of every sentence, after looking all of them up."""
        mentions: list[dict[Tokens, float]] = [{} for _ in searches]
        running = {n: search for n, search in enumerate(searches) if search}
        asked: dict[int, list[Tokens]] = {}
        while running:
            for n, search in list(running.items()):
                try:
                    asked[n] = search.send(self._occurs) if n in asked else next(search)
                except StopIteration as end:
                    mentions[n] = end.value
                    del running[n]
            self._look_up(run for n in running for run in asked[n])
        self._look_up(chain.from_iterable(mentions))
        return mentions

    def _occurs(self, mention: Tokens) -> bool:
        return bool(self._phrases[mention])

    def _look_up(self, mentions: Iterable[Tokens]) -> None:
        """Look up, for each mention, the best few passages in which its tokens are adjacent after analysis."""
        unknown = [mention for mention in dict.fromkeys(mentions) if mention not in self._phrases]
        surface = self._analyzed.surface if self._analyzed else " ".join
        answers = self._lookups.search("phrase", list(map(surface, unknown)), _PER_MENTION)
        self._phrases.update(zip(unknown, answers, strict=True))

    def _result(self, sentence: Sentence, answers: _Answers, read: Mapping[int, _Read], depth: int) -> SearchResult:
        """The hits of one sentence: by score, or chosen to cover its mentions."""
        scores = dict(answers.hits)
        order = sorted(answers.docs(), key=lambda doc: (-scores.get(doc, 0.0), read[doc].passage.id))
        if self._by_mention:
            order = self._chosen(sentence, answers, {doc: read[doc] for doc in order}, depth)
        for hits in answers.looked_up:
            for doc, score in hits:
                scores.setdefault(doc, score)
        ranked = tuple(ScoredPassage(read[doc].passage, scores[doc], rank) for rank, doc in enumerate(order, 1))
        return SearchResult(answers.query, ranked, answers.error)

    def _chosen(self, sentence: Sentence, answers: _Answers, read: Mapping[int, _Read], depth: int) -> list[int]:
        """The chosen passages, then those that were skipped because they repeat the sentence or a better passage."""
        texts = {doc: passage.words for doc, passage in read.items()}
        is_choosy = self._query_mode == "entries" and self.num_documents >= _SMALL_CORPUS
        least = _LEAST_GAIN if is_choosy else 0.0
        holders = None
        if self._analyzed:  # base forms of a word may hide in `texts` that the phrase holds the mention
            looked_up = zip(answers.mentions, answers.looked_up, strict=True)
            holders = {mention: {doc for doc, _ in hits} for mention, hits in looked_up}
        covering = partial(choose, answers.mentions, texts, least_gain=least, holders=holders)
        if not self._drop_near_duplicates:
            return list(islice(covering(lambda _: False), depth))
        sentence_runs = character_runs(clean_text(" ".join(sentence.words)))

        def repeats(doc: int) -> bool:
            return repeats_sentence(read[doc].runs, sentence_runs)

        chosen: list[int] = []
        copies: list[int] = []
        for doc in islice(covering(repeats), depth + _SPARE):
            if len(chosen) == depth:
                break
            is_copy = any(is_near_duplicate(read[doc].runs, read[better].runs) for better in chosen)
            (copies if is_copy else chosen).append(doc)
        return [*chosen, *(doc for doc, _ in answers.hits[:depth] if repeats(doc)), *copies]


def _joined(entries: Sequence[ScoredPassage], texts: SearchResult) -> SearchResult:
    """Entries, then the texts found besides; ranked in this order."""
    ids = {entry.passage.id for entry in entries}
    others = [hit for hit in texts.hits if hit.passage.id not in ids]
    hits = tuple(replace(hit, bm25_rank=rank) for rank, hit in enumerate((*entries, *others), 1))
    return replace(texts, hits=hits)


def _searched_words(words: Sequence[str]) -> list[str]:
    return [clean_text(word[:MAX_WORD_LENGTH]) for word in words[:MAX_QUERY_TERMS]]
