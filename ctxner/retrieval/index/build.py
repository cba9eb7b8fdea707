"""Building a version of an index from a corpus, from scratch.

`ctxner.retrieval.index.changes` adds and deletes passages, `ctxner.retrieval.index.versions` publishes versions, and
`ctxner.retrieval.lucene.shard_writer` writes Lucene's files. Searching is `ctxner.retrieval.search.bm25`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctxner.files.unique_ids import IdHashes
from ctxner.files.uris import path_or_uri
from ctxner.languages import check_language
from ctxner.retrieval.corpus.fingerprint import CorpusHash
from ctxner.retrieval.corpus.reader import CorpusReader, Unit, check_corpus
from ctxner.retrieval.index.collected_names import NamesWriter, ShardNames
from ctxner.retrieval.index.names import write_names
from ctxner.retrieval.index.versions import FORMAT_VERSION, TEXT_RULES, IndexManifest, new_version, now, shard_folders
from ctxner.retrieval.lucene.jvm import anserini_version
from ctxner.retrieval.lucene.shard_writer import ShardWriter, analyzer_for, lucene_version

PROGRESS_EVERY = 1000  # passages
OnProgress = Callable[[int, float], None]


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """The arguments that the writers of all shards share.

    Attributes:
        corpus_paths: All files; each shard takes its share of every file.
        language: Language of the analyzer.
        unit: Passage unit of a MediaWiki dump.
        num_shards: Number of shards that the corpus is split into.
        columns: Column by field of CSV and TSV files.
    """

    corpus_paths: tuple[Path, ...]
    language: str
    unit: Unit
    num_shards: int
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WrittenShard:
    """The passages of a finished shard, by their hashes.

    Attributes:
        id_hashes: Hashes of the ids, eight bytes per passage.
        num_texts: Number of passages that are searched as texts.
        names: Names of its entries.
        corpus_hash: Corpus hash of this shard's passages, hexadecimal.
        lucene_version: Version of Lucene that wrote the shard.
    """

    id_hashes: bytes
    num_texts: int
    names: ShardNames
    corpus_hash: str
    lucene_version: str

    @property
    def num_passages(self) -> int:
        return len(self.id_hashes) // 8


ShardWriters = Callable[[ShardPlan, Path, OnProgress | None], Sequence[WrittenShard]]


def write_shard(plan: ShardPlan, folder: Path, shard: int, on_progress: OnProgress | None = None) -> WrittenShard:
    """Write one shard of a new version, from scratch, as one segment in corpus order.

    Args:
        plan: Arguments shared by all shards of the version.
        folder: Folder of the version.
        shard: Index of the shard to write.
        on_progress: Called with the shard's number of passages so far, and the share of the corpus's bytes read.

    Raises:
        ValueError: Unknown language, or a fault in the corpus (see `CorpusReader`).
    """
    target = shard_folders(folder, plan.num_shards)[shard]
    shutil.rmtree(target, ignore_errors=True)  # left by a killed attempt
    target.mkdir()
    passages = CorpusReader(
        plan.corpus_paths, unit=plan.unit, columns=plan.columns, part=shard, num_parts=plan.num_shards
    )
    hashes, corpus_hash, names, num_texts = IdHashes(), CorpusHash(), NamesWriter(plan.language), 0
    with ShardWriter(target, analyzer_for(plan.language)) as writer:
        for num_passages, passage in enumerate(passages, 1):
            hashes.add(passage.id)
            corpus_hash.add(passage)
            names.add(passage)
            num_texts += passage.is_text
            writer.add(passage)
            if on_progress and num_passages % PROGRESS_EVERY == 0:
                on_progress(num_passages, passages.share_read)
        writer.merge()
    if on_progress:
        on_progress(len(hashes), 1.0)
    return WrittenShard(hashes.to_bytes(), num_texts, names.names(), corpus_hash.hex(), lucene_version())


def write_shards_in_turn(plan: ShardPlan, folder: Path, on_progress: OnProgress | None) -> list[WrittenShard]:
    """Write all shards in this process, one after the other."""
    written: list[WrittenShard] = []

    def report(num_passages: int, share: float) -> None:
        assert on_progress
        done = sum(len(shard.id_hashes) // 8 for shard in written)
        on_progress(done + num_passages, (len(written) + share) / plan.num_shards)

    for shard in range(plan.num_shards):
        written.append(write_shard(plan, folder, shard, report if on_progress else None))  # noqa: PERF401
    return written


def build_index(
    corpus_paths: Sequence[str | Path],
    folder: str | Path,
    *,
    language: str = "en",
    unit: Unit = "paragraph",
    columns: Mapping[str, str] | None = None,
    num_shards: int = 1,
    write_shards: ShardWriters = write_shards_in_turn,
    on_progress: OnProgress | None = None,
) -> IndexManifest:
    """Index a corpus as the next version of `folder`; it becomes the current one once it is complete.

    Neither scores nor the order of hits depend on the number of shards.

    Args:
        corpus_paths: Files that `CorpusReader` reads.
        folder: Index folder; created when missing. Other files in it are refused.
        language: Language of the texts, which decides their analyzer: a code of `ctxner.languages.LANGUAGES`.
        unit: Passage unit of a MediaWiki dump.
        columns: Column by field of CSV and TSV files (see `CorpusReader`).
        num_shards: Number of Lucene indexes that the corpus is split into.
        write_shards: Function that writes all shards, here in turn; `ctxner.batch.index_shards` has a parallel one.
        on_progress: Called with the number of passages indexed so far, and the share of the corpus read.

    Raises:
        ValueError: Unknown language, a fault in the corpus (see `read_corpus`), or a folder with other files.
        BlockingIOError: Another process is writing into the folder.
    """
    started = time.perf_counter()
    check_language(language)
    CorpusReader(corpus_paths, unit=unit, columns=columns, num_parts=num_shards)
    plan = ShardPlan(tuple(map(path_or_uri, corpus_paths)), language, unit, num_shards, columns or {})
    with new_version(Path(folder)) as version:
        written = write_shards(plan, version.building, on_progress)
        hashes = IdHashes(shard.id_hashes for shard in written)
        check_corpus(corpus_paths, hashes, unit=unit, columns=columns)
        num_names = write_names(version.building, [shard.names for shard in written])
        manifest = IndexManifest(
            format_version=FORMAT_VERSION,
            version=version.name,
            parent=None,
            lucene_version=written[0].lucene_version,
            anserini_version=anserini_version(),
            language=language,
            unit=unit,
            num_documents=len(hashes),
            num_shards=num_shards,
            shard_documents=tuple(shard.num_passages for shard in written),
            num_texts=sum(shard.num_texts for shard in written),
            num_names=num_names,
            corpus_sha256=CorpusHash(shard.corpus_hash for shard in written).hex(),
            corpus_files=tuple(Path(path).name for path in corpus_paths),
            created_at=now(),
            seconds=round(time.perf_counter() - started, 2),
            text_rules=TEXT_RULES,
        )
        version.publish(manifest)
    return manifest
