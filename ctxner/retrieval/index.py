"""Corpus -> Lucene index + manifest, in a folder that always holds a whole index or none.

    folder/manifest.json      what the index is and which sub-folder holds it; written last, replaced atomically
    folder/lucene-<random>/   Lucene's files

A killed build leaves the former index in place; its rubble goes with the next build. Anserini's document layout and
analyzers are used (fields `id`, `contents`, `raw`), so that its tools can open the index too. Lucene's writer is
driven directly rather than through Anserini's IndexCollection, which wants the corpus as files of its own format and a
2 GB buffer, and leaves the order of documents to chance. Searching is `ctxner.retrieval.bm25`.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxner.retrieval.corpus import corpus_stem, read_corpus
from ctxner.retrieval.jvm import anserini_version, java_class
from ctxner.schema import Passage

FORMAT_VERSION = 1
_MANIFEST = "manifest.json"
_BUFFER_MIB = 64.0  # Lucene flushes a segment beyond it; well below the JVM's heap
_PROGRESS_EVERY = 1000  # passages


@dataclass(frozen=True, slots=True)
class IndexManifest:
    """What an index folder holds.

    Attributes:
        format_version: Layout of the folder and of the stored passages; this code reads `FORMAT_VERSION`.
        lucene_folder: Sub-folder with Lucene's files.
        lucene_version: Lucene that wrote it.
        anserini_version: Anserini whose analyzer and document layout it has.
        language: Analyzer's language; queries are analyzed with the same one.
        num_documents: Passages.
        corpus_sha256: Hash of ids, sources, titles and texts in order, whatever the files' format and compression.
        corpus_files: Names of the corpus files.
        created_at: UTC, ISO 8601.
    """

    format_version: int
    lucene_folder: str
    lucene_version: str
    anserini_version: str
    language: str
    num_documents: int
    corpus_sha256: str
    corpus_files: tuple[str, ...]
    created_at: str


def build_index(
    corpus_paths: Sequence[str | Path],
    folder: str | Path,
    *,
    language: str = "en",
    on_progress: Callable[[int], None] | None = None,
) -> IndexManifest:
    """Index a corpus, replacing the index that `folder` may hold once the new one is complete.

    Documents keep the corpus order: equal scores are ordered alike in every build. One build a folder at a time.

    Args:
        corpus_paths: Files that `read_corpus` reads.
        folder: Created when missing; nothing else may be kept in it.
        language: Code of Anserini's analyzer, e.g. `en`, `de`, `zh`.
        on_progress: Called with the number of passages indexed so far.

    Raises:
        ValueError: Unknown language, a fault in the corpus (see `read_corpus`), or a folder with other files.
    """
    folder = Path(folder)
    for path in corpus_paths:
        corpus_stem(Path(path))
    analyzer = analyzer_for(language)
    with _build_folder(folder) as lucene_folder:
        num_documents, digest = _write_documents(read_corpus(corpus_paths), lucene_folder, analyzer, on_progress)
        manifest = IndexManifest(
            format_version=FORMAT_VERSION,
            lucene_folder=lucene_folder.name,
            lucene_version=java_class("org.apache.lucene.util.Version").LATEST.toString(),
            anserini_version=anserini_version(),
            language=language,
            num_documents=num_documents,
            corpus_sha256=digest,
            corpus_files=tuple(Path(path).name for path in corpus_paths),
            created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        _publish(manifest, folder)
    return manifest


def read_manifest(folder: str | Path) -> IndexManifest:
    """The manifest of an index folder.

    Raises:
        FileNotFoundError: No such folder, or no complete index in it.
        ValueError: The manifest is damaged or of another format version.
    """
    folder = Path(folder)
    path = folder / _MANIFEST
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such index folder; build one with `ctxner index`")
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no {_MANIFEST}: not an index, or its build did not finish; build it again")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        version = fields["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged manifest ({error!r}); build the index again") from error
    if version != FORMAT_VERSION:
        raise ValueError(f"{path}: index format {version}, this version reads {FORMAT_VERSION}; build the index again")
    try:
        manifest = IndexManifest(**{**fields, "corpus_files": tuple(fields["corpus_files"])})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged manifest ({error!r}); build the index again") from error
    if not (folder / manifest.lucene_folder).is_dir():
        raise FileNotFoundError(f"{folder / manifest.lucene_folder}: the index's files are gone; build it again")
    return manifest


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


def stored_passage(raw: str) -> Passage:
    """A passage from the JSON that its document stores; the inverse of `_document_json`."""
    record = json.loads(raw)
    title = record.get("title", "")
    text = record["contents"][len(title) + 1 :] if title else record["contents"]
    return Passage(record["id"], record["source"], text, title=title)


def _document_json(passage: Passage) -> str:
    """What Anserini indexes (`contents`: title, newline, text) and stores (all of it)."""
    record = {"id": passage.id, "contents": passage.text, "source": passage.source}
    if passage.title:
        record |= {"contents": f"{passage.title}\n{passage.text}", "title": passage.title}
    return json.dumps(record, ensure_ascii=False)


def _write_documents(
    passages: Iterable[Passage], folder: Path, analyzer: Any, on_progress: Callable[[int], None] | None
) -> tuple[int, str]:
    """Write all passages as one merged segment; returns their number and the corpus hash."""
    generator = _document_generator()
    parse = java_class("io.anserini.collection.JsonCollection$Document").fromString
    digest = hashlib.sha256()
    num_documents = 0
    with _index_writer(folder, analyzer) as writer:
        for num_documents, passage in enumerate(passages, 1):
            record = (passage.id, passage.source, passage.title, passage.text)
            digest.update("\0".join(record).encode() + b"\n")
            writer.addDocument(generator.createDocument(parse(_document_json(passage))))
            if on_progress and num_documents % _PROGRESS_EVERY == 0:
                on_progress(num_documents)
        writer.forceMerge(1)
        writer.commit()
    if on_progress:
        on_progress(num_documents)
    return num_documents, digest.hexdigest()


def _document_generator() -> Any:
    arguments = java_class("io.anserini.index.IndexCollection$Args")()
    arguments.storeRaw = True
    arguments.storePositions = True  # so that exact phrases can be looked up
    return java_class("io.anserini.index.generator.DefaultLuceneDocumentGenerator")(arguments)


@contextmanager
def _index_writer(folder: Path, analyzer: Any) -> Iterator[Any]:
    config = java_class("org.apache.lucene.index.IndexWriterConfig")(analyzer)
    config.setSimilarity(java_class("org.apache.lucene.search.similarities.BM25Similarity")())
    config.setRAMBufferSizeMB(_BUFFER_MIB)
    config.setMergePolicy(java_class("org.apache.lucene.index.LogByteSizeMergePolicy")())  # keeps the documents' order
    writer = java_class("org.apache.lucene.index.IndexWriter")(open_directory(folder), config)
    try:
        yield writer
    except BaseException:
        writer.rollback()
        raise
    writer.close()


@contextmanager
def _build_folder(folder: Path) -> Iterator[Path]:
    """A fresh sub-folder to build in; removed again when the build fails."""
    existed = folder.exists()
    foreign = [path.name for path in folder.iterdir() if not _is_ours(path)] if existed else []
    if foreign:
        raise ValueError(
            f"{folder}: holds other files ({', '.join(sorted(foreign)[:3])}); give an index its own folder"
        )
    lucene_folder = folder / f"lucene-{uuid.uuid4().hex[:12]}"
    lucene_folder.mkdir(parents=True)
    try:
        yield lucene_folder
    except BaseException:
        shutil.rmtree(lucene_folder, ignore_errors=True)
        if not existed:
            folder.rmdir()
        raise


def _is_ours(path: Path) -> bool:
    return path.name.startswith((_MANIFEST, "lucene-"))


def _publish(manifest: IndexManifest, folder: Path) -> None:
    """Point the manifest at the new index, then delete what former builds left."""
    text = json.dumps(dataclasses.asdict(manifest), indent=2) + "\n"
    aside = folder / f"{_MANIFEST}.new"
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(folder / _MANIFEST)
    for path in folder.glob("lucene-*"):
        if path.name != manifest.lucene_folder:
            shutil.rmtree(path, ignore_errors=True)
