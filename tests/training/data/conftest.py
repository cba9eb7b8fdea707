"""A builder of short views, sentences with passages to store views of, and a store of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from ctxner.schema import Example, Passage, ScoredPassage, Sentence
from ctxner.training.data.view_key import views_key
from ctxner.training.data.view_store import open_views
from ctxner.views.builder import ViewBuilder


@pytest.fixture(scope="module")
def tokenizer(minilm):
    return AutoTokenizer.from_pretrained(minilm)


@pytest.fixture
def builder(tokenizer):
    return ViewBuilder(tokenizer, max_pieces=24)


def example_of(words, *passages, id="s") -> Example:
    scored = (
        ScoredPassage(Passage(f"p{n}", "wiki", text), 1.0, n + 1, dropped=dropped, named=named)
        for n, (text, dropped, *named) in enumerate(passages)
    )
    return Example(Sentence(id, tuple(words)), tuple(scored))


def examples_of(num: int) -> list[Example]:
    return [
        example_of(
            ["Some", "words", f"w{n % 7}"] * (1 + n % 9),
            *(("Paris", None, (0, 1), (2, 3)), ("is", None, (1, 2)) if n % 2 else ("is", None), ("no", "below_depth")),
            id=f"s{n}",
        )
        for n in range(num)
    ]


def views_of(examples, builder, which):
    made = [builder.context(own) if which == "context" else builder.plain(own.sentence) for own in examples]
    return [replace(view, passages=()) for view in made]


def open_of(folder, examples, builder, which="context", **settings):
    return open_views(folder, views_key(examples, builder, which), examples, builder, which, **settings)
