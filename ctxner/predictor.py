"""A trained model -> entities, with or without passages. Passages are handed in, never fetched here.

Batch tagging, serving, evaluation and notebooks all go through `Tagger.predict`.
"""

# B sentences, T words, L tags, N paths

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ctxner.encoders import load_tokenizer
from ctxner.evaluation.calibration import PlattScaling
from ctxner.labels import LabelSet, lenient_spans
from ctxner.model.calibration_file import Calibration, auto_threshold
from ctxner.model.tagger import EncoderCRF, load_tagger
from ctxner.schema import Entity, Example, Passage, Reason, ScoredPassage, Sentence, Span, ViewName
from ctxner.texts import as_scored, sentences_of
from ctxner.views import View, ViewBuilder, pack_batches

if TYPE_CHECKING:
    from spacy.tokens import Doc

Texts = str | Sequence[str | Sequence[str] | Sentence]
Passages = Sequence[str | Passage] | Mapping[str, Sequence[str | Passage]]  # of one text, or by sentence id

_CPU_PIECES = 1024  # what a layer makes of them stays in the caches; with 8,192 a CPU is a third slower
_CPU_CALL_PIECES = 40  # reading a small encoder's weights takes a CPU as long as so many pieces more
_GPU_PIECES = 8192

_Path = tuple[tuple[str, ...], list[float]]  # tags of a sentence, and the probability of each of their spans


