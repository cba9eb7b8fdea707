"""A text, its words and its entities as a spaCy `Doc`. The pipeline component is `ctxner.spacy_component`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache

from spacy.tokens import Doc, Span
from spacy.util import filter_spans
from spacy.vocab import Vocab

from ctxner.schema import Entity, Sentence


def make_doc(text: str, sentences: Sequence[Sentence], entities: Iterable[Entity]) -> Doc:
    """A `Doc` whose tokens are our words, so that every entity is exactly its tokens.

    What stands between words is a token of its own, but for the one space that spaCy keeps with the word before, so
    `doc.text == text`; only lone surrogates, which spaCy cannot hold, become U+FFFD (offsets stay).

    Args:
        text: Any.
        sentences: Of the text, with offsets into it.
        entities: Of the text.
    """
    clean = re.sub("[\ud800-\udfff]", "\ufffd", text)
    words: list[str] = []
    spaces: list[bool] = []
    starts: list[bool] = []

    def add(piece: str, begins: bool) -> None:
        starts.append(begins or not words)
        words.append(piece)
        spaces.append(False)

    def add_gap(gap: str) -> None:
        if words and gap.startswith(" "):
            spaces[-1], gap = True, gap[1:]
        if gap:
            add(gap, False)

    end = 0
    for sentence in sentences:
        for number, (first, last) in enumerate(sentence.located()[1]):
            add_gap(clean[end:first])
            add(clean[first:last], number == 0 and end > 0)  # what stands before the first word is of its sentence
            end = last
    add_gap(clean[end:])
    doc = Doc(_vocab(), words=words, spaces=spaces, sent_starts=starts)
    set_entities(doc, entities)
    return doc


def set_entities(doc: Doc, entities: Iterable[Entity]) -> None:
    """Set `doc.ents`, and `ent._.confidence` of each, by character offsets.

    Entities grow to whole tokens; where two then overlap, the longer one stays, the first of equal ones.
    """
    if not Span.has_extension("confidence"):
        Span.set_extension("confidence", default=None)
    found = [
        (doc.char_span(entity.start, entity.end, entity.type, alignment_mode="expand"), entity) for entity in entities
    ]
    spans = {(span.start, span.end): (span, entity.confidence) for span, entity in reversed(found) if span is not None}
    doc.ents = filter_spans([span for span, _ in spans.values()])
    for span in doc.ents:
        span._.confidence = spans[span.start, span.end][1]


@cache
def _vocab() -> Vocab:
    return Vocab()  # one for all, so that documents can be joined
