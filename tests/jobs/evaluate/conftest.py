"""Sentences whose gold is found in part, in a folder with a model, and the command's result on them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctxner.files.contexts import Context
from ctxner.files.jsonl import write_jsonl
from ctxner.predictor import Tagger
from ctxner.schema import Example, Passage, ScoredPassage, Sentence
from tests.contexts_files import write_contexts
from tests.jobs.evaluate.samples import NUM_SENTENCES, WORDS


def passage(rng: random.Random, rank: int) -> ScoredPassage:
    text = " ".join(rng.choices(WORDS, k=9))
    return ScoredPassage(Passage(f"p{rank}", "test", text), 1.0, rank + 1, rerank_score=rng.random())


@pytest.fixture(scope="module")
def examples(tagger: Tagger) -> list[Example]:
    """Sentences and passages; gold is what one of the views finds, or nothing."""
    rng = random.Random(0)
    sentences = [Sentence(f"test-{n}", tuple(rng.choices(WORDS, k=rng.randint(2, 25)))) for n in range(NUM_SENTENCES)]
    found = [Example(own, tuple(passage(rng, rank) for rank in range(rng.randint(0, 5)))) for own in sentences]
    plain, context = (tagger.predict(found, view=view) for view in ("plain", "context"))
    tags = [
        rng.choice((one.tags, other.tags, other.tags, ("O",) * len(one.tags)))
        for one, other in zip(plain, context, strict=True)
    ]
    return [
        Example(Sentence(own.sentence.id, own.sentence.words, tags=gold), own.passages)
        for own, gold in zip(found, tags, strict=True)
    ]


@pytest.fixture
def folder(examples: list[Example], tagger: Tagger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a model, the sentences, their contexts, and one sentence to train on."""
    write_jsonl([own.sentence for own in examples], tmp_path / "test.jsonl")
    write_jsonl([own.sentence for own in examples[:1]], tmp_path / "train.jsonl")
    rows = {own.sentence.id: Context(own.sentence.words, "q", own.passages) for own in examples}
    write_contexts(rows, tmp_path / "contexts" / "test.parquet")
    (tmp_path / "config.yaml").write_text("data: {train: train.jsonl, test: test.jsonl, contexts: contexts}\n")
    tagger.save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def evaluated(folder: Path, call: Callable[..., tuple[int, str, str]]) -> Callable[..., dict[str, Any]]:
    """The result of the command on the test split, as JSON."""

    def run(*arguments: object) -> dict[str, Any]:
        code, out, err = call("evaluate", "model", "-c", "config.yaml", *arguments, "--json")
        assert (code, out.count("\n")) == (0, 1), err
        return json.loads(out)

    return run
