"""`ctxner evaluate`: a model and gold tags -> how good each view is, where it fails, and what the passages change.

The figures are counted in `ctxner.evaluation.scores`, `ctxner.evaluation.errors` and `ctxner.evaluation.calibration`;
`jobs.pages.evaluation` writes the page. The view `auto` needs no forward pass here: it takes each sentence's plain or
context prediction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ctxner.config import Config
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
from ctxner.evaluation.scores import (
    Spans,
    mention_forms,
    score_spans,
    scores_by,
    scores_by_seen,
    surface_form,
)
from ctxner.evaluation.significance import bootstrap_interval, paired_significance
from ctxner.evaluation.units import Units, units_of
from ctxner.labels import gold_spans
from ctxner.schema import VIEWS, Example, Span
from jobs.console import console, progress
from jobs.console import show as show_result
from jobs.evaluation_tables import error_table, in_words, overview, type_table, units_in_words
from jobs.pages.evaluation import EvaluatedSentence, write_evaluation_page

if TYPE_CHECKING:
    from ctxner.predictions import Prediction
    from ctxner.predictor import Tagger


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


def run(
    config: Config, model: str, split: str, *, out: Path, threshold: float | None = None, against: str | None = None
) -> dict[str, Any]:
    """Score a split in all views, write the page, and return the figures; arguments as of `evaluated`."""
    return evaluated(config, model, split, out=out, threshold=threshold, against=against)[0]


def evaluated(
    config: Config, model: str, split: str, *, out: Path, threshold: float | None = None, against: str | None = None
) -> tuple[dict[str, Any], Inputs, Tagged]:
    """Score a split in all views and write the page; returns the figures and what they were counted from.

    Args:
        config: Config whose data section names the split, its contexts, and training data for seen and unseen mentions.
        model: Model folder or hub id.
        split: train, dev or test.
        out: HTML file to write.
        threshold: Threshold of `auto`, in nats; None: the calibrated threshold of the model.
        against: Another model, to compare each view with.
    """
    from ctxner.predictor import Tagger

    inputs = read_inputs(config, split)
    tagger = Tagger.from_pretrained(model)
    other_tagger = Tagger.from_pretrained(against) if against else None
    unknown = {span.type for spans in inputs.gold for span in spans} - set(tagger.labels.types)
    if unknown:
        message = f"types {sorted(unknown)} are in the data but not in the model; their mentions count as missed"
        console.print(message, markup=False)
    if not inputs.has_contexts:
        console.print("no data.contexts: only the plain view is scored")
    tagged = _tag(inputs, tagger, threshold)
    other = _tag(inputs, other_tagger, threshold, "other model, ") if other_tagger else None
    result = {
        "model": model,
        "split": split,
        "sentences": len(inputs.examples),
        **inputs.units.to_dict(),
        "unit_reason": inputs.units.reason,
        "scores": {view: score_spans(inputs.gold, tagged.spans(view)).to_dict() for view in tagged.views},
        "details": _details(inputs, tagged),
        "auto": _auto(inputs, tagged),
        "comparisons": _comparisons(inputs, tagged, other, against),
        "context_against_plain": _changes(inputs, tagged) if inputs.has_contexts else None,
        "report": str(out),
    }
    write_evaluation_page(out, result, _sentences(inputs, tagged), facts=_facts(config, model, split, inputs, against))
    return result, inputs, tagged


def plan(
    config: Config, model: str, split: str, *, out: Path, threshold: float | None = None, against: str | None = None
) -> dict[str, Any]:
    """What `run` would do; checks the data, the contexts and the models' folders."""
    from ctxner.model.tagger import saved_types

    inputs = read_inputs(config, split)
    types_by_model = {name: list(saved_types(name)) for name in (model, against) if name}
    views = ["plain", "context"] if inputs.has_contexts else ["plain"]
    return {
        "model": model,
        "types": types_by_model[model],
        "split": split,
        "sentences": len(inputs.examples),
        **inputs.units.to_dict(),
        "views": views,
        "threshold": threshold,
        "against": against,
        "report": str(out),
    }


def show(result: dict[str, Any]) -> None:
    """Print the result for people: tables, then the path of the page."""
    Console().print(overview(result), type_table(result["scores"]), error_table(result["details"]))
    rest = {
        "intervals and p": units_in_words(result),
        **{
            f"{comparison['first']} against {comparison['second']}": in_words(comparison)
            for comparison in result["comparisons"]
        },
        "auto": result["auto"].get("left_out")
        or f"looks up above an entropy of {result['auto']['threshold']:.3g} nats",
        "report": result["report"],
    }
    if changes := result["context_against_plain"]:
        rest = {"context view": ", ".join(f"{changes['sentences'][name]} {name}" for name in OUTCOMES)} | rest
    show_result(rest)


