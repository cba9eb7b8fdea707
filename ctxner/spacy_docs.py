"""Making a spaCy `Doc` of a text, its words and its entities. The pipeline component is `ctxner.spacy_component`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache

from spacy.tokens import Doc, Span
from spacy.util import filter_spans
from spacy.vocab import Vocab

from ctxner.schema import Entity, Sentence


def make_doc(
    text: str, sentences: Sequence[Sentence], entities: Iterable[Entity], *, vocab: Vocab | None = None
) -> Doc:
    """A `Doc` whose tokens are our words, so that the borders of entities are borders of tokens.

    Characters between words are separate tokens, except one space, which spaCy stores with the word before. Thus
    `doc.text == text`, except that lone surrogates, which spaCy cannot hold, become U+FFFD (offsets stay).

    Args:
        text: Text of the document.
        sentences: Sentences of the text, with offsets into it.
        entities: Entities of the text.
        vocab: Vocabulary of the document, which keeps every word; None: one that all documents share.
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
            add(clean[first:last], number == 0 and end > 0)  # characters before the first word belong to its sentence
            end = last
    add_gap(clean[end:])
    doc = Doc(vocab or _vocab(), words=words, spaces=spaces, sent_starts=starts)
    set_entities(doc, entities)
    return doc


def set_entities(doc: Doc, entities: Iterable[Entity], *, overwrite: bool = False) -> None:
    """Set `doc.ents`, and `ent._.confidence` of each, by character offsets.

    Entities are extended to whole tokens. If two then overlap, the longer one stays; of equally long ones, the first.

    Args:
        doc: Document to change.
        entities: Entities of its text.
        overwrite: Whether they replace the entities that the document has; else those stay, and the entities that
            overlap one of them are left out.
    """
    if not Span.has_extension("confidence"):
        Span.set_extension("confidence", default=None)
    aligned = [
        (doc.char_span(entity.start, entity.end, entity.type, alignment_mode="expand"), entity) for entity in entities
    ]
    spans = {
        (span.start, span.end): (span, entity.confidence) for span, entity in reversed(aligned) if span is not None
    }
    before = [] if overwrite else list(doc.ents)
    taken = {number for span in before for number in range(span.start, span.end)}
    added = filter_spans([span for span, _ in spans.values() if taken.isdisjoint(range(span.start, span.end))])
    doc.ents = [*before, *added]
    for span in added:
        span._.confidence = spans[span.start, span.end][1]


@cache
def _vocab() -> Vocab:
    return Vocab()  # shared by all documents, so that they can be joined
