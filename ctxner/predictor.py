"""A trained model -> entities, with or without passages. Passages are handed in, never fetched here.

Batch tagging, serving, evaluation and notebooks all go through `Tagger.predict`.
"""

# B sentences, T words, L tags

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ctxner.conll import split_sentences, split_words
from ctxner.labels import LabelSet, lenient_spans
from ctxner.model.tagger import EncoderCRF, load_tagger, load_tokenizer
from ctxner.schema import Entity, Example, Passage, ScoredPassage, Sentence, Span
from ctxner.views import View, ViewBuilder, pack_batches

ViewName = Literal["plain", "context"]
VIEWS: tuple[ViewName, ...] = ("plain", "context")
_CHUNK = 512  # sentences whose views are held at once


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one view says of one sentence.

    Attributes:
        sentence_id: Of the example.
        view: Which view answered; `context` also where no passage fitted.
        tags: BIOES, one a word.
        entities: In order; offsets are into the sentence's source text, or into its words joined by spaces.
        entropy: Of the distribution over whole tag sequences, in nats.
        passages: Of the context view, with `num_pieces` where used and `dropped` where not.
    """

    sentence_id: str
    view: ViewName
    tags: tuple[str, ...]
    entities: tuple[Entity, ...]
    entropy: float
    passages: tuple[ScoredPassage, ...] = ()

    @property
    def spans(self) -> tuple[Span, ...]:
        """The entities as typed word spans."""
        return tuple(Span(entity.first_word, entity.last_word, entity.type) for entity in self.entities)


class Tagger:
    """Tags text: `Tagger.from_pretrained(path).tag("some text")`.

    Args:
        model: A trained model; it is put in evaluation mode.
        tokenizer: The encoder's.
        batch_pieces: Pieces in one forward pass, padding included.
    """

    def __init__(self, model: EncoderCRF, tokenizer, *, batch_pieces: int = 8192) -> None:
        self.model, self.tokenizer, self.batch_pieces = model.eval(), tokenizer, batch_pieces
        config = model.config
        self.views = ViewBuilder(tokenizer, max_pieces=config.max_pieces, max_passages=config.max_passages)

    @classmethod
    def from_pretrained(cls, path: str | Path, *, device: str = "cpu", batch_pieces: int = 8192) -> Tagger:
        """Load a folder that `save_pretrained` wrote, or a hub id.

        Raises:
            ValueError: No model or tokenizer there.
        """
        model = load_tagger(path)
        model.to(device)  # type: ignore[arg-type]
        return cls(model, load_tokenizer(str(path)), batch_pieces=batch_pieces)

    def save_pretrained(self, path: str | Path) -> None:
        """Write config.json, model.safetensors and the tokenizer's files."""
        self.model.save_pretrained(path)
        self.tokenizer.save_pretrained(path)

    @property
    def labels(self) -> LabelSet:
        """The entity types and tags of the model."""
        return self.model.labels

    def tag(
        self,
        texts: str | Sequence[str | Sequence[str] | Sentence],
        *,
        passages: Sequence[str | Passage] | Mapping[str, Sequence[str | Passage]] | None = None,
    ) -> list[Entity] | list[list[Entity]]:
        """Entities of a text, or of several.

        Args:
            texts: A text (split into sentences and words here), or a sequence of texts, word lists or `Sentence`s.
            passages: Documents at hand, best first; they switch on the context view. For one text a sequence of
                passages; for several a mapping from the sentence's id (its position as a string, unless it is a
                `Sentence`) to its passages.

        Returns:
            Entities in order, character offsets into the text given (word lists: joined by single spaces); for several
            texts a list for each.

        Raises:
            ValueError: Passages for an unknown id, or a string in place of a sequence of passages.
        """
        if isinstance(texts, str):
            return self._tag_many([texts], {"0": passages or ()} if not isinstance(passages, Mapping) else passages)[0]
        if passages is not None and not isinstance(passages, Mapping):
            raise ValueError("passages of several texts: wanted a mapping from sentence id to passages, not a sequence")
        return self._tag_many(texts, passages or {})

    def _tag_many(self, texts, passages: Mapping[str, Sequence[str | Passage]]) -> list[list[Entity]]:
        parts = [sentences_of(text, str(number)) for number, text in enumerate(texts)]
        known = [own.id if isinstance(own, Sentence) else str(number) for number, own in enumerate(texts)]
        if strangers := set(passages) - set(known):
            raise ValueError(
                f"passages for unknown sentence ids {sorted(strangers, key=str)[:3]}; known: {known[:3]} ..."
            )
        examples = [
            Example(sentence, as_scored(passages.get(name, ())))
            for name, sentences in zip(known, parts, strict=True)
            for sentence in sentences
        ]
        view: ViewName = "context" if any(passages.values()) else "plain"
        found = iter(self.predict(examples, view=view))
        return [[entity for _ in sentences for entity in next(found).entities] for sentences in parts]

    def predict(
        self, examples: Sequence[Example], *, view: ViewName, on_progress: Callable[[int], None] | None = None
    ) -> list[Prediction]:
        """Tag sentences in one view.

        Args:
            examples: Sentences of at least one word; the plain view ignores their passages.
            view: `plain` or `context`.
            on_progress: Called with the number of sentences done so far.

        Returns:
            One prediction an example, in their order; it does not depend on which others share its batch.
        """
        predictions: list[Prediction] = []
        for first in range(0, len(examples), _CHUNK):
            predictions.extend(self._predict_chunk(examples[first : first + _CHUNK], view))
            if on_progress:
                on_progress(len(predictions))
        return predictions

    def _predict_chunk(self, examples: Sequence[Example], view: ViewName) -> list[Prediction]:
        build = self.views.context if view == "context" else lambda example: self.views.plain(example.sentence)
        views = [build(example) for example in examples]
        found: dict[int, Prediction] = {}
        for batch in pack_batches([(own.num_rows, own.longest_row) for own in views], max_pieces=self.batch_pieces):
            tags, confidences, entropies = self._decode([views[index] for index in batch])
            for place, index in enumerate(batch):
                entities = _entities(examples[index].sentence, tags[place], confidences[place])
                found[index] = Prediction(
                    views[index].sentence_id, view, tags[place], entities, entropies[place], views[index].passages
                )
        return [found[index] for index in range(len(examples))]

    @torch.inference_mode()
    def _decode(self, views: Sequence[View]) -> tuple[list[tuple[str, ...]], list[list[float]], list[float]]:
        """Best tags, the probability of each of their spans, and the sequence entropy, of each view."""
        batch = self.views.collate(views).to(self.model.device)
        _, emissions_BTL = self.model(batch.input_ids_RP, batch.attention_RP, batch.word_index_BT)
        crf, mask_BT = self.model.crf, batch.mask_BT
        best_BT, _ = crf.viterbi(emissions_BTL, mask_BT)
        entropies = crf.entropy(emissions_BTL, mask_BT).tolist()
        lengths = mask_BT.sum(1).tolist()
        ids = [row[:length] for row, length in zip(best_BT.tolist(), lengths, strict=True)]
        tags = [self.labels.decode(row) for row in ids]
        spans = [lenient_spans(row) for row in tags]
        probabilities = iter(
            crf.segment_probability(
                emissions_BTL,
                mask_BT,
                best_BT,
                [(place, span.start, span.end) for place, own in enumerate(spans) for span in own],
            ).tolist()
        )
        return tags, [[next(probabilities) for _ in own] for own in spans], entropies


