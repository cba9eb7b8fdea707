"""Adding passages to an index and deleting passages, each as the folder's next version.

The new version starts with the Lucene files of the old one, as hard links where the file system has them: Lucene never
changes a file once it is written. Statistics, and so scores, equal those of an index built from scratch.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ctxner.files.unique_ids import IdHashes
from ctxner.retrieval.corpus.fingerprint import CorpusHash
from ctxner.retrieval.corpus.reader import CorpusReader, check_corpus
from ctxner.retrieval.index.build import PROGRESS_EVERY, OnProgress
from ctxner.retrieval.index.versions import IndexManifest, NewVersion, new_version, now, read_manifest, shard_folders
from ctxner.retrieval.lucene.reader import PassageFinder
from ctxner.retrieval.lucene.shard_writer import ShardWriter, analyzer_for, lucene_version


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
    corpus_paths: Sequence[str | Path], folder: str | Path, *, on_progress: OnProgress | None = None
) -> IndexChange:
    """Add a corpus to an index; a passage replaces the one that has the same id.

    Args:
        corpus_paths: Files that `CorpusReader` reads.
        folder: Index folder.
        on_progress: Called with the number of passages added so far, and the share of the files read.

    Raises:
        FileNotFoundError, ValueError: No usable index (see `read_manifest`), or a fault in the corpus.
        BlockingIOError: Another process is writing into the folder.
    """
    read_manifest(folder)
    with _next_version(Path(folder)) as change:
        passages = CorpusReader(corpus_paths, unit=change.old.unit)
        hashes, num_replaced = IdHashes(), 0
        for passage in passages:
            former = change.find(passage.id)
            if former:
                num_replaced += 1
                change.corpus_hash.remove(former)
                change.delete(passage.id)
            change.corpus_hash.add(passage)
            change.writers[len(hashes) % len(change.writers)].add(passage)
            hashes.add(passage.id)
            if on_progress and len(hashes) % PROGRESS_EVERY == 0:
                on_progress(len(hashes), passages.share_read)
        check_corpus(corpus_paths, hashes, unit=change.old.unit)
        if on_progress:
            on_progress(len(hashes), 1.0)
        num_added = len(hashes) - num_replaced
        files = tuple(dict.fromkeys((*change.old.corpus_files, *(Path(path).name for path in corpus_paths))))
        manifest = change.publish(change.old.num_documents + num_added, files)
    return IndexChange(manifest, num_added=num_added, num_replaced=num_replaced)


def delete_passages(ids: Iterable[str], folder: str | Path) -> IndexChange:
    """Delete the passages with these ids; ids that are not in the index are reported.

    Raises:
        FileNotFoundError, ValueError: No usable index (see `read_manifest`), none of the ids is in it, or no passage
            would be left.
        BlockingIOError: Another process is writing into the folder.
    """
    read_manifest(folder)
    with _next_version(Path(folder)) as change:
        unknown: list[str] = []
        num_deleted = 0
        for passage_id in dict.fromkeys(ids):
            former = change.find(passage_id)
            if former:
                num_deleted += 1
                change.corpus_hash.remove(former)
                change.delete(passage_id)
            else:
                unknown.append(passage_id)
        num_left = change.old.num_documents - num_deleted
        if not num_deleted:
            raise ValueError(f"{folder}: none of the ids is in the index ({', '.join(unknown[:5]) or 'none given'})")
        if not num_left:
            raise ValueError(f"{folder}: no passage would be left; delete the folder instead")
        manifest = change.publish(num_left, change.old.corpus_files)
    return IndexChange(manifest, num_deleted=num_deleted, unknown_ids=tuple(unknown))


class _Change:
    """The next version of an index while it is being written, and the one that it is made from."""

    def __init__(self, version: NewVersion, stack: ExitStack):
        self._started = time.perf_counter()
        self._version = version
        self.old = read_manifest(version.folder)
        old_shards = self.old.shard_folders(version.folder)
        self.find = stack.enter_context(PassageFinder(old_shards))
        self.corpus_hash = CorpusHash([self.old.corpus_sha256])
        self._has_deletes = False
        analyzer = analyzer_for(self.old.language)
        self._open_writers = stack.enter_context(ExitStack())
        self.writers = []
        for old_shard, shard in zip(old_shards, shard_folders(version.building, self.old.num_shards), strict=True):
            _link_files(old_shard, shard)
            self.writers.append(self._open_writers.enter_context(ShardWriter(shard, analyzer)))

    def delete(self, passage_id: str) -> None:
        """Delete a passage, whichever shard has it."""
        self._has_deletes = True
        for writer in self.writers:
            writer.delete(passage_id)

    def publish(self, num_documents: int, corpus_files: tuple[str, ...]) -> IndexManifest:
        """Commit all shards and make them the current version."""
        for writer in self.writers:
            if self._has_deletes:
                writer.merge_deletes()
        self._open_writers.close()
        manifest = replace(
            self.old,
            version=self._version.name,
            parent=self.old.version,
            lucene_version=lucene_version(),
            num_documents=num_documents,
            corpus_sha256=self.corpus_hash.hex(),
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
