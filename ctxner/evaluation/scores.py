"""Span scores: counts that add up, precision / recall / F1, of all mentions or of groups such as seen and unseen.

A prediction is correct when its words and its type are exactly those of a gold mention. Every ratio with a zero
denominator is 0.0. `ctxner.schemes` turns tags into spans; `ctxner.evaluation.significance` compares systems.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ctxner.labels import gold_spans, mention_text
from ctxner.schema import Sentence, Span

Spans = Sequence[Sequence[Span]]  # the mentions of each sentence


@dataclass(frozen=True)
class Score:
    """Counts of mentions, and the ratios they give."""

    num_correct: int = 0
    num_predicted: int = 0
    num_gold: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(
            self.num_correct + other.num_correct,
            self.num_predicted + other.num_predicted,
            self.num_gold + other.num_gold,
        )

    @property
    def precision(self) -> float:
        """Share of the predicted mentions that are correct, in [0, 1]."""
        return self.num_correct / self.num_predicted if self.num_predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of the gold mentions that are predicted correctly, in [0, 1]."""
        return self.num_correct / self.num_gold if self.num_gold else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, in [0, 1]."""
        total = self.num_predicted + self.num_gold
        return 2 * self.num_correct / total if total else 0.0

    def to_dict(self) -> dict[str, float | int]:
        """Ratios and counts, for JSON."""
        return {
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "num_correct": self.num_correct,
            "num_predicted": self.num_predicted,
            "num_gold": self.num_gold,
        }


@dataclass(frozen=True)
class SpanCounts:
    """Counts per entity type; the counts of shards or ranks add up to the counts of the whole.

    Attributes:
        per_type: Counts by type, only of types that occur in gold or predicted mentions.
    """

    per_type: Mapping[str, Score] = field(default_factory=dict)

    def __add__(self, other: SpanCounts) -> SpanCounts:
        types = sorted({*self.per_type, *other.per_type})
        return SpanCounts(
            {type: self.per_type.get(type, Score()) + other.per_type.get(type, Score()) for type in types}
        )

    def scores(self) -> Scores:
        """The scores that these counts give."""
        return Scores(sum(self.per_type.values(), Score()), dict(self.per_type))


@dataclass(frozen=True)
class Scores:
    """Scores over all mentions (`micro`) and for each entity type."""

    micro: Score
    per_type: Mapping[str, Score]

    @property
    def precision(self) -> float:
        """Micro precision."""
        return self.micro.precision

    @property
    def recall(self) -> float:
        """Micro recall."""
        return self.micro.recall

    @property
    def f1(self) -> float:
        """Micro F1."""
        return self.micro.f1

    @property
    def macro_f1(self) -> float:
        """Unweighted mean F1 of the types that occur in gold or predicted mentions."""
        scores = self.per_type.values()
        return sum(score.f1 for score in scores) / len(scores) if scores else 0.0

    def to_dict(self) -> dict[str, object]:
        """Everything, for JSON."""
        per_type = {type: score.to_dict() for type, score in sorted(self.per_type.items())}
        return {"micro": self.micro.to_dict(), "macro_f1": self.macro_f1, "per_type": per_type}


def count_spans(gold: Spans, predicted: Spans) -> SpanCounts:
    """Counts per type over sentences in the same order; a mention given twice in a sentence counts once.

    Raises:
        ValueError: The two have different numbers of sentences.
    """
    _check_lengths(gold, predicted)
    correct: Counter[str] = Counter()
    predicted_counts: Counter[str] = Counter()
    wanted: Counter[str] = Counter()
    for sentence_gold, predicted_spans in zip(map(set, gold), map(set, predicted), strict=True):
        correct.update(span.type for span in sentence_gold & predicted_spans)
        predicted_counts.update(span.type for span in predicted_spans)
        wanted.update(span.type for span in sentence_gold)
    return SpanCounts(
        {
            type: Score(correct[type], predicted_counts[type], wanted[type])
            for type in sorted({*predicted_counts, *wanted})
        }
    )


def score_spans(gold: Spans, predicted: Spans) -> Scores:
    """Micro and per-type scores, as conlleval and seqeval's default mode give them; arguments as in `count_spans`."""
    return count_spans(gold, predicted).scores()


def surface_form(sentence: Sentence, span: Span) -> str:
    """A mention in the form that is compared across data sets: its words joined by a space, case folded."""
    return mention_text(sentence, span).casefold()


def mention_forms(sentences: Iterable[Sentence]) -> frozenset[str]:
    """Surface forms of all mentions of tagged sentences, whatever their type."""
    return frozenset(surface_form(sentence, span) for sentence in sentences for span in _gold(sentence))


def scores_by_seen(
    gold_sentences: Sequence[Sentence], predicted: Spans, train_mentions: Collection[str]
) -> dict[str, Score]:
    """Scores of mentions whose surface form occurs in training (`seen`) or not (`unseen`); both add up to all.

    Predicted mentions and gold mentions are each assigned by their own surface form.

    Args:
        gold_sentences: Tagged sentences.
        predicted: Predicted mentions of each sentence, in the same order.
        train_mentions: Surface forms from `mention_forms`.
    """

    def group_of(number: int, span: Span) -> str:
        return "seen" if surface_form(gold_sentences[number], span) in train_mentions else "unseen"

    return scores_by(gold_sentences, predicted, ("seen", "unseen"), group_of)


def scores_by(
    gold_sentences: Sequence[Sentence],
    predicted: Spans,
    groups: Sequence[str],
    group_of: Callable[[int, Span], str],
) -> dict[str, Score]:
    """Scores of groups of mentions, which add up to those of all.

    Args:
        gold_sentences: Tagged sentences.
        predicted: Predicted mentions of each sentence, in the same order.
        groups: Names of the groups.
        group_of: Group of a mention, gold or predicted, given the number of its sentence.
    """
    _check_lengths(gold_sentences, predicted)
    scores = {group: Score() for group in groups}
    for number, (sentence, answers) in enumerate(zip(gold_sentences, map(set, predicted), strict=True)):
        gold = _gold(sentence)
        for span in gold | answers:
            score = Score(int(span in gold and span in answers), int(span in answers), int(span in gold))
            scores[group_of(number, span)] += score
    return scores


def _gold(sentence: Sentence) -> set[Span]:
    return set(gold_spans(sentence))


def _check_lengths(gold: Sequence[object], predicted: Sequence[object]) -> None:
    if len(gold) != len(predicted):
        raise ValueError(
            f"{len(gold)} gold sentences but {len(predicted)} predicted; give one list of spans a sentence"
        )


def sentence_counts(gold: Spans, predicted: Spans) -> np.ndarray:
    """Counts of each sentence, [sentences, (correct, predicted, gold)], int64; arguments as in `count_spans`."""
    _check_lengths(gold, predicted)
    pairs = zip(map(set, gold), map(set, predicted), strict=True)
    rows = [(len(wanted & answers), len(answers), len(wanted)) for wanted, answers in pairs]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)
