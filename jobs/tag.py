"""`ctxner tag`: files of documents -> entities, on Ray Data; locally or on a cluster."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ctxner.batch.annotation_files import check_spacy
from ctxner.config import Config
from ctxner.files.documents import Document, DocumentKind, iter_documents
from ctxner.files.uris import path_or_uri
from jobs.cluster import connect, prepare
from jobs.console import progress

logger = logging.getLogger(__name__)

_REPORT_EVERY = 1000  # documents


def run(
    config: Config,
    model: str,
    sources: Sequence[str],
    out: str,
    *,
    kind: DocumentKind | None = None,
    formats: Sequence[str] = ("parquet",),
    skip_faulty: bool = False,
) -> dict[str, Any]:
    """Tag the documents of `sources` into the folder `out`; returns the manifest.

    Both may be paths or URIs. Errors in the files are reported before Ray starts; with `skip_faulty`,
    files that have some are left out, and the result counts and names them.
    """
    if "spacy" in formats:
        check_spacy()
    skipped = list[dict[str, str]]()
    documents = _documents(config, sources, kind, skipped if skip_faulty else None)
    prepare()
    from ctxner.batch.tag import tag

    with ExitStack() as bar:
        done, staged = bar.enter_context(progress("staging documents", None)), 0

        def staging() -> Iterator[Document]:
            nonlocal staged
            for staged, document in enumerate(documents, start=1):
                if staged % _REPORT_EVERY == 0:
                    done(staged)
                yield document

        def on_staged(num_parts: int) -> None:
            nonlocal done
            done(staged, staged)
            bar.close()
            connect()
            done = bar.enter_context(progress("tagging", num_parts))

        manifest = tag(
            staging(),
            config,
            model,
            path_or_uri(out),
            formats=formats,  # type: ignore[arg-type]
            on_staged=on_staged,
            on_progress=lambda number: done(number),
        )
    rate = manifest["sentences"] / max(manifest["tagging_seconds"], 1e-9) if not manifest["resumed_from"] else None
    told = {"skipped_files": len(skipped), "skipped": skipped} if skip_faulty else {}
    return {"folder": out, **manifest, "sentences_per_second": rate and round(rate, 1), **told}


def plan(
    config: Config,
    model: str,
    sources: Sequence[str],
    out: str,
    *,
    kind: DocumentKind | None = None,
    formats: Sequence[str] = ("parquet",),
    skip_faulty: bool = False,
) -> dict[str, Any]:
    """What `run` would do; checks the documents, the model, the threshold and the index."""
    if "spacy" in formats:
        check_spacy()
    from ctxner.files.documents import cut
    from ctxner.model.tagger import saved_types

    prepare()
    from ctxner.batch.tag import settled

    skipped = list[dict[str, str]]()
    documents = _documents(config, sources, kind, skipped if skip_faulty else None)
    _, _, manifest = settled(config, model)
    types = list(saved_types(model))
    num_documents = num_parts = num_chars = 0
    with progress("counting documents", None) as done:
        for document in documents:
            num_documents, num_chars = num_documents + 1, num_chars + len(document.text)
            num_parts += 1 if document.words is not None else sum(1 for _ in cut(document.text))
            if num_documents % _REPORT_EVERY == 0:
                done(num_documents)
        done(num_documents)
    if not num_documents:
        raise ValueError("no documents to tag in these files")
    result = {"documents": num_documents, "parts": num_parts, "characters": num_chars, "types": types}
    index = {"passages_in_index": manifest["index"]["num_documents"]} if "index" in manifest else {}
    view = {"view": config.tagging.view, "threshold": manifest["threshold"]}
    told = {"skipped_files": len(skipped), "skipped": skipped} if skip_faulty else {}
    return {**result, **view, **index, "formats": list(formats), "folder": out, **told}


def _documents(
    config: Config, sources: Sequence[str], kind: DocumentKind | None, skipped: list[dict[str, str]] | None
) -> Iterator[Document]:
    """The documents of paths and URIs; with a list `skipped`, faulty files are left out and added to it."""

    def skip(file: Path, error: Exception) -> None:
        assert skipped is not None
        logger.warning("left out: %s", error)
        skipped.append({"file": str(file), "error": str(error)})

    format = config.data.column_format(tagged=False)
    paths = list(map(path_or_uri, sources))
    return iter_documents(paths, kind, format=format, on_error=None if skipped is None else skip)
