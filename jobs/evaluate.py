"""`ctxner evaluate`: a model and gold tags -> span scores of both views."""

from __future__ import annotations

from typing import Any

from ctxner.config import Config
from ctxner.evaluation import count_spans
from ctxner.labels import tags_to_spans
from ctxner.schema import Example
from jobs.console import console, progress


def run(config: Config, model: str, split: str) -> dict[str, Any]:
    """Score both views of a split; returns precision, recall and F1 by view, in all and by type."""
    from ctxner.predictor import VIEWS, Tagger

    examples = _gold(config, split)
    tagger = Tagger.from_pretrained(model)
    gold = [tags_to_spans(example.sentence.tags or (), source=example.sentence.id) for example in examples]
    unknown = {span.type for spans in gold for span in spans} - set(tagger.labels.types)
    if unknown:
        console.print(f"types {sorted(unknown)} are in the data but not in the model; their mentions count as missed")
    scores = {}
    for view in VIEWS:
        if view == "context" and config.data.contexts is None:
            console.print("no data.contexts: only the plain view is scored")
            continue
        with progress(f"tagging, {view} view", len(examples)) as done:
            predictions = tagger.predict(examples, view=view, on_progress=done)
        scores[view] = count_spans(gold, [prediction.spans for prediction in predictions]).scores().to_dict()
    return {"model": model, "split": split, "sentences": len(examples), "scores": scores}


def plan(config: Config, model: str, split: str) -> dict[str, Any]:
    """What `run` would do; checks the data, the contexts and the model's folder."""
    from ctxner.model.tagger import load_tagger

    examples = _gold(config, split)
    views = ["plain", "context"] if config.data.contexts else ["plain"]
    types = list(load_tagger(model).labels.types)
    return {"model": model, "types": types, "split": split, "sentences": len(examples), "views": views}


def _gold(config: Config, split: str) -> list[Example]:
    from ctxner.contexts import load_examples

    data = config.data
    examples = load_examples(data.path(split), data.column_format(), contexts=data.contexts_path(split))
    if untagged := [example.sentence.id for example in examples if example.sentence.tags is None]:
        raise ValueError(
            f"{data.path(split)}: {len(untagged)} sentences have no gold tags, first {untagged[0]!r}; nothing to score"
        )
    return examples
