"""Lucene's side of an index: analyzers, passages <-> documents, writing and reading one shard.

Documents have Anserini's layout (fields `id`, `contents`, `raw`), so that its tools can open the index too. Lucene's
writer is driven directly rather than through Anserini's IndexCollection, which wants the corpus as files of its own
format and leaves the order of documents to chance. A call from Python to Java costs microseconds: passages cross
in batches, as one text, and a chain of Java functions makes the documents.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from ctxner.retrieval.jvm import java_class
from ctxner.schema import Passage

CONTENTS = "contents"
ID = "id"
BATCH_PASSAGES = 500
_BATCH_CHARACTERS = 1_000_000
_MAX_WAITING = 2  # batches made into documents while one is being added
_BUFFER_MIB = 64.0  # Lucene flushes a segment beyond it; well below the JVM's heap
_RECORD_END = "\x1e"  # JSON never holds it as it is

_DOCUMENT = "org.apache.lucene.document.Document"

_encode_json = json.JSONEncoder(ensure_ascii=False).encode


def analyzer_for(language: str) -> Any:
    """Anserini's Lucene analyzer for a language code.

    Raises:
        ValueError: Anserini has none (it would silently fall back to English).
    """
    if language == "en":
        return java_class("io.anserini.analysis.DefaultEnglishAnalyzer").newDefaultInstance()
    analyzers = java_class("io.anserini.analysis.AnalyzerMap")
    known = sorted({"en", *analyzers.analyzerMap.keySet().toArray()})
    if language not in known:
        raise ValueError(f"no Lucene analyzer for language {language!r}; choose one of {', '.join(known)}")
    return analyzers.getLanguageSpecificAnalyzer(language)


def open_directory(folder: Path) -> Any:
    """Lucene's handle of a folder with index files."""
    path = java_class("java.nio.file.Paths").get(str(folder.resolve()))
    return java_class("org.apache.lucene.store.FSDirectory").open(path)


def lucene_version() -> str:
    """Version of the Lucene at hand."""
    return java_class("org.apache.lucene.util.Version").LATEST.toString()


def id_query(passage_id: str) -> Any:
    """A query for the one passage of an id."""
    return java_class("org.apache.lucene.search.TermQuery")(java_class("org.apache.lucene.index.Term")(ID, passage_id))


class ShardWriter:
    """Writes passages into one Lucene index; a context manager that commits, or takes everything back on an error.

    A thread of its own adds documents while the caller reads and encodes the next passages; they are added in the
    order they were given.
    """

    def __init__(self, folder: Path, analyzer: Any):
        """Open the index in `folder`, or begin one there."""
        config = java_class("org.apache.lucene.index.IndexWriterConfig")(analyzer)
        config.setSimilarity(java_class("org.apache.lucene.search.similarities.BM25Similarity")())
        config.setRAMBufferSizeMB(_BUFFER_MIB)
        # keeps the order of documents
        config.setMergePolicy(java_class("org.apache.lucene.index.LogByteSizeMergePolicy")())
        self._writer = java_class("org.apache.lucene.index.IndexWriter")(open_directory(folder), config)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="index-writer")
        self._waiting: deque[Future[Any]] = deque()
        self._batch: list[str] = []
        self._batch_length = 0

    def add(self, passage: Passage) -> None:
        """Append a passage."""
        text = document_json(passage)
        self._batch.append(text)
        self._batch_length += len(text)
        if len(self._batch) >= BATCH_PASSAGES or self._batch_length >= _BATCH_CHARACTERS:
            self._send()

    def delete(self, passage_id: str) -> None:
        """Delete the passage of this id, if it was in the index when that was opened."""
        self._writer.deleteDocuments(id_query(passage_id))  # pyjnius does not tell a Term from a Query here

    def merge(self) -> None:
        """Make all of it one segment, which is searched fastest."""
        self._drain()
        self._writer.forceMerge(1)

    def merge_deletes(self) -> None:
        """Rewrite segments with deleted passages, so that these count in no statistic any more."""
        self._drain()
        self._writer.forceMergeDeletes()

    def __enter__(self) -> ShardWriter:
        """Nothing more than the writer itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Commit, or take everything back."""
        try:
            if kind is None:
                self._drain()
                self._writer.commit()
                self._writer.close()
            else:
                self._writer.rollback()
        finally:
            import jnius

            self._thread.submit(jnius.detach)
            self._thread.shutdown()

    def _send(self) -> None:
        if not self._batch:
            return
        documents = _documents("\n".join(self._batch))
        self._batch, self._batch_length = [], 0
        while len(self._waiting) >= _MAX_WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._writer.addDocuments, documents))

    def _drain(self) -> None:
        self._send()
        while self._waiting:
            self._waiting.popleft().result()


