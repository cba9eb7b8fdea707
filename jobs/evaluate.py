"""`ctxner evaluate`: a model and gold tags -> how good each view is, where it fails, and what the passages change.

`jobs.evaluation_figures` counts and `jobs.pages.evaluation` writes the page. The view `auto` needs no forward pass
here: it takes each sentence's plain or context prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxner.config import Config
from ctxner.evaluation.errors import OUTCOMES
from ctxner.evaluation.scores import mention_forms, score_spans
from ctxner.evaluation.units import units_of
from ctxner.labels import gold_spans
from ctxner.schema import VIEWS, Example
from jobs import evaluation_figures as figures
from jobs.console import console, progress, show_table
from jobs.console import show as show_result
from jobs.evaluation_figures import Inputs, Tagged
from jobs.evaluation_tables import error_table, in_words, overview, type_table, units_in_words
from jobs.pages.evaluation import EvaluatedSentence, write_evaluation_page
from jobs.pages.page import asked_key, free_page, page_beside

if TYPE_CHECKING:
    from ctxner.predictions import Prediction
    from ctxner.predictor import Tagger


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
        "details": figures.details(inputs, tagged),
        "auto": figures.auto(inputs, tagged),
        "comparisons": figures.comparisons(inputs, tagged, other, against),
        "context_against_plain": figures.changes(inputs, tagged) if inputs.has_contexts else None,
        "report": str(out),
    }
    facts, asked = _facts(config, model, split, inputs, against), _asked(config, split, threshold, against)
    write_evaluation_page(out, result, _sentences(inputs, tagged), facts=facts, asked=asked)
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


def default_page(config: Config, model: str, split: str, *, threshold: float | None, against: str | None) -> Path:
    """Path of the page where none is given: one that no evaluation of other data, or with other options, has."""
    return free_page(page_beside(model, "model", f"evaluation-{split}"), _asked(config, split, threshold, against))


def _asked(config: Config, split: str, threshold: float | None, against: str | None) -> str:
    data = config.data
    files = data.path(split), data.contexts_path(split), data.train
    return asked_key(files=files, threshold=threshold, against=against)


def show(result: dict[str, Any]) -> None:
    """Print the result for people: tables, then the path of the page."""
    show_table(overview(result), type_table(result["scores"]), error_table(result["details"]))
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
