"""Files of sentences for tests, and sentences with tags for hypothesis."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

from hypothesis import strategies as st

from ctxner.schema import Sentence, Span
from ctxner.schemes import spans_to_tags

WORD = st.text(min_size=1, max_size=8).filter(lambda word: word.strip()) | st.sampled_from(
    ["#", "# x", "a b", "\ufeff"]
)


def columns(tmp_path: Path, content: str | bytes, name: str = "some.conll") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def jsonl(tmp_path: Path, *records: object) -> Path:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    return columns(tmp_path, "\n".join(lines) + "\n", "some.jsonl")


@st.composite
def tagged_sentences(draw, word=WORD):
    sentences = []
    for n in range(draw(st.integers(1, 4))):
        words = tuple(draw(st.lists(word, min_size=1, max_size=6)))
        cuts = sorted(draw(st.sets(st.integers(0, len(words)))))
        types = st.sampled_from(["per", "creative-work", None])
        spans = [Span(a, b, type) for a, b in pairwise(cuts) if (type := draw(types))]
        sentences.append(Sentence(f"some-{n}", words, spans_to_tags(spans, len(words))))
    return sentences
