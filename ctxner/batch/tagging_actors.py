"""The actors of a tagging job: they retrieve passages for parts of documents, tag the parts, and return rows.

The first actor that a part passes splits it into sentences. Retrieval gets all sentences in the context view, and in
`auto` only those of which the plain view is unsure. `ctxner.predictor` tags, `ctxner.batch.retrieval_actors` holds the
retrieval actors, and `ctxner.batch.tag` runs the job.

A part that fails is a row with an `error`, whatever the exception and whatever shares its batch: a batch that fails is
tried again part by part. Only an error of a broken actor (`is_broken`) ends the job here; `ctxner.batch.tagging_files`
ends it where too many documents have an error.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from ctxner.batch.pools import num_threads
from ctxner.batch.retrieval_actors import LooksUp, is_broken, message_of
from ctxner.batch.tagging_rows import (
    PartResult,
    entity_row,
    example_of,
    found_struct,
    joined,
    looked_up_column,
    looked_up_struct,
    sentences_of_part,
    tagged,
)
from ctxner.config import TaggingConfig
from ctxner.predictions import Prediction
from ctxner.predictor import Tagger
from ctxner.schema import Example, Sentence, ViewName, passage_row

logger = logging.getLogger(__name__)


class TagPlain:
    """Tags parts in the plain view (a Ray Data actor); in `auto` it also chooses the sentences to look up."""

    def __init__(self, model: str, tagging: Mapping[str, Any], threshold: float | None, with_words: bool) -> None:
        self.tagger, self.threshold = _RowTagger(model, tagging, with_words=with_words), threshold

    def __call__(self, parts: pa.Table) -> pa.Table:
        """Tagged parts; with a threshold, the given parts plus the columns `found`, `failed` and `looked_up`."""
        rows = parts.to_pylist()
        sentences, unsplit = _split(rows)
        results = self.tagger.tag(
            rows,
            [[(n, Example(sentence)) for n, sentence in enumerate(part_sentences)] for part_sentences in sentences],
            "plain",
        )
        results = [answers if error is None else error for answers, error in zip(results, unsplit, strict=True)]
        if self.threshold is None:
            return tagged(parts, results)
        given = [[] if isinstance(answers, str) else answers for answers in results]
        failed = [answers if isinstance(answers, str) else None for answers in results]
        unsure = [
            [n for n, sentence in enumerate(part_sentences) if sentence["entropy"] > self.threshold]
            for part_sentences in given
        ]
        parts = parts.append_column("found", pa.array(given, pa.list_(found_struct())))
        parts = parts.append_column("failed", pa.array(failed, pa.string()))
        return parts.append_column("looked_up", looked_up_column(rows, sentences, unsure))


class TagContext:
    """Tags looked-up sentences of parts in the context view (a Ray Data actor); others keep the plain view's answer."""

    def __init__(self, model: str, tagging: Mapping[str, Any], with_words: bool) -> None:
        self.tagger = _RowTagger(model, tagging, with_words=with_words)

    def __call__(self, parts: pa.Table) -> pa.Table:
        """Tagged parts."""
        rows = parts.to_pylist()
        examples = [
            [(sentence["number"], example_of(sentence, row["text"])) for sentence in row["looked_up"]] for row in rows
        ]
        results = self.tagger.tag(rows, examples, "context")
        return tagged(parts, [joined(row, answers) for row, answers in zip(rows, results, strict=True)])


