"""A tokenizer, sentences with passages to make views of, and what became of the passages in a view."""

import pytest
from transformers import AutoTokenizer

from ctxner.schema import Example, Passage, ScoredPassage, Sentence
from ctxner.views.view import View

WORDS = ["Internationalisation", "of", "Müller", "don't", "http://t.co/aB3xY9", "日本", "@user_1", "...", "O’Neil"]


@pytest.fixture(scope="module")
def tokenizer(minilm):
    return AutoTokenizer.from_pretrained(minilm)


def example_of(words, *texts, dropped=None) -> Example:
    passages = [
        ScoredPassage(Passage(f"p{n}", "wiki", text), 9.0 - n, n + 1, dropped=(dropped or {}).get(n))
        for n, text in enumerate(texts)
    ]
    return Example(Sentence("s", tuple(words)), tuple(passages))


def fates_of(view: View) -> list[str | int | None]:
    return [scored.dropped or scored.num_pieces for scored in view.passages]