def _entities(sentence: Sentence, tags: tuple[str, ...], confidences: Iterable[float]) -> tuple[Entity, ...]:
    text, offsets = sentence.located()
    found = []
    for span, confidence in zip(lenient_spans(tags), confidences, strict=True):
        start, end = offsets[span.start][0], offsets[span.end - 1][1]
        found.append(Entity(text[start:end], span.type, start, end, span.start, span.end, confidence))
    return tuple(found)


def sentences_of(text: str | Sequence[str] | Sentence, name: str) -> list[Sentence]:
    """The sentences of a text; word lists and `Sentence`s are one each, and nothing at all gives none."""
    if isinstance(text, Sentence):
        return [text] if text.words else []
    if not isinstance(text, str):
        return [Sentence(name, tuple(text))] if text else []
    found: list[Sentence] = []
    for start, end in split_sentences(text):
        offsets = tuple((start + first, start + last) for first, last in split_words(text[start:end]))
        if offsets:
            words = tuple(text[first:last] for first, last in offsets)
            found.append(Sentence(f"{name}-{len(found)}", words, offsets=offsets, text=text))
    return found


def as_scored(passages: Iterable[str | Passage | ScoredPassage]) -> tuple[ScoredPassage, ...]:
    """Passages at hand in the form that retrieval gives them; their order is their rank.

    Raises:
        ValueError: One string where a sequence of them is wanted.
    """
    if isinstance(passages, str):
        raise ValueError(
            f"passages: wanted a sequence of passages, found one string {passages[:40]!r}; put it in a list"
        )
    found = []
    for rank, passage in enumerate(passages, start=1):
        if isinstance(passage, str):
            passage = Passage(f"given-{rank}", "given", passage)
        found.append(passage if isinstance(passage, ScoredPassage) else ScoredPassage(passage, 0.0, rank))
    return tuple(found)
