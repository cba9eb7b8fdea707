"""The report of a run: one self-contained HTML page with scores, curves, tagged sentences and facts.

This module checks the inputs, bounds them and computes what is drawn; `templates/report.html.j2` is the page itself and
`jobs.pages.page` writes it. Nothing is scored here: F1 comes from `ctxner.evaluation.scores`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Literal

from ctxner.schema import Entity, ScoredPassage, Span
from jobs.pages.charts import VIEWS, EpochPoint, loss_labels, panels
from jobs.pages.page import DROPPED, clip, write_page

MAX_WORDS = 400  # per sentence
MAX_WORD_LENGTH = 80  # characters
MAX_PASSAGES = 20  # per sentence
MAX_PASSAGE_LENGTH = 1200  # characters

OUTCOMES = {
    "fixed": "Context view fixed it",
    "broke": "Context view broke it",
    "both-right": "Both right",
    "both-wrong": "Both wrong",
}


@dataclass(frozen=True, slots=True)
class TaggedSentence:
    """A sentence with its true mentions and what each view found.

    Attributes:
        id: The sentence's id.
        words: The sentence's words; all spans and entities index them.
        gold: True mentions.
        plain: Mentions found without passages.
        context: Mentions found with passages.
        passages: Retrieved passages, kept ones first.
    """

    id: str
    words: tuple[str, ...]
    gold: tuple[Span, ...]
    plain: tuple[Entity, ...]
    context: tuple[Entity, ...]
    passages: tuple[ScoredPassage, ...] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """A highlighted mention: words[start_word:end_word].

    Attributes:
        confidence: In [0, 1], or None for a true mention.
        state: How it compares with the true mentions; `gold` is a true mention, `missed` one that a view did not find.
    """

    start_word: int
    end_word: int
    type: str
    confidence: float | None
    state: Literal["gold", "right", "wrong type", "wrong extent", "not a mention", "missed"]


def write_report(
    path: Path,
    *,
    title: str,
    scores: Mapping[str, Mapping[str, Mapping[str, float]]],
    curves: Sequence[EpochPoint],
    sentences: Sequence[TaggedSentence],
    facts: Mapping[str, str],
    max_sentences: int = 200,
) -> Path:
    """Write the page under a temporary name, then rename it; the page loads nothing from the network.

    Args:
        path: HTML file to write; its folder is made if it is missing.
        title: Heading of the page.
        scores: mode -> view -> `precision`, `recall`, `f1`, in [0, 1]. The first mode is the baseline.
        curves: One point per mode and epoch, in any order.
        sentences: Tagged sentences; the page counts all and shows `max_sentences`, evenly from the four outcomes.
        facts: What a reader needs to repeat the run: versions, sizes, timings.
        max_sentences: Largest number of sentences shown.

    Returns:
        `path`.

    Raises:
        ValueError: A score is outside [0, 1], or a mention does not fit its sentence.
    """
    shown = _choose(sentences, max_sentences)
    modes = list(dict.fromkeys([*scores, *(point.mode for point in curves)]))
    types = sorted({type for sentence in shown for type in _types(sentence)})
    return write_page(
        path,
        "report.html.j2",
        title=title,
        eyebrow="ctxner report",
        views=VIEWS,
        rows=score_rows(scores),
        figures=panels(curves, modes),
        modes=modes,
        points=sorted(curves, key=lambda point: (point.mode, point.epoch)),
        outcomes=OUTCOMES,
        counts=Counter(outcome(sentence) for sentence in sentences),
        num_sentences=len(sentences),
        dropped=DROPPED,
        losses=loss_labels(curves),
        max_words=MAX_WORDS,
        cards=[_card(sentence, types) for sentence in shown],
        types=types,
        facts=facts,
    )


def outcome(sentence: TaggedSentence) -> str:
    """The key in `OUTCOMES`: a view is right when it finds all true mentions with their types and nothing else."""
    gold = {(span.start, span.end, span.type) for span in sentence.gold}
    plain_right, context_right = (
        {(entity.first_word, entity.last_word, entity.type) for entity in entities} == gold
        for entities in (sentence.plain, sentence.context)
    )
    if plain_right == context_right:
        return "both-right" if plain_right else "both-wrong"
    return "fixed" if context_right else "broke"


def marks(sentence: TaggedSentence, entities: Sequence[Entity]) -> list[Mark]:
    """What a view found and what it missed, in order of the words.

    Raises:
        ValueError: A mention is empty, beyond the sentence's words, or overlaps another one of the view.
    """
    gold = {(span.start, span.end): span.type for span in sentence.gold}
    result = []
    for entity in entities:
        start, end = entity.first_word, entity.last_word
        overlaps = any(start < span.end and span.start < end for span in sentence.gold)
        state = "wrong extent" if overlaps else "not a mention"
        if (start, end) in gold:
            state = "right" if gold[start, end] == entity.type else "wrong type"
        result.append(Mark(start, end, entity.type, entity.confidence, state))  # type: ignore[arg-type]
    for span in sentence.gold:
        if not any(span.start < mark.end_word and mark.start_word < span.end for mark in result):
            result.append(Mark(span.start, span.end, span.type, None, "missed"))
    return _in_order(sentence, result)


def _in_order(sentence: TaggedSentence, unordered: Iterable[Mark]) -> list[Mark]:
    ordered = sorted(unordered, key=lambda mark: (mark.start_word, mark.end_word))
    previous_end = 0
    for mark in ordered:
        if not previous_end <= mark.start_word < mark.end_word <= len(sentence.words):
            raise ValueError(
                f"sentence {sentence.id!r}: mention {mark.start_word}:{mark.end_word} ({mark.type}) is empty, overlaps "
                f"the one before it or leaves the {len(sentence.words)} words; give flat, half-open word ranges"
            )
        previous_end = mark.end_word
    return ordered


def _segments(words: Sequence[str], ordered: Sequence[Mark]) -> list[tuple[str, Mark | None]]:
    """The sentence in marked and unmarked pieces; joined by spaces they are its first `MAX_WORDS` words."""
    cut = [clip(word, MAX_WORD_LENGTH) for word in words[:MAX_WORDS]]
    segments: list[tuple[str, Mark | None]] = []
    position = 0
    for mark in ordered:
        segments.append((" ".join(cut[position : mark.start_word]), None))
        segments.append((" ".join(cut[mark.start_word : mark.end_word]), mark))
        position = mark.end_word
    segments.append((" ".join(cut[position:]), None))
    return [(text, mark) for text, mark in segments if text]


def _card(sentence: TaggedSentence, types: Sequence[str]) -> dict[str, object]:
    gold = _in_order(sentence, (Mark(span.start, span.end, span.type, None, "gold") for span in sentence.gold))
    plain, context = marks(sentence, sentence.plain), marks(sentence, sentence.context)
    mentions = {" ".join(sentence.words[mark.start_word : mark.end_word]) for mark in (*gold, *plain, *context)}
    used = [scored for scored in sentence.passages if scored.dropped is None]
    return {
        "id": sentence.id,
        "outcome": outcome(sentence),
        "type_keys": " ".join(f"t{types.index(type)}" for type in sorted(_types(sentence))),
        "words": " ".join(clip(word, MAX_WORD_LENGTH) for word in sentence.words[:MAX_WORDS]),
        "num_words": len(sentence.words),
        "cut": len(sentence.words) > MAX_WORDS,
        "columns": [
            ("True mentions", _segments(sentence.words, gold), None),
            (VIEWS["plain"], _segments(sentence.words, plain), all(mark.state == "right" for mark in plain)),
            (VIEWS["context"], _segments(sentence.words, context), all(mark.state == "right" for mark in context)),
        ],
        "passages": [(scored, _hits(scored.passage.text, mentions)) for scored in sentence.passages[:MAX_PASSAGES]],
        "num_used": len(used),
        "num_dropped": len(sentence.passages) - len(used),
        "num_more": max(0, len(sentence.passages) - MAX_PASSAGES),
    }


def _hits(text: str, mentions: Iterable[str]) -> list[tuple[str, bool]]:
    """A passage's text in pieces; each says whether it repeats a mention of the sentence."""
    clipped = clip(text, MAX_PASSAGE_LENGTH)
    wanted = sorted((re.escape(mention) for mention in mentions if len(mention) > 1), key=len, reverse=True)
    if not wanted:
        return [(clipped, False)]
    pieces = re.split(rf"(?<!\w)({'|'.join(wanted)})(?!\w)", clipped, flags=re.IGNORECASE)
    return [(piece, i % 2 == 1) for i, piece in enumerate(pieces) if piece]