def document_json(passage: Passage) -> str:
    """What Anserini indexes (`contents`: title, newline, text) and stores (all of it), on one line."""
    record = {ID: passage.id, CONTENTS: passage.text, "source": passage.source}
    if passage.title:
        record |= {CONTENTS: f"{passage.title}\n{passage.text}", "title": passage.title}
    return _encode_json(record)


def stored_passage(raw: str) -> Passage:
    """A passage from the JSON that its document stores; the inverse of `document_json`."""
    record = json.loads(raw)
    title = record.get("title", "")
    text = record[CONTENTS][len(title) + 1 :] if title else record[CONTENTS]
    return Passage(record[ID], record["source"], text, title=title)


def stored_passages(reader: Any) -> Iterator[Passage]:
    """All passages of an open index without deletions, in the order of its documents."""
    import jnius

    stored = jnius.cast("java.lang.Object", reader.storedFields())
    get_document = _method("org.apache.lucene.index.StoredFields", "document", "int", _DOCUMENT).bindTo(stored)
    get_raw = _method(_DOCUMENT, "get", "java.lang.String", "java.lang.String")
    get_raw = java_class("java.lang.invoke.MethodHandles").insertArguments(get_raw, 1, "raw")
    raw_of = _as_interface(
        "java.util.function.IntFunction",
        java_class("java.lang.invoke.MethodHandles").filterReturnValue(get_document, get_raw),
    )
    end = jnius.cast("java.lang.CharSequence", java_class("java.lang.String")(_RECORD_END))
    numbers = java_class("java.util.stream.IntStream")
    collectors = java_class("java.util.stream.Collectors")
    for first in range(0, reader.maxDoc(), BATCH_PASSAGES):
        last = min(first + BATCH_PASSAGES, reader.maxDoc())
        text = numbers.range(first, last).mapToObj(raw_of).collect(collectors.joining(end))
        for raw in text.split(_RECORD_END):
            yield stored_passage(raw)


def _documents(lines: str) -> Any:
    """A Java list of Lucene documents, from JSON documents one a line."""
    parse, create = _document_functions()
    reader = java_class("java.io.BufferedReader")(java_class("java.io.StringReader")(lines))
    return reader.lines().map(parse).map(create).toList()


@cache
def _document_functions() -> tuple[Any, Any]:
    """Java functions: JSON -> Anserini's document -> Lucene's document."""
    arguments = java_class("io.anserini.index.IndexCollection$Args")()
    arguments.storeRaw = True
    arguments.storePositions = True  # so that exact phrases can be looked up
    generator = java_class("io.anserini.index.generator.DefaultLuceneDocumentGenerator")(arguments)
    json_document = "io.anserini.collection.JsonCollection$Document"
    parse = _method(json_document, "fromString", "java.lang.String", json_document, is_static=True)
    create = _method(
        "io.anserini.index.generator.DefaultLuceneDocumentGenerator",
        "createDocument",
        "io.anserini.collection.SourceDocument",
        _DOCUMENT,
    ).bindTo(generator)
    return _as_interface("java.util.function.Function", parse), _as_interface("java.util.function.Function", create)


def _method(owner: str, name: str, argument: str, result: str, *, is_static: bool = False) -> Any:
    """A handle of a public Java method of one argument."""
    lookup = java_class("java.lang.invoke.MethodHandles").publicLookup()
    kind = java_class("java.lang.invoke.MethodType").methodType(_class(result), _class(argument))
    return (lookup.findStatic if is_static else lookup.findVirtual)(_class(owner), name, kind)


def _class(name: str) -> Any:
    if name == "int":
        return java_class("java.lang.Integer").TYPE
    return java_class("java.lang.Class").forName(name)


def _as_interface(name: str, handle: Any) -> Any:
    """A Java object with a functional interface whose one method is the handle: it runs without Python."""
    import jnius

    proxies = java_class("java.lang.invoke.MethodHandleProxies")
    return jnius.cast(name, proxies.asInterfaceInstance(_class(name), handle))