def read_inputs(config: Config, split: str) -> Inputs:
    """The split with its contexts, and the training mentions.

    Raises:
        ValueError: A sentence has no gold tags, or a file is faulty.
    """
    from ctxner.files.sentences import read_sentences

    data, format = config.data, config.data.column_format()
    examples = gold_examples(config, split)
    seen = None
    if data.train and split != "train":
        training = read_sentences(data.train, format).sentences[: data.train_sentences]
        seen = mention_forms(sentence for sentence in training if sentence.tags is not None)
    gold = [gold_spans(example.sentence) for example in examples]
    units = units_of([example.sentence for example in examples])
    return Inputs(examples, gold, seen, data.contexts is not None, units)


def gold_examples(config: Config, split: str) -> list[Example]:
    """The sentences of a split, with their passages when there are contexts.

    Raises:
        ValueError: A sentence of the split has no gold tags, or a file is faulty.
    """
    from ctxner.files.contexts import load_examples
    from ctxner.files.sentences import refuse_untagged

    data = config.data
    examples = load_examples(data.path(split), data.column_format(), contexts=data.contexts_path(split))
    refuse_untagged((example.sentence for example in examples), data.path(split))
    return examples


def _tag(inputs: Inputs, tagger: Tagger, threshold: float | None, whose: str = "") -> Tagged:

    views: dict[str, Sequence[Prediction]] = {}
    for view in VIEWS if inputs.has_contexts else VIEWS[:1]:
        with progress(f"tagging, {whose}{view} view", len(inputs.examples)) as done:
            views[view] = tagger.predict(inputs.examples, view=view, on_progress=done)
    if threshold is None and tagger.calibration is not None:
        threshold = tagger.calibration.threshold
    if inputs.has_contexts and threshold is not None:
        pairs = zip(views["plain"], views["context"], strict=True)
        views["auto"] = [
            replace(plain, reason="confident") if plain.entropy <= threshold else context for plain, context in pairs
        ]
    return Tagged(views, threshold)


def _auto(inputs: Inputs, tagged: Tagged) -> dict[str, Any]:
    """Threshold of `auto` and what it looked up, or why `auto` is left out."""
    looked_up = tagged.looked_up()
    if looked_up is not None:
        return {"threshold": tagged.threshold, "looked_up": sum(looked_up), "share": sum(looked_up) / len(looked_up)}
    if not inputs.has_contexts:
        return {"left_out": "it chooses between two views, and there is no data.contexts"}
    return {"left_out": "no threshold: run `ctxner calibrate` for this model, or give --threshold"}


def _details(inputs: Inputs, tagged: Tagged) -> dict[str, Any]:
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


def _comparisons(inputs: Inputs, tagged: Tagged, other: Tagged | None, name: str | None) -> list[dict[str, Any]]:
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


def _changes(inputs: Inputs, tagged: Tagged) -> dict[str, Any]:
    """What the context view changes, in total and per sentence."""
    triples = zip(inputs.gold, tagged.spans("plain"), tagged.spans("context"), strict=True)
    changes = [change(*triple) for triple in triples]
    names = ("found", "lost", "withdrawn", "added")
    counts = Counter(change.outcome for change in changes)

    def listed(example: Example, spans: Sequence[Span]) -> list[dict[str, Any]]:
        words = example.sentence.words
        return [{**asdict(span), "text": " ".join(words[span.start : span.end])} for span in spans]

    return {
        "sentences": {name: counts[name] for name in OUTCOMES},
        "mentions": {name: sum(len(getattr(change, name)) for change in changes) for name in names},
        "changed": [
            {
                "sentence_id": example.sentence.id,
                "outcome": change.outcome,
                **{name: listed(example, getattr(change, name)) for name in names},
            }
            for example, change in zip(inputs.examples, changes, strict=True)
            if change.outcome != "same"
        ],
    }


def _sentences(inputs: Inputs, tagged: Tagged) -> list[EvaluatedSentence]:
    views = {view: predictions for view, predictions in tagged.views.items() if view != "auto"}
    looked_up = tagged.looked_up()
    return [
        EvaluatedSentence(
            example.sentence.id,
            example.sentence.words,
            inputs.gold[place],
            tuple(mention.text for mention in example.sentence.beyond_tags),
            {view: predictions[place].entities for view, predictions in views.items()},
            views["context"][place].passages if "context" in views else (),
            None if looked_up is None else looked_up[place],
        )
        for place, example in enumerate(inputs.examples)
    ]


def _facts(config: Config, model: str, split: str, inputs: Inputs, against: str | None) -> dict[str, str]:
    data = config.data
    facts = {
        "Model": model,
        f"{split}, {len(inputs.examples):,} sentences": str(data.path(split)),
        "Contexts": str(data.contexts_path(split) or "none"),
        "Seen in training": str(data.train) if inputs.seen is not None else "no training data given",
    }
    return facts | ({"Compared with": against} if against else {})