@dataclass(frozen=True, slots=True)
class Analysis:
    """One of the best tag paths of a sentence: its exact probability, BIOES tags and entities."""

    probability: float
    tags: tuple[str, ...]
    entities: tuple[Entity, ...]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one view says of one sentence.

    Attributes:
        sentence_id: Id of the example's sentence.
        view: View that answered. A sentence beside which no passage fitted has the plain view's answer.
        reason: Why it is the plain view's though more was asked for: `confident` in `auto`, `no_hits` where there was
            no passage or none fitted (beside a sentence that is cut into windows none does); otherwise None.
        tags: BIOES tags, one per word.
        entities: In order; offsets are into the sentence's source text, or into its words joined by spaces.
        entropy: Entropy of the distribution over whole tag sequences, in nats, in the view that answered.
        passages: Passages of the context view, with `num_pieces` where used and `dropped` where not.
        alternatives: The best tag paths, best first, when asked for; fewer where fewer have a probability above 0.
    """

    sentence_id: str
    view: ViewName
    tags: tuple[str, ...]
    entities: tuple[Entity, ...]
    entropy: float
    passages: tuple[ScoredPassage, ...] = ()
    alternatives: tuple[Analysis, ...] = ()
    reason: Reason | None = None

    @property
    def spans(self) -> tuple[Span, ...]:
        """The entities as typed word spans."""
        return tuple(Span(entity.first_word, entity.last_word, entity.type) for entity in self.entities)


class Tagger:
    """Tags text: `Tagger.from_pretrained(path).tag("some text")`.

    Args:
        model: A trained model; it is put in evaluation mode.
        tokenizer: The encoder's.
        batch_pieces: Pieces in one forward pass, padding included; None: what the model's device is fast with.
        window: Sentences that are sorted by length together, and whose views are held at once.
        calibration: Makes confidences those that dev data bear out, and holds the threshold of `auto`.
    """

    def __init__(
        self,
        model: EncoderCRF,
        tokenizer,
        *,
        batch_pieces: int | None = None,
        window: int = 512,
        calibration: Calibration | None = None,
    ) -> None:
        if window < 1:
            raise ValueError(f"window is {window} sentences; wanted at least 1")
        self.model, self.tokenizer = model.eval(), tokenizer
        self.batch_pieces = batch_pieces or (_CPU_PIECES if model.device.type == "cpu" else _GPU_PIECES)
        self.call_pieces = _CPU_CALL_PIECES if model.device.type == "cpu" else None
        self.window, self.calibration = window, calibration
        config = model.config
        self.views = ViewBuilder(tokenizer, max_pieces=config.max_pieces, max_passages=config.max_passages)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        device: str = "cpu",
        batch_pieces: int | None = None,
        window: int = 512,
        precision: Literal["float32", "bfloat16"] = "float32",
        calibrated: bool = True,
    ) -> Tagger:
        """Load a folder that `save_pretrained` wrote, or a hub id.

        Args:
            path: Folder, with its `calibration.json` if there is one, or hub id, without.
            device: E.g. `cpu` or `cuda`.
            batch_pieces: As of the class.
            window: As of the class.
            precision: Precision of the encoder; in bfloat16 tags may differ a little, also with what shares a batch.
            calibrated: False leaves the folder's calibration unread.

        Raises:
            ValueError: No model or tokenizer there, or a calibration of other weights.
        """
        model = load_tagger(path)
        model.to(device)  # type: ignore[arg-type]
        model.encoder.to(getattr(torch, precision))
        calibration = Calibration.load(Path(path)) if calibrated else None
        tokenizer = load_tokenizer(str(path))
        return cls(model, tokenizer, batch_pieces=batch_pieces, window=window, calibration=calibration)

    def save_pretrained(self, path: str | Path) -> None:
        """Write config.json, model.safetensors, the tokenizer's files and the calibration."""
        self.model.save_pretrained(path)
        self.tokenizer.save_pretrained(path)
        if self.calibration:
            self.calibration.save(Path(path))

    @property
    def labels(self) -> LabelSet:
        """The entity types and tags of the model."""
        return self.model.labels

    def tag(self, texts: Texts, *, passages: Passages | None = None) -> list[Entity] | list[list[Entity]]:
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
        return self._tag_one(texts, passages) if isinstance(texts, str) else self._tag_many(texts, passages)

    def _tag_one(self, text: str, passages: Passages | None) -> list[Entity]:
        return self._tag_many([text], passages if isinstance(passages, Mapping) else {"0": passages or ()})[0]

    def _tag_many(self, texts: Texts, passages: Passages | None) -> list[list[Entity]]:
        passages = {} if passages is None else passages
        if not isinstance(passages, Mapping):
            raise ValueError("passages of several texts: wanted a mapping from sentence id to passages, not a sequence")
        parts = [sentences_of(text, str(number)) for number, text in enumerate(texts)]
        known = [text.id if isinstance(text, Sentence) else str(number) for number, text in enumerate(texts)]
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
        predictions = iter(self.predict(examples, view=view))
        return [[entity for _ in sentences for entity in next(predictions).entities] for sentences in parts]

    def pipeline(
        self, texts: Texts, *, passages: Passages | None = None
    ) -> list[dict[str, Any]] | list[list[dict[str, Any]]]:
        """Entities in the form of Hugging Face's `pipeline("token-classification", aggregation_strategy=...)`.

        Arguments and errors as `tag`.

        Returns:
            `entity_group`, `score`, `word`, `start` and `end` of each entity; for several texts a list for each.
        """
        if isinstance(texts, str):
            return [_group(entity) for entity in self._tag_one(texts, passages)]
        return [[_group(entity) for entity in entities] for entities in self._tag_many(texts, passages)]

    def to_spacy(self, text: str, *, passages: Sequence[str | Passage] | None = None) -> Doc:
        """A spaCy `Doc` of our words and sentences, with `doc.ents` and each one's `ent._.confidence`.

        Arguments and errors as `tag`; ImportError without spaCy (`pip install 'ctxner[spacy]'`).
        """
        from ctxner.spacy_docs import make_doc

        return make_doc(text, sentences_of(text, "0"), self._tag_one(text, passages))

    def predict(
        self,
        examples: Sequence[Example],
        *,
        view: ViewName | Literal["auto"],
        threshold: float | None = None,
        n_best: int = 0,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Prediction]:
        """Tag sentences.

        Args:
            examples: Sentences of at least one word; the plain view ignores their passages.
            view: `plain`, `context`, or `auto`: plain first, then context where the plain view's entropy is above the
                threshold.
            threshold: Threshold of `auto`, in nats; None: the calibrated one.
            n_best: Number of `Prediction.alternatives`.
            on_progress: Called with the number of sentences done so far.

        Returns:
            One prediction per example, in their order; what shares its batch changes no more than rounding.

        Raises:
            ValueError: `auto` without a threshold, or a negative `n_best`.
        """
        if n_best < 0:
            raise ValueError(f"n_best is {n_best}; wanted 0 or more")
        limit = auto_threshold(self.calibration, threshold) if view == "auto" else None
        predictions: list[Prediction] = []
        for first in range(0, len(examples), self.window):
            window = examples[first : first + self.window]
            answers = self._answer(window, "context" if view == "context" else "plain", n_best)
            if limit is not None:
                unsure = [place for place, answer in enumerate(answers) if answer.entropy > limit]
                looked_up = self._answer([window[place] for place in unsure], "context", n_best)
                answers = [dataclasses.replace(answer, reason="confident") for answer in answers]
                for place, answer in zip(unsure, looked_up, strict=True):
                    answers[place] = answer
            predictions.extend(answers)
            if on_progress:
                on_progress(len(predictions))
        return predictions

    def _answer(self, examples: Sequence[Example], view: ViewName, n_best: int) -> list[Prediction]:
        build = self.views.context if view == "context" else lambda example: self.views.plain(example.sentence)
        views = [build(example) for example in examples]
        scalings = self.calibration.confidence if self.calibration else {}
        predictions: dict[int, Prediction] = {}
        shapes = [(built.num_rows, built.longest_row) for built in views]
        for batch in pack_batches(shapes, max_pieces=self.batch_pieces, call_pieces=self.call_pieces):
            best, entropies, ranked = self._decode([views[index] for index in batch], n_best)
            for place, index in enumerate(batch):
                read, sentence = views[index], examples[index].sentence
                has_read = view == "plain" or any(passage.dropped is None for passage in read.passages)
                answering: ViewName = view if has_read else "plain"
                scaling = scalings.get(answering)
                predictions[index] = Prediction(
                    read.sentence_id,
                    answering,
                    best[place][0],
                    _entities(sentence, best[place], scaling),
                    entropies[place],
                    read.passages,
                    tuple(Analysis(p, path[0], _entities(sentence, path, scaling)) for p, path in ranked[place]),
                    None if has_read else "no_hits",
                )
        return [predictions[index] for index in range(len(examples))]

    @torch.inference_mode()
    def _decode(
        self, views: Sequence[View], n_best: int
    ) -> tuple[list[_Path], list[float], list[list[tuple[float, _Path]]]]:
        """The best path, the sequence entropy, and the `n_best` paths with their probabilities, of each view."""
        batch = self.views.collate(views).to(self.model.device)
        _, emissions_BTL = self.model(batch.input_ids_RP, batch.attention_RP, batch.word_index_BT)
        crf, mask_BT = self.model.crf, batch.mask_BT
        best_BT, _ = crf.viterbi(emissions_BTL, mask_BT)
        entropies = crf.entropy(emissions_BTL, mask_BT).tolist()
        best = self._spelled(emissions_BTL, mask_BT, best_BT)
        if not n_best:
            return best, entropies, [[] for _ in views]
        emissions_BTL = emissions_BTL.double()  # a long sentence's score has no digits left in float32
        paths_BNT, score_BN = crf.n_best(emissions_BTL, mask_BT, n_best)
        p_BN = (score_BN - crf.log_partition(emissions_BTL, mask_BT).unsqueeze(1)).exp().clamp_max(1.0)
        ranks = [self._spelled(emissions_BTL, mask_BT, path_BT) for path_BT in paths_BNT.unbind(1)]
        rows = enumerate(p_BN.tolist())
        return (
            best,
            entropies,
            [[(p, ranks[n][row]) for n, p in enumerate(row_probabilities) if p > 0] for row, row_probabilities in rows],
        )

    def _spelled(self, emissions_BTL: Tensor, mask_BT: Tensor, path_BT: Tensor) -> list[_Path]:
        """The tags of one path per sentence, and the probability of each of their spans."""
        lengths = mask_BT.sum(1).tolist()
        ids = [row[:length] for row, length in zip(path_BT.tolist(), lengths, strict=True)]
        tags = [self.labels.decode(row) for row in ids]
        spans = [lenient_spans(row) for row in tags]
        places = [
            (place, span.start, span.end) for place, sentence_spans in enumerate(spans) for span in sentence_spans
        ]
        probabilities = iter(self.model.crf.segment_probability(emissions_BTL, mask_BT, path_BT, places).tolist())
        return [(row, [next(probabilities) for _ in span]) for row, span in zip(tags, spans, strict=True)]


def _entities(sentence: Sentence, path: _Path, scaling: PlattScaling | None) -> tuple[Entity, ...]:
    text, offsets = sentence.located()
    entities = []
    for span, confidence in zip(lenient_spans(path[0]), path[1], strict=True):
        start, end = offsets[span.start][0], offsets[span.end - 1][1]
        confidence = scaling(confidence) if scaling else confidence
        entities.append(Entity(text[start:end], span.type, start, end, span.start, span.end, confidence))
    return tuple(entities)


def _group(entity: Entity) -> dict[str, Any]:
    return {
        "entity_group": entity.type,
        "score": entity.confidence,
        "word": entity.text,
        "start": entity.start,
        "end": entity.end,
    }
