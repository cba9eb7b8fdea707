"""What callers hand in -> what models and views take: texts -> sentences with offsets, passages -> scored ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ctxner.files.words import split_sentences, split_words
from ctxner.schema import Passage, ScoredPassage, Sentence


def sentences_of(
    text: str | Sequence[str] | Sentence, name: str, *, bounds: Iterable[tuple[int, int]] | None = None
) -> list[Sentence]:
    """The sentences of a text; word lists and `Sentence`s are one each, and nothing at all gives none.

    Args:
        text: What to split.
        name: Beginning of all ids.
        bounds: (start, end) of a text's sentences where they are known.
    """
    if isinstance(text, Sentence):
        return [text] if text.words else []
    if not isinstance(text, str):
        return [Sentence(name, tuple(text))] if text else []
    sentences: list[Sentence] = []
    for start, end in split_sentences(text) if bounds is None else bounds:
        offsets = tuple((start + first, start + last) for first, last in split_words(text[start:end]))
        if offsets:
            words = tuple(text[first:last] for first, last in offsets)
            sentences.append(Sentence(f"{name}-{len(sentences)}", words, offsets=offsets, text=text))
    return sentences


def as_scored(passages: Iterable[str | Passage | ScoredPassage]) -> tuple[ScoredPassage, ...]:
    """Passages at hand in the form that retrieval gives them; their order is their rank.

    Raises:
        ValueError: One string where a sequence of them is wanted.
    """
    if isinstance(passages, str):
        raise ValueError(
            f"passages: wanted a sequence of passages, found one string {passages[:40]!r}; put it in a list"
        )
    scored = []
    for rank, passage in enumerate(passages, start=1):
        if isinstance(passage, str):
            passage = Passage(f"given-{rank}", "given", passage)
        scored.append(passage if isinstance(passage, ScoredPassage) else ScoredPassage(passage, 0.0, rank))
    return tuple(scored)
