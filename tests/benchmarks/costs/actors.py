"""What the jobs' own actors cost without Ray, on one thread: re-ranking, both views, the encoder's share apart."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks import bench_tag, texts
from tests.benchmarks.costs.rounding import rounded

_PASSAGES = 100_000
_TAGGED, _WARM_UP = 768, 256


def actors() -> dict[str, Any]:
    """Re-ranking and both views."""
    import torch

    from ctxner.config import parse_config
    from ctxner.predictor import Tagger
    from ctxner.retrieval.index.build import build_index
    from ctxner.retriever import Retriever, decided
    from ctxner.schema import Example
    from ctxner.training.estimate.memory import EncoderShape, ViewSize
    from ctxner.training.estimate.step_time import step_flops

    torch.set_num_threads(1)
    sentences = list(texts.sentences(_TAGGED + _WARM_UP))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts.write_passages(texts.passages(_PASSAGES, texts.CORPORA[:1]), folder / "corpus.jsonl")
        build_index([folder / "corpus.jsonl"], folder / "index")
        bench_tag.save_model(folder / "model")
        tagger = Tagger.from_pretrained(folder / "model")
        settings = parse_config({"retrieval": {"query": "mentions", "cache": None}}).retrieval
        retriever = Retriever(decided(settings), folder=folder / "index", num_threads=1)
        hits = [result.hits for result in retriever.search(sentences)]
        retriever.keep(sentences[:_WARM_UP], hits[:_WARM_UP])
        started = time.process_time()
        kept = retriever.keep(sentences[_WARM_UP:], hits[_WARM_UP:])
        reranked = (time.process_time() - started) / _TAGGED
    spent = _timed(tagger.model, "word_vectors")
    stages: dict[str, Any] = {"rerank": {"unit": "sentence", "cpu_s": rounded(reranked)}}
    text: dict[str, Any] = {}
    examples = [Example(sentence, passages) for sentence, passages in zip(sentences[_WARM_UP:], kept, strict=True)]
    for view in ("plain", "context"):
        tagger.predict(examples[:_WARM_UP], view=view)
        spent[0], started = 0.0, time.process_time()
        tagger.predict(examples, view=view)
        total = time.process_time() - started
        of = {"plain": lambda example: tagger.views.plain(example.sentence), "context": tagger.views.context}[view]
        views = [of(example) for example in examples]
        shape = EncoderShape.of(tagger.model.encoder.config)
        flops = sum(
            step_flops(shape, [ViewSize(own.num_rows, own.longest_row, 0)], checkpointing=False) / 3 for own in views
        )
        text["pieces" if view == "plain" else "context_pieces"] = round(
            sum(own.num_rows * own.longest_row for own in views) / len(views), 1
        )
        stages[f"tag.{view}"] = {
            "unit": "sentence",
            "cpu_s": rounded((total - spent[0]) / _TAGGED),
            "encoder_gflops": round(flops / spent[0] / 1e9, 1),
        }
    return {"text": text, **stages}


def _timed(owner: Any, method: str) -> list[float]:
    """CPU seconds of a method, in a list of one."""
    inner, spent = getattr(owner, method), [0.0]

    def timed(*arguments: Any, **named: Any) -> Any:
        started = time.process_time()
        made = inner(*arguments, **named)
        spent[0] += time.process_time() - started
        return made

    setattr(owner, method, timed)
    return spent
