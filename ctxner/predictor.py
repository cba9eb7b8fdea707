"""A trained model -> entities, with or without passages. The caller gives the passages; none are fetched here.

Batch tagging, serving, evaluation and notebooks all go through `Tagger.predict`.
"""

# B sentences, T words, L tags, N paths

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ctxner.encoders import load_tokenizer
from ctxner.evaluation.calibration import PlattScaling
from ctxner.files.node_copies import local
from ctxner.labels import LabelSet
from ctxner.model.calibration_file import Calibration, auto_threshold
from ctxner.model.tagger import EncoderCRF, load_tagger
from ctxner.predictions import Analysis, Prediction
from ctxner.schema import Entity, Example, Passage, Sentence, ViewName
from ctxner.schemes import lenient_spans
from ctxner.texts import as_scored, sentences_of
from ctxner.views.batches import pack_batches
from ctxner.views.view import View

if TYPE_CHECKING:
    from spacy.tokens import Doc

Texts = str | Iterable[str | Sequence[str] | Sentence]
Passages = Sequence[str | Passage] | Mapping[str, Sequence[str | Passage]]  # passages of one text, or by sentence id

_CPU_PIECES = 1024  # a layer's activations then fit the CPU's caches; with 8,192 a CPU is a third slower
_CPU_CALL_PIECES = 40  # on a CPU, reading a small encoder's weights takes as long as this many more pieces
_GPU_PIECES = 8192

_Path = tuple[tuple[str, ...], list[float]]  # tags of a sentence, and the probability of each span in them


class Tagger:
    """Tags text: `Tagger.from_pretrained(path).tag("some text")`.

    Args:
        model: A trained model; it is put in evaluation mode.
        tokenizer: Tokenizer of the encoder.
        batch_pieces: Pieces per forward pass, padding included; None: a number that suits the model's device.
        window: Number of sentences that are sorted by length together, and whose views are in memory at once.
        calibration: Scaling of the confidences, and threshold of `auto`; None: confidences are not scaled.
        bfloat16: Whether a float32 encoder computes in bfloat16, as a training step of that precision does.
    """

    def __init__(
        self,
        model: EncoderCRF,
        tokenizer,
        *,
        batch_pieces: int | None = None,
        window: int = 512,
        calibration: Calibration | None = None,
        bfloat16: bool = False,
    ) -> None:
        if window < 1:
            raise ValueError(f"window is {window} sentences; wanted at least 1")
        self.model, self.tokenizer = model.eval(), tokenizer
        self.batch_pieces = batch_pieces or (_CPU_PIECES if model.device.type == "cpu" else _GPU_PIECES)
        self.call_pieces = _CPU_CALL_PIECES if model.device.type == "cpu" else None
        self.window, self.calibration, self.bfloat16 = window, calibration, bfloat16
        self.views = model.view_builder(tokenizer)

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
        """Load a folder that `save_pretrained` wrote (or its URI), or a hub id.

        Args:
            path: Folder, whose `calibration.json` is read if there is one, or hub id.
            device: Device of the model, e.g. `cpu` or `cuda`.
            batch_pieces: See the class.
            window: See the class.
            precision: Precision of the encoder; with bfloat16 some tags differ, also with the rest of the batch.
            calibrated: Whether the folder's calibration is read.

        Raises:
            ValueError: There is no model or tokenizer, or the calibration belongs to other weights.
        """
        path = local(str(path))
        model = load_tagger(path)
        model.to(device)  # type: ignore[arg-type]
        model.encoder.to(getattr(torch, precision))
        calibration = Calibration.load(Path(path)) if calibrated else None
        tokenizer = load_tokenizer(path)
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
            texts: A text (split into sentences and words here), or any iterable of texts, word lists or `Sentence`s.
            passages: Passages to read, best first; with any, the context view answers. For one text a sequence of
                passages; for several texts a mapping from the text's id (its position as a string, or the id of a
                `Sentence`) to its passages.

        Returns:
            Entities in order, with character offsets into the given text (word lists: joined by single spaces); for
            several texts one list per text.

        Raises:
            ValueError: Passages for an unknown id, or passages in another form than these.
        """
        return self._tag_one(texts, passages) if isinstance(texts, str) else self._tag_many(texts, passages)

    def _tag_one(self, text: str, passages: Passages | None) -> list[Entity]:
        return self._tag_many([text], passages if isinstance(passages, Mapping) else {"0": passages or ()})[0]

    def _tag_many(self, texts: Texts, passages: Passages | None) -> list[list[Entity]]:
        passages, texts = {} if passages is None else passages, list(texts)
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

        Arguments and errors are those of `tag`.

        Returns:
            `entity_group`, `score`, `word`, `start` and `end` of each entity; for several texts one list per text.
        """
        if isinstance(texts, str):
            return [_group(entity) for entity in self._tag_one(texts, passages)]
        return [[_group(entity) for entity in entities] for entities in self._tag_many(texts, passages)]

    def to_spacy(self, text: str, *, passages: Sequence[str | Passage] | None = None) -> Doc:
        """A spaCy `Doc` with our words and sentences, `doc.ents`, and `ent._.confidence` of each entity.

        Arguments and errors are those of `tag`; ImportError without spaCy (`pip install 'ctxner[spacy]'`).
        """
        from ctxner.spacy_docs import make_doc

        return make_doc(text, sentences_of(text, "0"), self._tag_one(text, passages))

    def predict(
        self,
        examples: Iterable[Example],
        *,
        view: ViewName | Literal["auto"],
        threshold: float | None = None,
        n_best: int = 0,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Prediction]:
        """Tag sentences.

        Args:
            examples: Sentences of at least one word; the plain view ignores their passages.
            view: `plain`, `context`, or `auto`: plain first, then context for sentences whose plain entropy is above
                the threshold.
            threshold: Threshold of `auto`, in nats; None: the calibrated value.
            n_best: Number of `Prediction.alternatives`.
            on_progress: Called with the number of sentences done so far.

        Returns:
            One prediction per example, in order; the other sentences of a batch change only its rounding.

        Raises:
            ValueError: `auto` without a threshold, or a negative `n_best`.
        """
        if n_best < 0:
            raise ValueError(f"n_best is {n_best}; wanted 0 or more")
        limit = auto_threshold(self.calibration, threshold) if view == "auto" else None
        examples = list(examples)
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
        """The best path, the sequence entropy, and the `n_best` paths with their probabilities, per view."""
        batch = self.views.collate(views).to(self.model.device)
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bfloat16):  # not the CRF
            _, emissions_BTL = self.model(batch.input_ids_RP, batch.attention_RP, batch.word_index_BT)
        crf, mask_BT = self.model.crf, batch.mask_BT
        best_BT, _ = crf.viterbi(emissions_BTL, mask_BT)
        entropies = crf.entropy(emissions_BTL, mask_BT).tolist()
        best = self._spelled(emissions_BTL, mask_BT, best_BT)
        if not n_best:
            return best, entropies, [[] for _ in views]
        emissions_BTL = emissions_BTL.double()  # float32 is too coarse for the score of a long sentence
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
        """The tags of one path per sentence, and the probability of each span in them."""
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