class LookUp:
    """Runs a retrieval actor on sentences of parts: those that the plain view chose, or all if it made no choice.

    Args:
        actor: Class of the actor, from `ctxner.batch.retrieval_actors`.
        arguments: Arguments of its constructor.
    """

    def __init__(self, actor: type[LooksUp], *arguments: Any) -> None:
        self.retrieval = actor(*arguments)

    def __call__(self, parts: pa.Table) -> pa.Table:
        """The parts; the retrieval actor's values are added to their column `looked_up`.

        Where retrieval fails, the sentences of the part get an `error` and no passages.
        """
        if "looked_up" not in parts.column_names:
            rows = parts.to_pylist()
            sentences, failed = _split(rows)
            every = [range(len(part_sentences)) for part_sentences in sentences]
            parts = parts.append_column("looked_up", looked_up_column(rows, sentences, every))
            parts = parts.append_column("failed", pa.array(failed, pa.string()))
        looked_up = parts["looked_up"].to_pylist()
        self._look_up([[sentence for sentence in part if sentence["error"] is None] for part in looked_up])
        column = pa.array(looked_up, pa.list_(looked_up_struct()))
        return parts.set_column(parts.column_names.index("looked_up"), "looked_up", column)

    def _look_up(self, parts: Sequence[list[dict[str, Any]]]) -> None:
        """Add the retrieval actor's values to the sentences of each part."""
        parts = [part for part in parts if part]
        if not parts:
            return
        try:
            self.retrieval.look_up([sentence for part in parts for sentence in part])
        except Exception as error:
            if is_broken(error, num_parts=len(parts)):
                raise
            if len(parts) > 1:
                logger.warning("retrieval fails for %d parts, each is tried alone: %s", len(parts), error)
                for part in parts:
                    self._look_up([part])
                return
            for sentence in parts[0]:
                sentence |= {"passages": [], "error": message_of(error)}


class _RowTagger:
    """A tagger that returns its predictions as rows."""

    def __init__(self, model: str, tagging: Mapping[str, Any], *, with_words: bool) -> None:
        import torch

        self.settings, self.with_words = TaggingConfig(**tagging), with_words
        torch.set_num_threads(num_threads(self.settings.threads, self.settings.actors or 1, self.settings.gpus))
        self.tagger = Tagger.from_pretrained(
            model,
            device="cuda" if self.settings.gpus else "cpu",
            batch_pieces=self.settings.batch_pieces,
            window=self.settings.window,
            precision=self.settings.precision,
        )

    def tag(
        self,
        parts: Sequence[Mapping[str, Any]],
        examples: Sequence[Sequence[tuple[int, Example]]],
        view: ViewName,
    ) -> list[PartResult]:
        """One row per sentence of each part; or an error message for a part that fails even when tagged alone.

        Raises:
            Exception: Any error of a broken actor.
        """
        try:
            return self._tag(parts, examples, view)
        except Exception as error:
            if is_broken(error, num_parts=len(parts)):
                raise
            if len(parts) == 1:
                return [message_of(error)]
            logger.warning("a batch of %d parts fails, each is tried alone: %s", len(parts), error)
        return [
            result
            for part, example in zip(parts, examples, strict=True)
            for result in self.tag([part], [example], view)
        ]

    def _tag(
        self,
        parts: Sequence[Mapping[str, Any]],
        examples: Sequence[Sequence[tuple[int, Example]]],
        view: ViewName,
    ) -> list[PartResult]:
        flat = [example for part_examples in examples for _, example in part_examples]
        predictions = iter(self.tagger.predict(flat, view=view, n_best=self.settings.n_best))
        return [
            [self._row(part["start"], number, example.sentence, next(predictions)) for number, example in part_examples]
            for part, part_examples in zip(parts, examples, strict=True)
        ]

    def _row(self, start: int, number: int, sentence: Sentence, prediction: Prediction) -> dict[str, Any]:
        _, offsets = sentence.located()
        row: dict[str, Any] = {
            "start": start + offsets[0][0],
            "end": start + offsets[-1][1],
            "view": prediction.view,
            "reason": prediction.reason,
            "entropy": prediction.entropy,
            "entities": [entity_row(entity, start, number) for entity in prediction.entities],
        }
        if self.settings.passages:
            row["passages"] = [passage_row(passage) for passage in prediction.passages if passage.dropped is None]
        if self.with_words:
            row |= {"words": list(sentence.words), "tags": list(prediction.tags)}
        if self.settings.n_best:
            row["alternatives"] = [
                {
                    "probability": alternative.probability,
                    "entities": [
                        entity_row(alternative_entity, start, number) for alternative_entity in alternative.entities
                    ],
                }
                for alternative in prediction.alternatives
            ]
        return row


def _split(parts: Sequence[Mapping[str, Any]]) -> tuple[list[list[Sentence]], list[str | None]]:
    """The sentences of each part, and for a part that cannot be split no sentences and its error."""
    sentences, errors = list[list[Sentence]](), list[str | None]()
    for part in parts:
        try:
            sentences.append(sentences_of_part(part))
            errors.append(None)
        except Exception as error:
            sentences.append([])
            errors.append(message_of(error))
    return sentences, errors
