"""Checking an index, and statistics of what it holds. Both read every stored passage.

Building and changing an index are `ctxner.retrieval.index.build` and `ctxner.retrieval.index.changes`.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from ctxner.files.unique_ids import IdHashes
from ctxner.retrieval.corpus.fingerprint import CorpusHash
from ctxner.retrieval.index.build import PROGRESS_EVERY, OnProgress
from ctxner.retrieval.index.collected_names import NamesWriter
from ctxner.retrieval.index.names import Names
from ctxner.retrieval.index.versions import IndexManifest, read_manifest
from ctxner.retrieval.lucene.documents import CONTENTS, stored_passages
from ctxner.retrieval.lucene.jvm import java_class
from ctxner.retrieval.lucene.reader import check_shard, open_reader
from ctxner.schema import Passage

_MAX_SOURCES = 1000  # sources named in the statistics


def verify_index(folder: str | Path, *, on_progress: OnProgress | None = None) -> IndexManifest:
    """Check the current version of an index: Lucene's checksums, and that it holds what the manifest says.

    Args:
        folder: Index folder.
        on_progress: Called with the number of passages read so far, and their share.

    Returns:
        The manifest.

    Raises:
        FileNotFoundError: No index, or files of it are gone.
        ValueError: A fault in CURRENT, the manifest or Lucene's files, another number of passages, an id used twice, or
            passages or names that are not those that were indexed.
    """
    manifest = read_manifest(folder)
    shards = manifest.shard_folders(folder)
    for shard in shards:
        check_shard(shard)
    reader = open_reader(shards)
    try:
        if reader.numDocs() != manifest.num_documents or reader.hasDeletions():
            raise ValueError(
                f"{folder}: {reader.numDocs()} passages in Lucene's files ({reader.numDeletedDocs()} deleted), "
                f"{manifest.num_documents} in the manifest; build the index again"
            )
        hashes, corpus_hash = IdHashes(), CorpusHash()
        ends, current = list(accumulate(manifest.shard_documents)), 0
        names = [NamesWriter(manifest.language) for _ in ends]
        for number, passage in enumerate(_reported(reader, on_progress)):
            hashes.add(passage.id)
            corpus_hash.add(passage)
            while current < len(ends) - 1 and number >= ends[current]:
                current += 1
            names[current].add(passage)
    finally:
        reader.close()
    if hashes.repeated():
        raise ValueError(f"{folder}: ids are not unique; build the index again")
    if corpus_hash.hex() != manifest.corpus_sha256:
        raise ValueError(f"{folder}: the stored passages are not those of the manifest's hash; build the index again")
    if not Names(Path(folder, manifest.version)).same_as([writer.names() for writer in names]):
        raise ValueError(f"{folder}: the names are not those of the stored passages; build the index again")
    return manifest


def index_stats(folder: str | Path, *, num_terms: int = 20, on_progress: OnProgress | None = None) -> dict[str, Any]:
    """Statistics of the current version of an index.

    Args:
        folder: Index folder.
        num_terms: Number of most frequent terms to list.
        on_progress: Called with the number of passages read so far, and their share.

    Returns:
        The version, its number of passages, shards, texts and names of entries, its bytes on disk and those of all
        versions (hard links counted once), its parts by source, the mean length in terms and in characters, the number
        of distinct terms, and the terms in most passages with their document frequencies.

    Raises:
        FileNotFoundError, ValueError: See `read_manifest`.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    reader = open_reader(manifest.shard_folders(folder))
    try:
        sources: Counter[str] = Counter()
        num_characters = 0
        for passage in _reported(reader, on_progress):
            sources[passage.source] += 1
            num_characters += len(passage.text)
        num_distinct, frequent = _frequent_terms(reader, num_terms)
        num_words = reader.getSumTotalTermFreq(CONTENTS)
    finally:
        reader.close()
    return {
        "folder": str(folder),
        "version": manifest.version,
        "language": manifest.language,
        "num_documents": manifest.num_documents,
        "num_shards": manifest.num_shards,
        "num_texts": manifest.num_texts,
        "num_names": manifest.num_names,
        "bytes": _num_bytes(folder / manifest.version),
        "bytes_all_versions": _num_bytes(folder),
        "mean_terms": round(num_words / manifest.num_documents, 2),
        "mean_characters": round(num_characters / manifest.num_documents, 2),
        "distinct_terms": num_distinct,
        "num_sources": len(sources),
        "sources": dict(sources.most_common(_MAX_SOURCES)),
        "frequent_terms": frequent,
    }


def _reported(reader: Any, on_progress: OnProgress | None) -> Iterator[Passage]:
    num_documents = max(1, reader.maxDoc())
    for number, passage in enumerate(stored_passages(reader), 1):
        yield passage
        if on_progress and (number % PROGRESS_EVERY == 0 or number == num_documents):
            on_progress(number, number / num_documents)


def _frequent_terms(reader: Any, num_terms: int) -> tuple[int, dict[str, int]]:
    """Number of distinct terms, and the terms in most passages."""
    terms = java_class("org.apache.lucene.index.MultiTerms").getTerms(reader, CONTENTS)
    if terms is None:
        return 0, {}
    entries = terms.iterator()
    most: list[tuple[int, int, str]] = []  # document frequency, minus the term's place in alphabetical order, term
    num_distinct = 0
    while (term := entries.next()) is not None:
        num_distinct += 1
        frequency = entries.docFreq()
        if len(most) < num_terms:
            heapq.heappush(most, (frequency, -num_distinct, term.utf8ToString()))
        elif most and frequency > most[0][0]:
            heapq.heapreplace(most, (frequency, -num_distinct, term.utf8ToString()))
    return num_distinct, {term: frequency for frequency, _, term in sorted(most, reverse=True)}


def _num_bytes(folder: Path) -> int:
    """Bytes of all files below, hard links counted once."""
    stats = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum({(stat.st_dev, stat.st_ino): stat.st_size for stat in stats}.values())
