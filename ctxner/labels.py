"""The labels of a sentence: its gold mentions, the tags that a model learns of them, and the ids of tags.

Gold mentions that tags cannot express are beside the tags (`Sentence.beyond_tags`). The schemes of tags are in
`ctxner.schemes`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ctxner.schema import Mention, Sentence, Span
from ctxner.schemes import legal_transitions, spans_to_tags, tags_to_spans, types_of


def gold_spans(sentence: Sentence) -> tuple[Span, ...]:
    """The gold mentions of a tagged sentence in order of position: those of its tags and those beyond them.

    A mention that no run of words is exactly becomes an empty span at a negative place, -1 for the first of
    `Sentence.beyond_tags`: it counts, and no prediction equals it. `mention_text` has its text.

    Raises:
        ValueError: The sentence has no tags (which does not mean that it has no mentions), or they break the scheme.
    """
    if sentence.tags is None:
        raise ValueError(f"sentence {sentence.id!r} has no gold tags; tag it or leave it out")
    spans = tags_to_spans(sentence.tags, source=f"sentence {sentence.id!r}")
    if not sentence.beyond_tags:
        return spans
    return tuple(sorted({*spans, *(_exact_span(sentence, place) for place in range(len(sentence.beyond_tags)))}))


def mention_text(sentence: Sentence, span: Span) -> str:
    """The words of a mention of `gold_spans` or of a prediction, joined by blanks; its text where it has no words."""
    if span.start < 0:
        return " ".join(sentence.beyond_tags[-1 - span.start].text.split())
    return " ".join(sentence.words[span.start : span.end])


def training_tags(sentence: Sentence) -> tuple[str, ...]:
    """The tags that a model learns: the gold tags, and each mention that cuts a word widened to the words it touches.

    Longer mentions come first. A mention is not widened over words that have a tag, nor if it goes on in another
    sentence: those words stay as they are.
    """
    tags = list(sentence.tags or ())
    for mention in sorted(sentence.beyond_tags, key=lambda mention: (mention.start - mention.end, mention)):
        span = touched_words(sentence.offsets or (), mention)
        if span is not None and all(tag == "O" for tag in tags[span.start : span.end]):
            num_words = span.end - span.start
            tags[span.start : span.end] = spans_to_tags([Span(0, num_words, span.type)], num_words)
    return tuple(tags)


def touched_words(offsets: Sequence[tuple[int, int]], mention: Span | Mention) -> Span | None:
    """The words that share characters with a mention; None where there are none, or it goes on beyond the words.

    Args:
        offsets: (start, end) of each word of a sentence, in characters.
        mention: Mention whose start and end are characters.
    """
    start = bisect_right(offsets, mention.start, key=lambda offset: offset[1])
    end = bisect_left(offsets, mention.end, key=lambda offset: offset[0])
    if start >= end or mention.start < offsets[0][0] or mention.end > offsets[-1][1]:
        return None
    return Span(start, end, mention.type)


def is_exact(offsets: Sequence[tuple[int, int]], span: Span, mention: Span | Mention) -> bool:
    """Whether words have exactly the characters of a mention from its first to its last."""
    return (offsets[span.start][0], offsets[span.end - 1][1]) == (mention.start, mention.end)


def _exact_span(sentence: Sentence, place: int) -> Span:
    mention, offsets = sentence.beyond_tags[place], sentence.offsets or ()
    span = touched_words(offsets, mention)
    return span if span and is_exact(offsets, span, mention) else Span(-1 - place, -1 - place, mention.type)


@dataclass(frozen=True)
class LabelSet:
    """The entity types of a model and the ids of their BIOES tags.

    Attributes:
        types: Entity types in the order of ids; saved with a model, since ids have no meaning without it.
    """

    types: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.types:
            raise ValueError("a LabelSet needs at least one entity type; got none")
        if len(set(self.types)) != len(self.types) or not all(self.types):
            raise ValueError(f"entity types must be distinct and not empty; got {self.types}")

    @classmethod
    def from_sentences(cls, sentences: Iterable[Sentence]) -> LabelSet:
        """The types that occur in the sentences' tags as training sees them (`training_tags`), sorted.

        Raises:
            ValueError: No sentence has tags, or no tag names a type.
        """
        tagged = [training_tags(sentence) for sentence in sentences if sentence.tags is not None]
        if not tagged:
            raise ValueError("no sentence has tags, so there are no entity types; give a file with a tag column")
        return cls.from_tags(tag for tags in tagged for tag in tags)

    @classmethod
    def from_tags(cls, tags: Iterable[str]) -> LabelSet:
        """The types that occur in BIOES tags, sorted; ValueError when all tags are O."""
        types = types_of(tags)
        if not types:
            raise ValueError("every tag is O, so there are no entity types; check the tag column and the scheme")
        return cls(types)

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """All tags in id order: O, then B-, I-, E-, S- of each type."""
        return ("O", *(f"{prefix}-{type}" for type in self.types for prefix in "BIES"))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {tag: id for id, tag in enumerate(self.tags)}

    def __len__(self) -> int:
        return len(self.tags)

    def encode(self, tags: Sequence[str], *, source: str = "") -> list[int]:
        """The ids of BIOES tags.

        Raises:
            ValueError: A tag is unknown; the message begins with `source` and lists the known types.
        """
        ids = self._ids
        for index, tag in enumerate(tags):
            if tag not in ids:
                where = f"{source}: " if source else ""
                raise ValueError(
                    f"{where}word {index}: unknown tag {tag!r}; wanted O or B-, I-, E-, S- with one of the types "
                    f"{', '.join(self.types)}; train on data that has this type, or map it before"
                )
        return [ids[tag] for tag in tags]

    def decode(self, ids: Sequence[int]) -> tuple[str, ...]:
        """The tags of ids; ValueError when an id is out of range."""
        for id in ids:
            if not 0 <= id < len(self):
                raise ValueError(f"label id {id} is outside 0..{len(self) - 1} of the types {', '.join(self.types)}")
        return tuple(self.tags[id] for id in ids)

    def legal_transitions(self) -> tuple[list[bool], list[list[bool]], list[bool]]:
        """Which tags may begin a sentence [L], follow each other [L from][L to], and end it [L], by BIOES."""
        return legal_transitions(self.tags)
