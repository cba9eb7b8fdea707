"""Adding passages to an index and deleting passages, each as the folder's next version.

The new version starts with the Lucene files of the old one, as hard links where the file system has them: Lucene never
changes a file once it is written. Statistics, and so scores, equal those of an index built from scratch.
"""

from __future__ import annotations

import os
import shutil
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from ctxner.files.unique_ids import IdHashes
from ctxner.retrieval.corpus.fingerprint import CorpusHash
from ctxner.retrieval.corpus.reader import CorpusReader, check_corpus
from ctxner.retrieval.index.build import PROGRESS_EVERY, OnProgress
from ctxner.retrieval.index.collected_names import NamesWriter
from ctxner.retrieval.index.names import change_names
from ctxner.retrieval.index.versions import IndexManifest, NewVersion, new_version, now, read_manifest, shard_folders
from ctxner.retrieval.lucene.reader import PassageFinder
from ctxner.retrieval.lucene.shard_writer import ShardWriter, analyzer_for, lucene_version
from ctxner.schema import Passage


@dataclass(frozen=True, slots=True)
class IndexChange:
    """The result of adding or deleting passages.

    Attributes:
        manifest: Manifest of the new version.
        num_added: Number of passages whose id was new to the index.
        num_replaced: Number of passages that replaced one with the same id.
        num_deleted: Number of passages deleted.
        unknown_ids: Ids to delete that were not in the index.
    """

    manifest: IndexManifest
    num_added: int = 0
    num_replaced: int = 0
    num_deleted: int = 0
    unknown_ids: tuple[str, ...] = ()


def add_passages(
    corpus_paths: Sequence[str | Path],
    folder: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    on_progress: OnProgress | None = None,
) -> IndexChange:
    """Add a corpus to an index; a passage replaces the one that has the same id.

    Args:
        corpus_paths: Files that `CorpusReader` reads.
        folder: Index folder.
        columns: Column by field of CSV and TSV files (see `CorpusReader`).
        on_progress: Called with the number of passages added so far, and the share of the files read.

    Raises:
        FileNotFoundError, ValueError: No usable index (see `read_manifest`), or a fault in the corpus.
        BlockingIOError: Another process is writing into the folder.
    """
    read_manifest(folder)
    with _next_version(Path(folder)) as change:
        passages = CorpusReader(corpus_paths, unit=change.old.unit, columns=columns)
        hashes, num_replaced = IdHashes(), 0
        for passage in passages:
            num_replaced += change.delete(passage.id)
            change.add(passage)
            hashes.add(passage.id)
            if on_progress and len(hashes) % PROGRESS_EVERY == 0:
                on_progress(len(hashes), passages.share_read)
        check_corpus(corpus_paths, hashes, unit=change.old.unit, columns=columns)
        if on_progress:
            on_progress(len(hashes), 1.0)
        files = tuple(dict.fromkeys((*change.old.corpus_files, *(Path(path).name for path in corpus_paths))))
        manifest = change.publish(files)
    return IndexChange(manifest, num_added=len(hashes) - num_replaced, num_replaced=num_replaced)


def delete_passages(ids: Iterable[str], folder: str | Path) -> IndexChange:
    """Delete the passages with these ids; ids that are not in the index are reported.

    Raises:
        FileNotFoundError, ValueError: No usable index (see `read_manifest`), none of the ids is in it, or no passage
            would be left.
        BlockingIOError: Another process is writing into the folder.
    """
    read_manifest(folder)
    with _next_version(Path(folder)) as change:
        distinct = list(dict.fromkeys(ids))
        unknown = [passage_id for passage_id in distinct if not change.delete(passage_id)]
        num_deleted = len(distinct) - len(unknown)
        if not num_deleted:
            raise ValueError(f"{folder}: none of the ids is in the index ({', '.join(unknown[:5]) or 'none given'})")
        if num_deleted == change.old.num_documents:
            raise ValueError(f"{folder}: no passage would be left; delete the folder instead")
        manifest = change.publish(change.old.corpus_files)
    return IndexChange(manifest, num_deleted=num_deleted, unknown_ids=tuple(unknown))


