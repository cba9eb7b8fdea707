"""The figures of `ctxner evaluate`, from gold and predictions: of each view, of `auto`, compared, and what changes.

They are counted in `ctxner.evaluation`; this says which of them belong to a split, and under which names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ctxner.evaluation.calibration import expected_calibration_error, outcomes, reliability_bins
from ctxner.evaluation.errors import (
    KINDS,
    OUTCOMES,
    Buckets,
    change,
    confusion,
    count_buckets,
    count_kinds,
    length_buckets,
    match_mentions,
    quantile_buckets,
    surface_scores,
)
from ctxner.evaluation.scores import Spans, scores_by, scores_by_seen, surface_form
from ctxner.evaluation.significance import bootstrap_interval, paired_significance
from ctxner.evaluation.units import Units
from ctxner.schema import Example, Span

if TYPE_CHECKING:
    from ctxner.predictions import Prediction


@dataclass(frozen=True, slots=True)
class Inputs:
    """Checked data of a split.

    Attributes:
        examples: Tagged sentences, with their passages when there are contexts.
        gold: Gold mentions of each sentence.
        seen: Surface forms of the training mentions; None without training data.
        has_contexts: Whether there is a context view to score.
        units: Documents or sentences that intervals draw and paired tests exchange.
    """

    examples: list[Example]
    gold: list[tuple[Span, ...]]
    seen: frozenset[str] | None
    has_contexts: bool
    units: Units


@dataclass(frozen=True, slots=True)
class Tagged:
    """Predictions of a model for a split.

    Attributes:
        views: Predictions by view; `auto` only when there is a threshold.
        threshold: Entropy of the plain view, in nats, above which `auto` looks a sentence up.
    """

    views: Mapping[str, Sequence[Prediction]]
    threshold: float | None

    def spans(self, view: str) -> list[tuple[Span, ...]]:
        """The mentions that a view finds, by sentence."""
        return [prediction.spans for prediction in self.views[view]]

    def looked_up(self) -> list[bool] | None:
        """Which sentences `auto` looks up; None when it is not scored."""
        if "auto" not in self.views:
            return None
        return [prediction.reason != "confident" for prediction in self.views["auto"]]


def auto(inputs: Inputs, tagged: Tagged) -> dict[str, Any]:
    """Threshold of `auto` and what it looked up, or why `auto` is left out."""
    looked_up = tagged.looked_up()
    if looked_up is not None:
        return {"threshold": tagged.threshold, "looked_up": sum(looked_up), "share": sum(looked_up) / len(looked_up)}
    if not inputs.has_contexts:
        return {"left_out": "it chooses between two views, and there is no data.contexts"}
    return {"left_out": "no threshold: run `ctxner calibrate` for this model, or give --threshold"}


def details(inputs: Inputs, tagged: Tagged) -> dict[str, Any]:
    """All figures of each view that are not in `scores`."""
    buckets = _buckets(inputs, tagged)
    return {view: _view_details(inputs, tagged, view, buckets) for view in tagged.views}


def _view_details(inputs: Inputs, tagged: Tagged, view: str, buckets: Mapping[str, Buckets]) -> dict[str, Any]:
    gold, predicted = inputs.gold, tagged.spans(view)
    sentences = [example.sentence for example in inputs.examples]
    matches = [match for pair in zip(gold, predicted, strict=True) for match in match_mentions(*pair)]
    confidences, correct, _ = outcomes(gold, [prediction.entities for prediction in tagged.views[view]])
    cells = confusion(matches)
    types: list[str | None] = [*sorted({type for pair in cells for type in pair if type is not None}), None]
    details: dict[str, Any] = {
        "interval": bootstrap_interval(gold, predicted, groups=inputs.units.groups),
        **inputs.units.to_dict(),
        "surface": surface_scores(sentences, gold, predicted).to_dict(),
        "kinds": {kind: sum(match.kind == kind for match in matches) for kind in KINDS},
        "kinds_by_type": count_kinds(matches),
        "confusion": {"types": types, "counts": [[cells.get((row, column), 0) for column in types] for row in types]},
        "calibration": {
            "error": expected_calibration_error(confidences, correct),
            "bins": [asdict(bin) for bin in reliability_bins(confidences, correct)],
        },
        "buckets": {
            name: [
                {"bucket": bucket, "sentences": size, **score.to_dict()}
                for bucket, size, score in zip(
                    groups.names, groups.sizes(), groups.scores(gold, predicted), strict=True
                )
            ]
            for name, groups in buckets.items()
        },
    }
    if inputs.seen is not None:
        by_seen = scores_by_seen(sentences, predicted, inputs.seen)
        details["seen"] = {name: score.to_dict() for name, score in by_seen.items()}
    if any(passage.named for example in inputs.examples for passage in example.passages):
        details["entries"] = _by_entry(inputs, predicted)
    return details


def _by_entry(inputs: Inputs, predicted: Spans) -> dict[str, Any]:
    """Scores of mentions that an entry names exactly and of others; also of those not seen in training, if known."""
    sentences = [example.sentence for example in inputs.examples]
    named = [{run for passage in example.passages for run in passage.named} for example in inputs.examples]

    def group_of(number: int, span: Span) -> str:
        entry = "with entry" if (span.start, span.end) in named[number] else "without entry"
        form = surface_form(sentences[number], span)
        return entry if inputs.seen is None or form in inputs.seen else f"unseen, {entry}"

    groups = [f"{seen}{entry}" for seen in ("", "unseen, ") for entry in ("with entry", "without entry")]
    scores = scores_by(sentences, predicted, groups, group_of)
    for entry in groups[:2]:
        scores[entry] += scores[f"unseen, {entry}"]
    return {name: score.to_dict() for name, score in scores.items() if inputs.seen is not None or name in groups[:2]}


def _buckets(inputs: Inputs, tagged: Tagged) -> dict[str, Buckets]:
    """Sentences grouped by length and, with contexts, by the passages that the context view reads."""
    buckets = {"words": length_buckets([len(example.sentence.words) for example in inputs.examples])}
    if "context" in tagged.views:
        passages_by_sentence = [prediction.passages for prediction in tagged.views["context"]]
        read = [[scored for scored in passages if scored.dropped is None] for passages in passages_by_sentence]
        scores = [[scored.rerank_score for scored in passages if scored.rerank_score is not None] for passages in read]
        buckets["passages"] = count_buckets([len(passages) for passages in read])
        if any(scores):
            buckets["rerank"] = quantile_buckets([max(sentence_scores, default=None) for sentence_scores in scores])
    return buckets


def comparisons(inputs: Inputs, tagged: Tagged, other: Tagged | None, name: str | None) -> list[dict[str, Any]]:
    """Each view compared with the plain view, and with the same view and the plain view of the other model."""
    pairs = [(view, "plain", tagged.spans(view), tagged.spans("plain")) for view in tagged.views if view != "plain"]
    if other:
        both = [view for view in tagged.views if view in other.views]
        pairs += [(view, f"{view} of {name}", tagged.spans(view), other.spans(view)) for view in both]
        if "context" in tagged.views:
            pairs.append(("context", f"plain of {name}", tagged.spans("context"), other.spans("plain")))
    groups = inputs.units.groups
    return [
        {
            "first": first,
            "second": second,
            **asdict(paired_significance(inputs.gold, *spans, groups=groups)),
            "interval": bootstrap_interval(inputs.gold, spans[0], baseline=spans[1], groups=groups),
            **inputs.units.to_dict(),
        }
        for first, second, *spans in pairs
    ]


def changes(inputs: Inputs, tagged: Tagged) -> dict[str, Any]:
    """What the context view changes, in total and per sentence."""
    triples = zip(inputs.gold, tagged.spans("plain"), tagged.spans("context"), strict=True)
    made = [change(*triple) for triple in triples]
    names = ("found", "lost", "withdrawn", "added")
    counts = Counter(change.outcome for change in made)

    def listed(example: Example, spans: Sequence[Span]) -> list[dict[str, Any]]:
        words = example.sentence.words
        return [{**asdict(span), "text": " ".join(words[span.start : span.end])} for span in spans]

    return {
        "sentences": {name: counts[name] for name in OUTCOMES},
        "mentions": {name: sum(len(getattr(change, name)) for change in made) for name in names},
        "changed": [
            {
                "sentence_id": example.sentence.id,
                "outcome": change.outcome,
                **{name: listed(example, getattr(change, name)) for name in names},
            }
            for example, change in zip(inputs.examples, made, strict=True)
            if change.outcome != "same"
        ],
    }
