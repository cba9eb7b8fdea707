"""What lies behind a span score: kinds of errors, confusion of types, scores of parts, gains and losses.

Everything here is counted over mentions and adds up to the scores of `ctxner.evaluation.scores`. How far confidences
can be believed is `ctxner.evaluation.calibration`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ctxner.evaluation.scores import Score, Scores, SpanCounts, Spans
from ctxner.schema import Sentence, Span

Kind = Literal[  # from the closest to the least close
    "correct",
    "wrong_type",  # its words are right
    "wrong_boundary",  # its type is right and some of its words are
    "wrong_both",  # some of its words are right
    "missed",
    "spurious",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
LENGTHS = (10, 20, 30, 40)  # words; the last of each bucket

Outcome = Literal["gained", "lost", "even", "same"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True, slots=True)
class Match:
    """A gold mention, a predicted one, or one of each that belong together."""

    kind: Kind
    gold: Span | None
    predicted: Span | None

    @property
    def type(self) -> str:
        """Of the gold mention; of a spurious one its own."""
        span = self.gold or self.predicted
        assert span is not None
        return span.type


def match_mentions(gold: Iterable[Span], predicted: Iterable[Span]) -> list[Match]:
    """Give each mention of a sentence exactly one kind.

    A mention belongs to at most one of the other side. The closest pairs go first: by kind in the order of `KINDS`,
    then by the number of shared words, then from left to right. What is left over is missed or spurious. So there are
    as many matches with a gold mention as gold mentions, and likewise for predicted ones.
    """
    free_gold, free_predicted = set(gold), set(predicted)
    pairs = sorted(
        (KINDS.index(_kind(wanted, prediction)), -_shared_words(wanted, prediction), wanted, prediction)
        for wanted in free_gold
        for prediction in free_predicted
        if _shared_words(wanted, prediction) > 0
    )
    matches = []
    for kind, _, wanted, prediction in pairs:
        if wanted in free_gold and prediction in free_predicted:
            matches.append(Match(KINDS[kind], wanted, prediction))
            free_gold.remove(wanted)
            free_predicted.remove(prediction)
    missed = [Match("missed", span, None) for span in sorted(free_gold)]
    return matches + missed + [Match("spurious", None, span) for span in sorted(free_predicted)]


def count_kinds(matches: Iterable[Match]) -> dict[str, dict[Kind, int]]:
    """How many matches are of each kind, by type (see `Match.type`), types in alphabetical order."""
    counts = Counter((match.type, match.kind) for match in matches)
    return {type: {kind: counts[type, kind] for kind in KINDS} for type in sorted({type for type, _ in counts})}


def confusion(matches: Iterable[Match]) -> dict[tuple[str | None, str | None], int]:
    """How often words of a gold type were found to be of a predicted type, for mentions with the same words.

    (type, None) are gold mentions whose words nobody marked exactly, (None, type) predicted ones that are no gold
    mention's words. A gold type's row adds up to its gold mentions, a predicted type's column to the predicted ones.
    """
    cells: Counter[tuple[str | None, str | None]] = Counter()
    for match in matches:
        if match.gold and match.predicted and match.kind in ("correct", "wrong_type"):
            cells[match.gold.type, match.predicted.type] += 1
            continue
        if match.gold:
            cells[match.gold.type, None] += 1
        if match.predicted:
            cells[None, match.predicted.type] += 1
    return dict(cells)


def surface_scores(sentences: Sequence[Sentence], gold: Spans, predicted: Spans) -> Scores:
    """Scores over distinct mentions: pairs of words, as they are written, and type.

    A pair is correct when at least one mention of it is found in its place, so a form that is only found where it is
    no mention counts as wrong.

    Source: Derczynski et al., "Results of the WNUT2017 Shared Task" (2017), as its wnuteval.py counts.
    """
    wanted: set[tuple[tuple[str, ...], str]] = set()
    matched: set[tuple[tuple[str, ...], str]] = set()
    correct: set[tuple[tuple[str, ...], str]] = set()
    for sentence, gold_spans, predicted_spans in zip(sentences, map(set, gold), map(set, predicted), strict=True):
        for forms, spans in ((wanted, gold_spans), (matched, predicted_spans), (correct, gold_spans & predicted_spans)):
            forms |= {(sentence.words[span.start : span.end], span.type) for span in spans}
    counts = [Counter(type for _, type in forms) for forms in (correct, matched, wanted)]
    return SpanCounts(
        {type: Score(*(count[type] for count in counts)) for type in sorted({*counts[1], *counts[2]})}
    ).scores()


@dataclass(frozen=True, slots=True)
class Buckets:
    """Sentences in groups.

    Attributes:
        names: Names of the groups that have sentences, in order.
        places: Each sentence's group, an index into `names`.
    """

    names: tuple[str, ...]
    places: tuple[int, ...]

    def sizes(self) -> list[int]:
        """Sentences of each group."""
        counts = Counter(self.places)
        return [counts[place] for place in range(len(self.names))]

    def scores(self, gold: Spans, predicted: Spans) -> list[Score]:
        """Micro scores of each group; their sum is that of all sentences."""
        scores = [Score() for _ in self.names]
        for place, wanted, answers in zip(self.places, map(set, gold), map(set, predicted), strict=True):
            scores[place] += Score(len(wanted & answers), len(answers), len(wanted))
        return scores


def length_buckets(lengths: Sequence[int]) -> Buckets:
    """Sentences by their number of words, ten by ten and the longest together."""
    firsts = [1, *(last + 1 for last in LENGTHS)]
    names = [f"{first}–{last}" for first, last in zip(firsts, LENGTHS, strict=False)] + [f"over {LENGTHS[-1]}"]
    return _occurring(names, [bisect_left(LENGTHS, length) for length in lengths])


def count_buckets(counts: Sequence[int]) -> Buckets:
    """Sentences by a small number, such as that of their passages."""
    return _occurring([str(count) for count in range(max(counts, default=0) + 1)], counts)


def quantile_buckets(values: Sequence[float | None], *, num_buckets: int = 4) -> Buckets:
    """Sentences by a value, in groups of about the same size; those without one come first, as `none`.

    Equal values are never parted, so there may be fewer groups.
    """
    ordered = sorted(value for value in values if value is not None)
    lasts = sorted(
        {ordered[-(-len(ordered) * part // num_buckets) - 1] for part in range(1, num_buckets + 1)} if ordered else ()
    )
    firsts = [ordered[0], *(ordered[bisect_right(ordered, last)] for last in lasts[:-1])] if ordered else []
    names = ["none", *(f"{first:.2f}–{last:.2f}" for first, last in zip(firsts, lasts, strict=True))]
    return _occurring(names, [0 if value is None else 1 + bisect_left(lasts, value) for value in values])


@dataclass(frozen=True, slots=True)
class Change:
    """What another prediction changes in a sentence.

    Attributes:
        found: Gold mentions that only the new one has.
        lost: Gold mentions that only the old one has.
        withdrawn: Wrong mentions that only the old one has.
        added: Wrong mentions that only the new one has.
    """

    found: tuple[Span, ...]
    lost: tuple[Span, ...]
    withdrawn: tuple[Span, ...]
    added: tuple[Span, ...]

    @property
    def balance(self) -> int:
        """Errors (missed gold and wrong predicted mentions) that the old prediction has more than the new one."""
        return len(self.found) + len(self.withdrawn) - len(self.lost) - len(self.added)

    @property
    def outcome(self) -> Outcome:
        """`gained` with fewer errors, `lost` with more, `even` with as many others."""
        if self.balance:
            return "gained" if self.balance > 0 else "lost"
        return "even" if self.found or self.lost or self.withdrawn or self.added else "same"


def change(gold: Iterable[Span], old: Iterable[Span], new: Iterable[Span]) -> Change:
    """How a new prediction of a sentence differs from an old one."""
    wanted, before, after = set(gold), set(old), set(new)
    only_new, only_old = after - before, before - after
    parts = (only_new & wanted, only_old & wanted, only_old - wanted, only_new - wanted)
    return Change(*(tuple(sorted(part)) for part in parts))


def _kind(gold: Span, predicted: Span) -> Kind:
    """Of two mentions that share words."""
    same_type = gold.type == predicted.type
    if (gold.start, gold.end) == (predicted.start, predicted.end):
        return "correct" if same_type else "wrong_type"
    return "wrong_boundary" if same_type else "wrong_both"


def _shared_words(first: Span, second: Span) -> int:
    return min(first.end, second.end) - max(first.start, second.start)


def _occurring(names: Sequence[str], places: Sequence[int]) -> Buckets:
    """Buckets without the empty ones."""
    used = sorted(set(places))
    renumbered = {place: number for number, place in enumerate(used)}
    return Buckets(tuple(names[place] for place in used), tuple(renumbered[place] for place in places))
