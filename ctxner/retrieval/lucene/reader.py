"""Opening the shards of an index version as one Lucene reader, with statistics over all shards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctxner.retrieval.lucene.documents import stored_passage
from ctxner.retrieval.lucene.jvm import java_class, start_jvm
from ctxner.retrieval.lucene.shard_writer import id_query, open_directory
from ctxner.schema import Passage


def open_reader(shards: Sequence[Path]) -> Any:
    """A Lucene reader of all shards; documents are numbered shard by shard.

    Raises:
        ValueError: Lucene cannot open one of them.
    """
    start_jvm()  # first: importing jnius would start it with other options
    import jnius

    readers = []
    for shard in shards:
        try:
            opened = java_class("org.apache.lucene.index.DirectoryReader").open(open_directory(shard))
        except jnius.JavaException as error:
            reason = str(error).splitlines()[0]  # the other lines are Java's stack
            raise ValueError(f"{shard}: Lucene cannot open the index ({reason}); build it again") from error
        readers.append(jnius.cast("org.apache.lucene.index.IndexReader", opened))
    if len(readers) == 1:
        return readers[0]
    merged = java_class("org.apache.lucene.index.MultiReader")(readers, True)
    return jnius.cast("org.apache.lucene.index.IndexReader", merged)


def check_shard(shard: Path) -> None:
    """Run Lucene's check of every file's checksum and structure.

    Raises:
        ValueError: Something is damaged.
    """
    start_jvm()  # first: importing jnius would start it with other options
    import jnius

    path = java_class("java.nio.file.Paths").get(str(shard.resolve()))
    no_lock = java_class("org.apache.lucene.store.NoLockFactory").INSTANCE  # published files are never written
    directory = java_class("org.apache.lucene.store.FSDirectory").open(path, no_lock)
    checker = java_class("org.apache.lucene.index.CheckIndex")(directory)
    try:
        status = checker.checkIndex()
    except jnius.JavaException as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{shard}: Lucene's check failed ({reason}); build the index again") from error
    finally:
        checker.close()
        directory.close()
    if not status.clean:
        what = "its segments cannot be read" if status.missingSegments else f"{status.numBadSegments} bad segments"
        raise ValueError(f"{shard}: damaged: {what}, {status.totLoseDocCount} passages lost; build the index again")


class PassageFinder:
    """Finds passages of an index by id; a context manager that closes what it opened."""

    def __init__(self, shards: Sequence[Path]):
        """Open the shards of a version."""
        self._reader = open_reader(shards)
        self._searcher = java_class("org.apache.lucene.search.IndexSearcher")(self._reader)
        self._stored = self._reader.storedFields()

    def __call__(self, passage_id: str) -> Passage | None:
        """The passage with this id, or None."""
        located = self.locate(passage_id)
        return located and located[1]

    def locate(self, passage_id: str) -> tuple[int, Passage] | None:
        """Lucene's document number, counted over all shards, and the passage with this id, or None."""
        hits = self._searcher.search(id_query(passage_id), 1).scoreDocs
        if not hits:
            return None
        return hits[0].doc, stored_passage(self._stored.document(hits[0].doc).get("raw"))

    def __enter__(self) -> PassageFinder:
        """The finder itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the index."""
        self._reader.close()
