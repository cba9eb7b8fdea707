"""The page of `ctxner evaluate`: tables, charts, and the sentences as JSON, which `templates/evaluation.js` shows.

The figures come from the command's result; nothing is scored here. Texts from the data reach the page only as JSON and
become text nodes there, so they are never markup.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxner.evaluation.errors import KINDS, change, match_mentions
from ctxner.retrieval.measure.coverage import Tally
from ctxner.schema import Entity, ScoredPassage, Span
from jobs.pages.charts import VIEWS, Panel
from jobs.pages.page import DROPPED, clip, share_panel, write_page

MAX_SENTENCES = 5000
MAX_WORDS = 400  # per sentence
MAX_WORD_LENGTH = 80  # characters
MAX_PASSAGES = 10  # per sentence
MAX_PASSAGE_LENGTH = 600  # characters

VIEW_NAMES = {**VIEWS, "auto": "Auto"}
KIND_NAMES = dict(
    zip(
        KINDS,
        ("right", "wrong type", "wrong boundary", "wrong type and boundary", "missed", "not a mention"),
        strict=True,
    )
)
BUCKET_NAMES = {
    "words": ("F1 by length", "words of the sentence"),
    "passages": ("F1 by passages", "passages read beside it"),
    "rerank": ("F1 by the best passage", "re-rank score of the best passage read"),
}


@dataclass(frozen=True, slots=True)
class EvaluatedSentence:
    """A sentence, its gold mentions and what each view found.

    Attributes:
        id: The sentence's id.
        words: The sentence's words; all spans and entities index them.
        gold: True mentions, as `ctxner.labels.gold_spans` gives them.
        beyond: Texts of the mentions that tags cannot express; the place of one without a run of words is -1 and so on.
        views: Mentions that each view found: `plain` and, with passages, `context`.
        passages: Passages of the context view, with `num_pieces` if it reads them and `dropped` if not.
        looked_up: Whether `auto` takes the context view; None when it is not scored.
    """

    id: str
    words: tuple[str, ...]
    gold: tuple[Span, ...]
    beyond: tuple[str, ...]
    views: Mapping[str, tuple[Entity, ...]]
    passages: tuple[ScoredPassage, ...] = ()
    looked_up: bool | None = None


def write_evaluation_page(
    path: Path,
    result: Mapping[str, Any],
    sentences: Sequence[EvaluatedSentence],
    *,
    facts: Mapping[str, str],
    asked: str | None = None,
) -> Path:
    """Write the page under a temporary name, then rename it.

    Args:
        path: HTML file to write.
        result: Result of the command.
        sentences: All sentences of the split; the page holds `MAX_SENTENCES`, first those with changes or errors.
        facts: What a reader needs to repeat the run.
        asked: Key of what was evaluated (`jobs.pages.page.free_page`).
    """
    views, details = list(result["scores"]), result["details"]
    records = sorted(map(_record, sentences), key=_order)
    types = sorted({type for scores in result["scores"].values() for type in scores["per_type"]})
    return write_page(
        path,
        "evaluation.html.j2",
        asked=asked,
        title=f"How good the tagger is on {result['split']}",
        eyebrow="ctxner evaluation",
        tiles=[
            (VIEW_NAMES[view], f1(scores["micro"]), _interval(details[view]))
            for view, scores in result["scores"].items()
        ],
        result=result,
        views={view: VIEW_NAMES[view] for view in views},
        types=types,
        kinds=KIND_NAMES,
        f1=f1,
        bucket_names=BUCKET_NAMES,
        bucket_panels=_bucket_panels(result),
        reliability=_reliability_panel(details),
        shown={
            "types": types,
            "kinds": KIND_NAMES,
            "views": {view: VIEW_NAMES[view] for view in views},
            "dropped": DROPPED,
            "sentences": records[:MAX_SENTENCES],
        },
        num_left_out=max(0, len(records) - MAX_SENTENCES),
        facts=facts,
    )


def f1(score: Mapping[str, Any]) -> Tally:
    """F1 of a score as a share: twice the correct mentions over predicted plus gold mentions."""
    return Tally(2 * score["num_correct"], score["num_predicted"] + score["num_gold"])


def _interval(detail: Mapping[str, Any]) -> str:
    low, high = detail["interval"]
    if not f1(detail["surface"]["micro"]).total:
        return "F1; there are no mentions"
    return f"F1, 95% interval {100 * low:.1f} to {100 * high:.1f}, by {detail['unit']}"


def _bucket_panels(result: Mapping[str, Any]) -> dict[str, Panel | None]:
    """F1 of each view by bucket."""
    details = list(result["details"].values())
    return {
        name: share_panel(
            BUCKET_NAMES[name][0],
            [row["bucket"] for row in rows],
            {line: [f1(row) for row in detail["buckets"][name]] for line, detail in enumerate(details)},
        )
        for name, rows in details[0]["buckets"].items()
    }


def _reliability_panel(details: Mapping[str, Any]) -> Panel | None:
    """The share of mentions that are right, by confidence; the last line is perfect calibration."""
    bins = [bin for detail in details.values() for bin in detail["calibration"]["bins"]]
    if not bins:
        return None
    num_bins = round(1 / (bins[0]["high"] - bins[0]["low"]))
    lines = {}
    for line, detail in enumerate(details.values()):
        tallies = {
            round(bin["low"] * num_bins): Tally(round(bin["accuracy"] * bin["num"]), bin["num"])
            for bin in detail["calibration"]["bins"]
        }
        lines[line] = [tallies.get(place, Tally(0, 0)) for place in range(num_bins)]
    lines[len(details)] = [Tally(2 * place + 1, 2 * num_bins) for place in range(num_bins)]
    names = [f"{place / num_bins:.2f}" for place in range(num_bins)]
    return share_panel("Right, of the mentions found", names, lines)


def _record(sentence: EvaluatedSentence) -> dict[str, Any]:
    """A sentence in the form that the page's script reads."""
    shown = [clip(word, MAX_WORD_LENGTH) for word in sentence.words[:MAX_WORDS]]
    views = {view: _texts(_marks(sentence.gold, entities), sentence) for view, entities in sentence.views.items()}
    outcome = None
    if "context" in sentence.views:
        plain, context = (map(_span, sentence.views[view]) for view in ("plain", "context"))
        outcome = change(sentence.gold, plain, context).outcome
    gold = [{"start": span.start, "end": span.end, "type": span.type} for span in sorted(sentence.gold)]
    return {
        "id": sentence.id,
        "words": shown,
        "num_words": len(sentence.words),
        "gold": _within(_texts(gold, sentence)),
        "views": {view: _within(marks) for view, marks in views.items()},
        "outcome": outcome,
        "right": all(mark["kind"] == "correct" for marks in views.values() for mark in marks),
        "looked_up": sentence.looked_up,
        "passages": [_passage(scored) for scored in sentence.passages[:MAX_PASSAGES]],
        "more_passages": max(0, len(sentence.passages) - MAX_PASSAGES),
    }


