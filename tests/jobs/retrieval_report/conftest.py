"""The working directory of the tests of `ctxner retrieval-report`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ctxner.files.contexts import Context
from tests.contexts_files import write_contexts
from tests.jobs.retrieval_report.samples import FOUND, SENTENCES, WORDS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two splits, contexts of dev, and a corpus."""
    for split, sentences in SENTENCES.items():
        blocks = ["\n".join(word.replace("/", "\t") for word in sentence.split()) for sentence in sentences]
        (tmp_path / f"{split}.conll").write_text("\n\n".join(blocks) + "\n\n")
    rows = {"dev-0": Context(WORDS["dev"][0], "kim^1.5 oslo^1.5", FOUND), "dev-1": Context(WORDS["dev"][1], "", ())}
    write_contexts(rows, tmp_path / "contexts" / "dev.parquet")
    corpus = [{"contents": own.passage.text} for own in FOUND] + [{"contents": "a boat of Dana and her sister"}]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(passage) + "\n" for passage in corpus))
    (tmp_path / "config.yaml").write_text(
        "data: {train: train.conll, dev: dev.conll, contexts: contexts}\n"
        "index: {corpus: [corpus.jsonl]}\nmodel: {max_pieces: 64}\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path
