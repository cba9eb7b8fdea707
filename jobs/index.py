"""`ctxner index`: corpus files -> a Lucene index with a manifest."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from ctxner.config import Config
from jobs.console import progress


def run(config: Config) -> dict[str, Any]:
    """Build the index of the config's index section; returns its manifest and the speed."""
    from ctxner.retrieval.index import build_index

    started = time.perf_counter()
    with progress("indexing passages", None) as done:
        manifest = build_index(
            config.index.corpus, config.index.folder, language=config.index.language, on_progress=done
        )
    seconds = time.perf_counter() - started
    return {
        "folder": str(config.index.folder),
        **dataclasses.asdict(manifest),
        "seconds": round(seconds, 2),
        "passages_per_second": round(manifest.num_documents / seconds),
    }


def plan(config: Config) -> dict[str, Any]:
    """What `run` would do."""
    from ctxner.retrieval.corpus import read_corpus
    from ctxner.retrieval.index import analyzer_for

    analyzer_for(config.index.language)
    with progress("reading passages", None) as done:
        num_passages = 0
        for num_passages, _ in enumerate(read_corpus(config.index.corpus), start=1):
            if num_passages % 1000 == 0:
                done(num_passages)
    return {"folder": str(config.index.folder), "language": config.index.language, "num_passages": num_passages}
