"""`ctxner tag-text`: text -> entities, with contexts when an index or passages are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctxner.config import Config
from ctxner.schema import Example, ViewName


def run(
    config: Config, model: str, texts: Sequence[str], *, index: Path | None = None, passages: Sequence[str] = ()
) -> dict[str, Any]:
    """Tag texts; returns entities with character offsets, and the passages that were read beside each sentence."""
    from ctxner.predictor import Tagger
    from ctxner.retrieval.index.fetch import index_here
    from ctxner.texts import as_scored, sentences_of

    parts = [sentences_of(text, str(number)) for number, text in enumerate(texts)]
    sentences = [sentence for part in parts for sentence in part]
    if index is not None and sentences:
        from ctxner.retriever import Retriever

        retrieved = Retriever(config.retrieval, folder=index_here(index)).retrieve(sentences)
    else:
        retrieved = [as_scored(passages)] * len(sentences)
    view: ViewName = "context" if index is not None or passages else "plain"
    examples = [Example(*pair) for pair in zip(sentences, retrieved, strict=True)]
    predictions = iter(Tagger.from_pretrained(model).predict(examples, view=view))
    return {
        "view": view,
        "texts": [_tagged(text, [next(predictions) for _ in part]) for text, part in zip(texts, parts, strict=True)],
    }


def plan(
    config: Config, model: str, texts: Sequence[str], *, index: Path | None = None, passages: Sequence[str] = ()
) -> dict[str, Any]:
    """What `run` would do; checks the model's folder and the index."""
    from ctxner.model.tagger import saved_types
    from ctxner.retrieval.index.fetch import index_manifest
    from ctxner.texts import sentences_of

    num_sentences = sum(len(sentences_of(text, str(number))) for number, text in enumerate(texts))
    result = {"model": model, "types": list(saved_types(model)), "sentences": num_sentences}
    return {**result, "passages_in_index": index_manifest(index).num_documents} if index else result


def _tagged(text: str, predictions: Sequence[Any]) -> dict[str, Any]:
    passages = [
        {
            "id": passage.passage.id,
            "source": passage.passage.source,
            "text": passage.passage.text,
            "rerank_score": passage.rerank_score,
        }
        for prediction in predictions
        for passage in prediction.passages
        if passage.dropped is None
    ]
    entities = [dataclasses.asdict(entity) for prediction in predictions for entity in prediction.entities]
    return {"text": text, "entities": entities, "passages": passages}
