"""Searching passages for sentences: entries by name and texts by BM25, in an index of `ctxner.retrieval.index.build`.

Sentences are searched together: their lookups go to Lucene in a few batches (`ctxner.retrieval.lucene.lookups`), and
equal ones only once. A query that fails affects no other sentence.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from pathlib import Path
from typing import get_args

from ctxner.retrieval.index.names import Names
from ctxner.retrieval.index.versions import read_manifest
from ctxner.retrieval.lucene.lookups import Hits, Lookups, QueryKind
from ctxner.retrieval.lucene.reader import open_reader
from ctxner.retrieval.lucene.shard_writer import analyzer_for
from ctxner.retrieval.search.analyzed import AnalyzedSentences
from ctxner.retrieval.search.choice import Answers, ReadPassage, chosen, least_gain_of
from ctxner.retrieval.search.english import EnglishSentences
from ctxner.retrieval.search.links import Linker, named_entries
from ctxner.retrieval.search.mentions import CandidateSearch, Tokens
from ctxner.retrieval.search.query import (
    ENGLISH_STOP_WORDS,
    MAX_QUERY_TERMS,
    MAX_WORD_LENGTH,
    QueryMode,
    bag_of_words,
)
from ctxner.schema import ScoredPassage, Sentence

_log = logging.getLogger(__name__)
_PER_MENTION = 3  # passages looked up for a candidate mention
_PER_NAME = 8  # entries of one name to choose from
_POOL = 20  # passages of the weighted query to choose from
_CACHED = 1 << 17  # mentions whose answers are cached for later sentences


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
            stop_words = ENGLISH_STOP_WORDS if self._is_english else frozenset[str]()
            self._linker = Linker(self._names, language=self.manifest.language, stop_words=stop_words)
        self._words: EnglishSentences | AnalyzedSentences
        if self._is_english:
            self._words = EnglishSentences(self._lookups, num_documents=self.num_documents, by_mention=self._by_mention)
        else:
            self._words = AnalyzedSentences(
                self._lookups, language=self.manifest.language, num_documents=self.num_documents
            )
        self._phrases: dict[Tokens, Hits | str] = {}

    @property
    def _is_english(self) -> bool:
        return self.manifest.language == "en"

    @property
    def num_documents(self) -> int:
        """Passages in the index."""
        return self.manifest.num_documents

    def search(
        self,
        sentences: Sequence[Sentence],
        *,
        depth: int,
        predicted: Mapping[str, _Spans] | None = None,
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
        return self._words.query(words, max_terms=self._max_query_terms)

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
        words = self._words.compared_words(passages) if self._by_mention else {}
        read = {doc: ReadPassage(passage, words.get(doc)) for doc, passage in passages.items()}
        return [
            self._result(sentence, answer, read, depth)
            for sentence, answer, depth in zip(sentences, answers, depths, strict=True)
        ]

    def _ask(self, sentences: Sequence[Sentence], depth: int, predicted: Mapping[str, _Spans]) -> list[Answers]:
        """All lookups but those of the passages' texts."""
        if len(self._phrases) > _CACHED:
            self._phrases.clear()
        if self._query_mode != "bag":
            self._words.prepare(sentence.words for sentence in sentences)
        queries = [self.query_text(sentence.words) for sentence in sentences]
        kind: QueryKind = "bag" if self._query_mode == "bag" else "weighted" if self._is_english else "terms"
        pool = max(depth, _POOL) if self._by_mention else depth
        distinct = [query for query in dict.fromkeys(queries) if query]
        answers = dict(zip(distinct, self._lookups.search(kind, distinct, pool), strict=True))
        searches = [
            self._words.candidates(sentence.words, predicted.get(sentence.id, ()))
            if query and self._by_mention
            else None
            for sentence, query in zip(sentences, queries, strict=True)
        ]
        return [
            self._answers(sentence, query, answers.get(query, ()), mentions)
            for sentence, query, mentions in zip(sentences, queries, self._looked_up(searches), strict=True)
        ]

    def _answers(self, sentence: Sentence, query: str, hits: Hits | str, mentions: Mapping[Tokens, float]) -> Answers:
        looked_up: list[Hits] = []
        for answer in (hits, *(self._phrases[mention] for mention in mentions)):
            if isinstance(answer, str):
                _log.warning("sentence %r: search failed (%s); it gets no passages", sentence.id, answer)
                return Answers(query, error=answer)
            looked_up.append(answer)
        return Answers(query, looked_up[0], mentions, looked_up[1:])

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
        answers = self._lookups.search("phrase", list(map(self._words.surface, unknown)), _PER_MENTION)
        self._phrases.update(zip(unknown, answers, strict=True))

    def _result(
        self, sentence: Sentence, answers: Answers, read: Mapping[int, ReadPassage], depth: int
    ) -> SearchResult:
        """The hits of one sentence: by score, or chosen to cover its mentions."""
        if self._by_mention:
            order = chosen(
                sentence,
                answers,
                read,
                depth,
                least_gain=least_gain_of(self.num_documents) if self._query_mode == "entries" else 0.0,
                by_holders=not self._is_english,
                drop_near_duplicates=self._drop_near_duplicates,
            )
        else:
            order = answers.by_score(read)
        scores = answers.scores()
        ranked = tuple(ScoredPassage(read[doc].passage, scores[doc], rank) for rank, doc in enumerate(order, 1))
        return SearchResult(answers.query, ranked, answers.error)


def _joined(entries: Sequence[ScoredPassage], texts: SearchResult) -> SearchResult:
    """Entries, then the texts found besides; ranked in this order."""
    ids = {entry.passage.id for entry in entries}
    others = [hit for hit in texts.hits if hit.passage.id not in ids]
    hits = tuple(replace(hit, bm25_rank=rank) for rank, hit in enumerate((*entries, *others), 1))
    return replace(texts, hits=hits)