class _Change:
    """The next version of an index while it is being written, and the one that it is made from."""

    def __init__(self, version: NewVersion, stack: ExitStack):
        self._started = time.perf_counter()
        self._version = version
        self.old = read_manifest(version.folder)
        if self.old.is_asked_by_other_rules:
            raise ValueError(f"{version.folder}: a former release indexed it by other rules for text; build it again")
        old_shards = self.old.shard_folders(version.folder)
        self._find = stack.enter_context(PassageFinder(old_shards))
        self._corpus_hash = CorpusHash([self.old.corpus_sha256])
        self._ends = list(accumulate(self.old.shard_documents))  # one past the last document of each old shard
        self._deleted: list[list[int]] = [[] for _ in old_shards]  # document numbers within each old shard
        self._names = [NamesWriter(self.old.language) for _ in old_shards]  # of what is added
        self._num_texts, self._num_added = self.old.num_texts, 0
        analyzer = analyzer_for(self.old.language)
        self._open_writers = stack.enter_context(ExitStack())
        self._writers = []
        for old_shard, shard in zip(old_shards, shard_folders(version.building, self.old.num_shards), strict=True):
            _link_files(old_shard, shard)
            self._writers.append(self._open_writers.enter_context(ShardWriter(shard, analyzer)))

    def delete(self, passage_id: str) -> bool:
        """Delete a passage of the old version; returns whether there was one."""
        if not (located := self._find.locate(passage_id)):
            return False
        document, passage = located
        shard = bisect_right(self._ends, document)
        self._deleted[shard].append(document - self._ends[shard] + self.old.shard_documents[shard])
        self._corpus_hash.remove(passage)
        self._num_texts -= passage.is_text
        self._writers[shard].delete(passage_id)
        return True

    def add(self, passage: Passage) -> None:
        """Add a passage; the shards take turns."""
        shard = self._num_added % len(self._writers)
        self._corpus_hash.add(passage)
        self._num_texts += passage.is_text
        self._writers[shard].add(passage)
        self._names[shard].add(passage)
        self._num_added += 1

    def publish(self, corpus_files: tuple[str, ...]) -> IndexManifest:
        """Commit all shards and make them the current version."""
        for writer, deleted in zip(self._writers, self._deleted, strict=True):
            if deleted:
                writer.merge_deletes()
        self._open_writers.close()
        left = [size - len(gone) for size, gone in zip(self.old.shard_documents, self._deleted, strict=True)]
        added = [writer.names() for writer in self._names]
        num_names = change_names(
            self._version.folder / self.old.version,
            self._version.building,
            deleted=self._deleted,
            added=[replace(names, documents=names.documents + size) for names, size in zip(added, left, strict=True)],
        )
        shard_documents = tuple(size + writer.num_passages for size, writer in zip(left, self._names, strict=True))
        manifest = replace(
            self.old,
            version=self._version.name,
            parent=self.old.version,
            lucene_version=lucene_version(),
            num_documents=sum(shard_documents),
            shard_documents=shard_documents,
            num_texts=self._num_texts,
            num_names=num_names,
            corpus_sha256=self._corpus_hash.hex(),
            corpus_files=corpus_files,
            created_at=now(),
            seconds=round(time.perf_counter() - self._started, 2),
        )
        self._version.publish(manifest)
        return manifest


@contextmanager
def _next_version(folder: Path) -> Iterator[_Change]:
    with new_version(folder) as version, ExitStack() as stack:
        yield _Change(version, stack)


def _link_files(old: Path, new: Path) -> None:
    """Put the files of a Lucene index into a new folder."""
    new.mkdir()
    for path in old.iterdir():
        if path.name == "write.lock":
            continue
        try:
            os.link(path, new / path.name)
        except OSError:  # the file system has no hard links
            shutil.copy2(path, new / path.name)
