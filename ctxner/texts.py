"""Converts what callers give to what models and views take: texts to sentences, passages to scored passages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ctxner.files.abbreviations import with_abbreviations
from ctxner.files.words import split_text
from ctxner.schema import Passage, ScoredPassage, Sentence


def sentences_of(
    text: str | Sequence[str] | Sentence,
    name: str,
    *,
    bounds: Iterable[tuple[int, int]] | None = None,
    abbreviations: Iterable[tuple[str, str]] = (),
) -> list[Sentence]:
    """The sentences of a text. A word list or a `Sentence` is one sentence; an empty input has none.

    Args:
        text: Text to split, or words that are split already.
        name: Beginning of the ids of all new sentences, and the id of the document that a split text is.
        bounds: (start, end) of the sentences of a text, if they are known.
        abbreviations: Short and long forms that the document defines before this text.
    """
    if isinstance(text, Sentence):
        return [text] if text.words else []
    if not isinstance(text, str):
        return [Sentence(name, tuple(text))] if text else []
    sentences = [
        Sentence(
            f"{name}-{number}",
            tuple(text[start:end] for start, end in offsets),
            offsets=offsets,
            text=text,
            document=name,
        )
        for number, offsets in enumerate(split_text(text, bounds))
    ]
    return list(with_abbreviations(sentences, before=abbreviations))


def as_scored(passages: Iterable[str | Passage | ScoredPassage]) -> tuple[ScoredPassage, ...]:
    """The given passages in the form that retrieval returns; their order is their rank.

    Raises:
        ValueError: `passages` is one string and not a sequence.
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