def _types(sentence: TaggedSentence) -> set[str]:
    return {span.type for span in sentence.gold} | {entity.type for entity in (*sentence.plain, *sentence.context)}


def _choose(sentences: Sequence[TaggedSentence], max_sentences: int) -> list[TaggedSentence]:
    """At most `max_sentences` sentences, taken in turn from each outcome, in their original order."""
    places: dict[str, list[int]] = {key: [] for key in OUTCOMES}
    for i, sentence in enumerate(sentences):
        places[outcome(sentence)].append(i)
    in_turn = [i for turn in zip_longest(*places.values()) for i in turn if i is not None]
    return [sentences[i] for i in sorted(in_turn[: max(0, max_sentences)])]


@dataclass(frozen=True, slots=True)
class ScoreCell:
    """Scores of a mode in a view, in percent; `gain` is over the baseline's plain view; no prediction, no precision."""

    precision: float | None
    recall: float
    f1: float
    best: bool
    gain: float | None


def score_rows(
    scores: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> list[tuple[str, dict[str, ScoreCell | None]]]:
    """Rows of the headline table; a view that was not scored is None.

    Raises:
        ValueError: A score is outside [0, 1].
    """
    for mode, by_view in scores.items():
        for view, values in by_view.items():
            for name in ("precision", "recall", "f1"):
                if not 0 <= values[name] <= 1:
                    raise ValueError(
                        f"scores[{mode!r}][{view!r}][{name!r}] is {values[name]}; give a fraction in [0, 1]"
                    )
    best = {view: max((row[view]["f1"] for row in scores.values() if view in row), default=None) for view in VIEWS}
    baseline = next(iter(scores.values()), {}).get("plain", {}).get("f1")
    rows = []
    for i, (mode, by_view) in enumerate(scores.items()):
        cells: dict[str, ScoreCell | None] = dict.fromkeys(VIEWS)
        for view in [view for view in VIEWS if view in by_view]:
            precision, recall, f1 = (100 * by_view[view][name] for name in ("precision", "recall", "f1"))
            gain = None if baseline is None or (i == 0 and view == "plain") else f1 - 100 * baseline
            answered = by_view[view].get("num_predicted", 1) > 0
            cells[view] = ScoreCell(
                precision if answered else None, recall, f1, by_view[view]["f1"] == best[view], gain
            )
        rows.append((mode, cells))
    return rows