def _marks(gold: Sequence[Span], entities: Sequence[Entity]) -> list[dict[str, Any]]:
    """What a view found and missed, each with its kind, in order of the words."""
    confidences = {_span(entity): entity.confidence for entity in entities}
    marks = []
    for match in match_mentions(gold, confidences):
        span = match.predicted or match.gold
        assert span is not None
        mark: dict[str, Any] = {"start": span.start, "end": span.end, "type": span.type, "kind": match.kind}
        if match.predicted:
            mark["confidence"] = round(confidences[match.predicted], 3)
        if match.gold and match.gold.type != span.type:
            mark["gold_type"] = match.gold.type
        marks.append(mark)
    return sorted(marks, key=lambda mark: (mark["start"], mark["end"], mark["kind"] == "missed"))


def _texts(marks: Sequence[dict[str, Any]], sentence: EvaluatedSentence) -> list[dict[str, Any]]:
    """The marks, with the text of each that no run of words is."""
    return [
        {**mark, "text": clip(sentence.beyond[-1 - mark["start"]], MAX_WORD_LENGTH)} if mark["start"] < 0 else mark
        for mark in marks
    ]


def _within(marks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [mark for mark in marks if mark["end"] <= MAX_WORDS]


def _passage(scored: ScoredPassage) -> dict[str, Any]:
    passage = scored.passage
    return {
        "id": passage.id,
        "source": passage.source,
        "title": clip(passage.title, MAX_PASSAGE_LENGTH),
        "text": clip(passage.text, MAX_PASSAGE_LENGTH),
        "bm25": _finite(scored.bm25_score, 2),
        "rank": scored.bm25_rank,
        "rerank": _finite(scored.rerank_score, 3),
        "pieces": scored.num_pieces,
        "dropped": scored.dropped,
    }


def _order(record: Mapping[str, Any]) -> int:
    """Sort key: sentences where the views differ, then sentences with errors, then the others."""
    if record["outcome"] not in (None, "same"):
        return 0
    return 2 if record["right"] else 1


def _span(entity: Entity) -> Span:
    return Span(entity.first_word, entity.last_word, entity.type)


def _finite(value: float | None, digits: int) -> float | None:
    """The value, rounded; None if it is not finite, since JSON has only finite numbers."""
    return round(value, digits) if value is not None and math.isfinite(value) else None
