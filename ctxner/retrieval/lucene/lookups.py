"""Batches of lookups in an open index: a batch crosses to Java as one string, and its answers come back as one.

Searches run in parallel in Java's threads, without Python's lock. `ctxner.retrieval.search.bm25` decides what to look
up and what to make of the answers.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from ctxner.retrieval.lucene.documents import CONTENTS, ID, KIND, TEXT, raw_reader, stored_passage
from ctxner.retrieval.lucene.jvm import java_class
from ctxner.retrieval.lucene.method_handles import (
    STRING,
    as_interface,
    as_type,
    bound,
    chain,
    characters,
    constructor,
    for_each,
    getter,
    handles,
    java_type,
    method,
    static_method,
)
from ctxner.schema import Passage

Hits = tuple[tuple[int, float], ...]  # (Lucene's document number, score), best first
QueryKind = Literal["bag", "weighted", "terms", "phrase"]

_SEPARATOR = "\x1e"  # in no question: control characters are replaced before
_TOKEN_END = "\x1f"  # noqa: S105 - a token of text
_FAILED = "!"  # first character of an answer that is an error
_HIT = re.compile(r"doc=(\d+) score=(\S+)")
_PARTS_PER_THREAD = 4  # parts of a batch, so that threads do not wait for one slow part
_MIN_PART = 16  # questions that are worth another thread
_OBJECT = "java.lang.Object"
_THROWABLE = "java.lang.Throwable"
_SEARCH = "org.apache.lucene.search."
_QUERY = _SEARCH + "Query"
_TOP = _SEARCH + "TopDocs"
_TERM = "org.apache.lucene.index.Term"
_ANALYZER = "org.apache.lucene.analysis.Analyzer"
_STREAM = "org.apache.lucene.analysis.TokenStream"


class Token(NamedTuple):
    """A token of an analyzed text.

    Attributes:
        term: What is looked up in the index.
        start: Its first character in the text.
        end: One past its last character.
    """

    term: str
    start: int
    end: int


class Lookups:
    """Batches of lookups in one index."""

    def __init__(
        self,
        reader: Any,
        analyzer: Any,
        *,
        k1: float,
        b: float,
        max_clauses: int,
        num_threads: int,
        texts_only: bool = False,
    ):
        """Prepare the searches.

        Args:
            reader: Open index (see `open_reader`).
            analyzer: Analyzer that the index was written with.
            k1: BM25's saturation of repeated words.
            b: BM25's length normalisation.
            max_clauses: Most terms per query.
            num_threads: Number of Java threads that search.
            texts_only: Whether searches pass over entries that say no more than their names.
        """
        import jnius

        self._reader = reader
        self._analyzer = jnius.cast(_ANALYZER, analyzer)
        searcher = java_class(_SEARCH + "IndexSearcher")(reader)
        searcher.setMaxClauseCount(max_clauses)
        searcher.setSimilarity(java_class(_SEARCH + "similarities.BM25Similarity")(k1, b))
        self._searcher = jnius.cast(_OBJECT, searcher)
        self._num_threads, self._texts_only = num_threads, texts_only
        self._pool = java_class("java.util.concurrent.ForkJoinPool")(num_threads)  # its threads end with the process
        self._analysis = _batched(self._analyze())
        self._tokens = _batched(self._tokens_of())
        self._frequencies = _batched(self._document_frequency())
        self._stored = _batched(self._raw_passage())
        self._searches = cache(self._search)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def analyze(self, texts: Sequence[str]) -> list[list[str]]:
        """The analyzer's tokens of each text."""
        return [answer.split(_TOKEN_END) if answer else [] for answer in self._ask(self._analysis, texts)]

    def tokens(self, texts: Sequence[str]) -> list[list[Token]]:
        """The analyzer's tokens of each text with their places, in the order of the text."""
        return [_tokens(text, answer) for text, answer in zip(texts, self._ask(self._tokens, texts), strict=True)]

    def document_frequencies(self, tokens: Sequence[str]) -> list[int]:
        """Number of passages with each of the analyzer's tokens."""
        return list(map(int, self._ask(self._frequencies, tokens)))

    def search(self, kind: QueryKind, queries: Sequence[str], depth: int) -> list[Hits | str]:
        """The best `depth` documents for each query, or why the query failed.

        Hits with equal scores are in any order. Which of them are among the best is decided by their ids, so that hits
        do not depend on where in a shard a document lies.

        Args:
            kind: Syntax of the queries. `bag`: words, each counted once; `weighted`: Lucene's classic query syntax;
                `terms`: the same, of terms that are not analyzed again; `phrase`: words that must be adjacent, after
                analysis.
            queries: Queries without control characters.
            depth: Most hits per query.
        """
        answers = self._ask(self._searches(kind, depth + 1, by_id=False), queries)
        results = [_hits(answer) for answer in answers]
        ties = []
        for n, hits in enumerate(results):
            if len(hits) > depth and not isinstance(hits, str):
                if hits[depth - 1][1] == hits[depth][1]:
                    ties.append(n)
                results[n] = hits[:depth]
        answers = self._ask(self._searches(kind, depth, by_id=True), [queries[n] for n in ties])
        for n, answer in zip(ties, answers, strict=True):
            results[n] = _hits(answer)
        return results

    def passages(self, docs: Iterable[int]) -> dict[int, Passage]:
        """The passages with Lucene's document numbers `docs`, read in the order of the numbers."""
        numbers = sorted(docs)
        raws = self._ask(self._stored, list(map(str, numbers)))
        return {doc: stored_passage(raw) for doc, raw in zip(numbers, raws, strict=True)}

    def _ask(self, function: Any, questions: Sequence[str]) -> list[str]:
        """Each question's answer; a small batch is answered in this thread, a large one in the pool's."""
        if not questions:
            return []
        num_parts = min(self._num_threads * _PARTS_PER_THREAD, len(questions) // _MIN_PART)
        if self._num_threads == 1 or num_parts <= 1:
            parts = [function.apply(_java_text(questions))]
        else:
            bounds = [len(questions) * n // num_parts for n in range(num_parts + 1)]
            texts = [_java_text(questions[start:end]) for start, end in pairwise(bounds)]
            given = java_class("java.util.concurrent.CompletableFuture").completedFuture
            running = [given(text).thenApplyAsync(function, self._pool).toCompletableFuture() for text in texts]
            parts = [part.join() for part in running]
        answers = _SEPARATOR.join(parts).split(_SEPARATOR)
        assert len(answers) == len(questions)
        return answers

    def _raw_passage(self) -> Any:
        """Number in digits -> stored passage."""
        return chain(static_method("java.lang.Integer", "parseInt", "int", STRING), raw_reader(self._reader))

    def _analyze(self) -> Any:
        """Text -> its tokens."""
        analyze = static_method("io.anserini.analysis.AnalyzerUtils", "analyze", "java.util.List", _ANALYZER, STRING)
        join = static_method(STRING, "join", STRING, "java.lang.CharSequence", "java.lang.Iterable")
        join = as_type(bound(join, 0, characters(_TOKEN_END)), STRING, "java.util.List")
        return chain(bound(analyze, 0, self._analyzer), join)

    def _tokens_of(self) -> Any:
        """Text -> start, end and term of each of its tokens."""
        builder = "java.lang.StringBuilder"
        fill = handles().dropArguments(handles().identity(java_type(builder)), 1, java_type(_STREAM))
        for part in (_attribute("CharTerm"), _attribute("Offset", "endOffset"), _attribute("Offset", "startOffset")):
            ended = chain(part, bound(method(STRING, "concat", STRING, STRING), 1, _TOKEN_END))
            append = handles().filterArguments(method(builder, "append", builder, STRING), 1, ended)
            fill = handles().foldArguments(fill, as_type(append, "void", builder, _STREAM))  # the last is added first
        goes_on = handles().dropArguments(method(_STREAM, "incrementToken", "boolean"), 0, java_type(builder))
        none_yet = handles().dropArguments(constructor(builder), 0, java_type(_STREAM))
        close = handles().dropArguments(handles().identity(java_type(builder)), 0, java_type(_THROWABLE))
        close = handles().dropArguments(close, 2, java_type(_STREAM))
        close = handles().foldArguments(close, 2, method(_STREAM, "close", "void"))
        tokens = handles().tryFinally(handles().whileLoop(none_yet, goes_on, fill), close)
        tokens = handles().foldArguments(tokens, method(_STREAM, "reset", "void"))
        stream = bound(method(_ANALYZER, "tokenStream", _STREAM, STRING, STRING), 0, self._analyzer, CONTENTS)
        return chain(stream, tokens, method(builder, "toString", STRING))

    def _document_frequency(self) -> Any:
        """Token -> number of passages with it, in digits."""
        term = bound(constructor(_TERM, STRING, STRING), 0, CONTENTS)
        reader = bound(method("org.apache.lucene.index.IndexReader", "docFreq", "int", _TERM), 0, self._reader)
        return chain(term, reader, static_method("java.lang.Integer", "toString", STRING, "int"))

    def _search(self, kind: QueryKind, depth: int, *, by_id: bool) -> Any:
        """Query -> hits as Java prints them, or an error; '' for a query that is empty after analysis."""
        search = method(_SEARCH + "IndexSearcher", "search", _TOP, _QUERY, "int").bindTo(self._searcher)
        search = self._ordered_search(depth) if by_id else bound(search, 1, _integer(depth))
        documents = as_type(getter(_TOP, "scoreDocs", f"[{_SEARCH}ScoreDoc"), f"[{_OBJECT}", _TOP)
        search = chain(self._of_texts(), search) if self._texts_only else search
        hits = chain(search, documents, static_method("java.util.Arrays", "toString", STRING, f"[{_OBJECT}"))
        is_null = as_type(static_method("java.util.Objects", "isNull", "boolean", _OBJECT), "boolean", _QUERY)
        nothing = handles().dropArguments(handles().constant(java_type(STRING), ""), 0, java_type(_QUERY))
        answer = chain(self._query(kind), handles().guardWithTest(is_null, nothing, hits))
        failure = chain(
            method(_THROWABLE, "toString", STRING),
            bound(method(STRING, "concat", STRING, STRING), 0, java_class(STRING)(_FAILED)),
        )
        return _batched(handles().catchException(answer, java_type(_THROWABLE), failure))

    def _of_texts(self) -> Any:
        """Query -> the same query, for texts only; scores stay."""
        occurs = java_class(_SEARCH + "BooleanClause$Occur")
        is_text = java_class(_SEARCH + "TermQuery")(java_class(_TERM)(KIND, TEXT))
        builder = _SEARCH + "BooleanQuery$Builder"
        add = method(builder, "add", builder, _QUERY, _SEARCH + "BooleanClause$Occur")
        add_query = handles().foldArguments(bound(add, 2, occurs.MUST), constructor(builder))
        build = as_type(method(builder, "build", _SEARCH + "BooleanQuery"), _QUERY, builder)
        return chain(add_query, bound(add, 1, is_text, occurs.FILTER), build)

    def _query(self, kind: QueryKind) -> Any:
        """Text -> query."""
        if kind == "bag":
            generator = java_class("io.anserini.search.query.BagOfWordsQueryGenerator")()
            build = method("io.anserini.search.query.QueryGenerator", "buildQuery", _QUERY, STRING, _ANALYZER, STRING)
            return bound(build, 0, generator, CONTENTS, self._analyzer)
        if kind == "phrase":
            builder = java_class("org.apache.lucene.util.QueryBuilder")(self._analyzer)
            build = method("org.apache.lucene.util.QueryBuilder", "createPhraseQuery", _QUERY, STRING, STRING)
            return bound(build, 0, builder, CONTENTS)
        parser = "org.apache.lucene.queryparser.classic.QueryParser"
        unchanged = "org.apache.lucene.analysis.core.KeywordAnalyzer"
        analyzer = java_class(unchanged)() if kind == "terms" else self._analyzer
        # a parser is not thread-safe
        new_parser = bound(constructor(parser, STRING, _ANALYZER), 0, CONTENTS, analyzer)
        return handles().foldArguments(method(parser, "parse", _QUERY, STRING), new_parser)

    def _ordered_search(self, depth: int) -> Any:
        """Query -> the best documents, equal scores ordered by id."""
        fields = java_class(_SEARCH + "SortField")
        by_id = fields(ID, java_class(_SEARCH + "SortField$Type").STRING_VAL)
        order = java_class(_SEARCH + "Sort")(fields.FIELD_SCORE, by_id)
        types = (_QUERY, "int", _SEARCH + "Sort", "boolean")
        search = method(_SEARCH + "IndexSearcher", "search", _SEARCH + "TopFieldDocs", *types).bindTo(self._searcher)
        return as_type(bound(search, 1, _integer(depth), order, java_class("java.lang.Boolean")(True)), _TOP, _QUERY)


def _attribute(name: str, number: str | None = None) -> Any:
    """Token stream -> an attribute of the token at which it stands, or one of the attribute's numbers, as text."""
    attributes = "org.apache.lucene.analysis.tokenattributes."
    kind, any_kind = f"{attributes}{name}Attribute", "org.apache.lucene.util.Attribute"
    get = bound(method(_STREAM, "getAttribute", any_kind, "java.lang.Class"), 1, java_type(kind))
    if number is None:
        return chain(as_type(get, _OBJECT, _STREAM), method(_OBJECT, "toString", STRING))
    digits = static_method("java.lang.Integer", "toString", STRING, "int")
    return chain(as_type(get, kind, _STREAM), method(kind, number, "int"), digits)


def _hits(answer: str) -> Hits | str:
    if answer.startswith(_FAILED):
        return answer.removeprefix(_FAILED)
    hits = _HIT.findall(answer)
    scores = array("f", [float(score) for _, score in hits])  # Java prints enough digits to recover its 32 bits
    return tuple(zip([int(doc) for doc, _ in hits], scores, strict=True))


def _tokens(text: str, answer: str) -> list[Token]:
    parts = answer.split(_TOKEN_END)
    places: Sequence[int] = range(len(text) + 1)
    if not text.isascii() and max(text) > "\uffff":  # Java counts such a character twice
        places = [n for n, character in enumerate(text) for _ in range(1 + (character > "\uffff"))] + [len(text)]
    spans = zip(parts[2::3], map(int, parts[:-1:3]), map(int, parts[1::3]), strict=True)
    return [Token(term, places[start], places[end]) for term, start, end in spans]


def _batched(answer: Any) -> Any:
    """A Java Function: batch of questions as one string -> its answers as one string."""
    return as_interface("java.util.function.Function", for_each(answer, _SEPARATOR))


def _java_text(questions: Sequence[str]) -> Any:
    return java_class(STRING)(_SEPARATOR.join(questions).encode(), "UTF-8")


def _integer(number: int) -> Any:
    return java_class("java.lang.Integer")(number)
