"""Writing one shard with Lucene; its analyzers, and deleting by id.

Lucene's writer is called directly. Anserini's IndexCollection would want the corpus in its file format, and does not
keep the order of documents. The fields of a document are in `ctxner.retrieval.lucene.documents`.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ctxner.languages import CLUSTERED, check_language
from ctxner.retrieval.lucene.documents import ID, document_text, java_documents
from ctxner.retrieval.lucene.jvm import java_class
from ctxner.schema import Passage

_BATCH_PASSAGES = 2000  # several ms of work for Lucene: large enough to amortise waiting for the GIL
_BATCH_CHARACTERS = 2_000_000
_MAX_WAITING = 3  # batches on their way to Lucene
_BUFFER_MIB = 128.0  # Lucene then writes a segment; well below the JVM's heap


def analyzer_for(language: str) -> Any:
    """Lucene's analyzer for a language: Anserini's, or the standard one where text comes in clusters.

    It is given text in `analyzed_form`, from passages and queries alike.

    Raises:
        ValueError: There is none (Anserini would silently fall back to English).
    """
    check_language(language)
    if language == "en":
        return java_class("io.anserini.analysis.DefaultEnglishAnalyzer").newDefaultInstance()
    if language in CLUSTERED:
        return java_class("org.apache.lucene.analysis.standard.StandardAnalyzer")()
    return java_class("io.anserini.analysis.AnalyzerMap").getLanguageSpecificAnalyzer(language)


def open_directory(folder: Path) -> Any:
    """Lucene's handle of a folder with index files."""
    path = java_class("java.nio.file.Paths").get(str(folder.resolve()))
    return java_class("org.apache.lucene.store.FSDirectory").open(path)


def lucene_version() -> str:
    """Version of the installed Lucene."""
    return java_class("org.apache.lucene.util.Version").LATEST.toString()


def id_query(passage_id: str) -> Any:
    """A query for the passage with this id."""
    return java_class("org.apache.lucene.search.TermQuery")(java_class("org.apache.lucene.index.Term")(ID, passage_id))


class ShardWriter:
    """Writes passages into one Lucene index; a context manager that commits, or rolls back after an error.

    A separate thread adds the documents, in the order given, while the caller reads and encodes the next passages.
    """

    def __init__(self, folder: Path, analyzer: Any):
        """Open the index in `folder`, or create one there."""
        config = java_class("org.apache.lucene.index.IndexWriterConfig")(analyzer)
        config.setSimilarity(java_class("org.apache.lucene.search.similarities.BM25Similarity")())
        config.setRAMBufferSizeMB(_BUFFER_MIB)
        config.setUseCompoundFile(False)  # a merge to one segment would rewrite even a single compound one
        # keeps the order of documents
        config.setMergePolicy(java_class("org.apache.lucene.index.LogByteSizeMergePolicy")())
        self._writer = java_class("org.apache.lucene.index.IndexWriter")(open_directory(folder), config)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="index-writer")
        self._waiting: deque[Future[Any]] = deque()
        self._batch: list[str] = []
        self._batch_length = 0

    def add(self, passage: Passage) -> None:
        """Append a passage."""
        text = document_text(passage)
        self._batch.append(text)
        self._batch_length += len(text)
        if len(self._batch) >= _BATCH_PASSAGES or self._batch_length >= _BATCH_CHARACTERS:
            self._send()

    def delete(self, passage_id: str) -> None:
        """Delete the passage with this id, if it was in the index when the index was opened."""
        self._writer.deleteDocuments(id_query(passage_id))  # a query: pyjnius cannot choose the overload for a Term

    def merge(self) -> None:
        """Merge all segments into one, which is fastest to search."""
        self._drain()
        self._writer.forceMerge(1)

    def merge_deletes(self) -> None:
        """Rewrite segments that have deleted passages, so that these no longer count in any statistic."""
        self._drain()
        self._writer.forceMergeDeletes()

    def __enter__(self) -> ShardWriter:
        """The writer itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Commit, or roll back after an error."""
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
        batch = self._batch
        self._batch, self._batch_length = [], 0
        while len(self._waiting) >= _MAX_WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._add_documents, batch))

    def _add_documents(self, batch: list[str]) -> None:
        """Runs in the writer's thread, nearly all of it without the GIL."""
        documents = java_documents(batch)
        self._writer.addDocuments(documents)  # one expression: pyjnius keeps a method's object where threads share it

    def _drain(self) -> None:
        self._send()
        while self._waiting:
            self._waiting.popleft().result()
