"""Analyses of a span score: kinds of errors, confusion of types, scores of groups of sentences, gains and losses.

Except for `surface_scores`, all counts are of mentions and add up to the scores of `ctxner.evaluation.scores`.
`ctxner.evaluation.calibration` measures confidences.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ctxner.evaluation.scores import Score, Scores, SpanCounts, Spans
from ctxner.labels import mention_text
from ctxner.schema import Sentence, Span

Kind = Literal[  # from the closest match to no match
    "correct",
    "wrong_type",  # the words are right
    "wrong_boundary",  # the type and some of the words are right
    "wrong_both",  # only some of the words are right
    "missed",
    "spurious",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
LENGTHS = (10, 20, 30, 40)  # largest number of words in each bucket

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
        """Type of the gold mention; without a gold mention, type of the predicted one."""
        span = self.gold or self.predicted
        assert span is not None
        return span.type


def match_mentions(gold: Iterable[Span], predicted: Iterable[Span]) -> list[Match]:
    """Give each mention of a sentence exactly one kind.

    A gold mention is paired with at most one predicted mention, and the reverse. The closest pairs are made first: by
    kind in the order of `KINDS`, then by the number of shared words, then from left to right. Unpaired mentions are
    missed or spurious. So every gold mention and every predicted mention is in exactly one match.
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
    """Number of matches of each kind per type (see `Match.type`), types in alphabetical order."""
    counts = Counter((match.type, match.kind) for match in matches)
    return {type: {kind: counts[type, kind] for kind in KINDS} for type in sorted({type for type, _ in counts})}


def confusion(matches: Iterable[Match]) -> dict[tuple[str | None, str | None], int]:
    """Number of matches per (gold type, predicted type), for pairs of mentions with exactly the same words.

    (type, None) counts gold mentions without a predicted mention of the same words, (None, type) the reverse. The row
    of a gold type adds up to its gold mentions, the column of a predicted type to its predicted mentions.
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

    A pair is correct when at least one of its gold mentions is predicted at the right place. A pair that is predicted
    only at other places counts as wrong.

    Source: Derczynski et al., "Results of the WNUT2017 Shared Task" (2017), as its wnuteval.py counts.
    """
    wanted, matched, correct = set[tuple[str, str]](), set[tuple[str, str]](), set[tuple[str, str]]()
    for sentence, gold_spans, predicted_spans in zip(sentences, map(set, gold), map(set, predicted), strict=True):
        for forms, spans in ((wanted, gold_spans), (matched, predicted_spans), (correct, gold_spans & predicted_spans)):
            forms |= {(mention_text(sentence, span), span.type) for span in spans}
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
        """Number of sentences per group."""
        counts = Counter(self.places)
        return [counts[place] for place in range(len(self.names))]

    def scores(self, gold: Spans, predicted: Spans) -> list[Score]:
        """Micro scores per group; they add up to the score of all sentences."""
        scores = [Score() for _ in self.names]
        for place, wanted, answers in zip(self.places, map(set, gold), map(set, predicted), strict=True):
            scores[place] += Score(len(wanted & answers), len(answers), len(wanted))
        return scores


def length_buckets(lengths: Sequence[int]) -> Buckets:
    """Sentences grouped by number of words: ranges of ten words, and one group for the longest sentences."""
    firsts = [1, *(last + 1 for last in LENGTHS)]
    names = [f"{first}–{last}" for first, last in zip(firsts, LENGTHS, strict=False)] + [f"over {LENGTHS[-1]}"]
    return _occurring(names, [bisect_left(LENGTHS, length) for length in lengths])


def count_buckets(counts: Sequence[int]) -> Buckets:
    """Sentences grouped by a small number, e.g. their number of passages."""
    return _occurring([str(count) for count in range(max(counts, default=0) + 1)], counts)


def quantile_buckets(values: Sequence[float | None], *, num_buckets: int = 4) -> Buckets:
    """Sentences grouped by a value, in groups of similar size; sentences without a value are the first group, `none`.

    Equal values always share a group, so there may be fewer groups.
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
    """Differences between an old and a new prediction of a sentence.

    Attributes:
        found: Gold mentions that only the new prediction has.
        lost: Gold mentions that only the old prediction has.
        withdrawn: Wrong mentions that only the old prediction has.
        added: Wrong mentions that only the new prediction has.
    """

    found: tuple[Span, ...]
    lost: tuple[Span, ...]
    withdrawn: tuple[Span, ...]
    added: tuple[Span, ...]

    @property
    def balance(self) -> int:
        """Errors (missed gold and wrong predicted mentions) of the old prediction minus those of the new one."""
        return len(self.found) + len(self.withdrawn) - len(self.lost) - len(self.added)

    @property
    def outcome(self) -> Outcome:
        """`gained` with fewer errors, `lost` with more, `even` with as many but other errors, `same` otherwise."""
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
    """Kind of a pair of mentions that share words."""
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
