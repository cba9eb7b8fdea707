"""The cooperative step against its encoder alone, and how much of the planned batches is padding.

`cooperative_step`: both views forward, NLL twice, exact KL and backward, against forward and backward of the bare
encoder on the same token batches (both views', from a random gradient of its output); alternating rounds in one
process, the ratio is the median of the rounds' reference / ours. Its bound is 1: what the losses cost comes on top.
`evaluation`: `Tagger.predict` of both views, from words to entities with confidences, against its encoder's forward
over the same batches, tokenized and padded beforehand.
`padding`: pieces / positions, of both views' batches that a run of the default settings would plan.

Sentences and their passages are those of WNUT-17 where ../shared/data and runs/wnut17/contexts exist, else the demo's
world, as large, with two passages each.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ctxner.config import Config, parse_config
from ctxner.demo import make_world
from ctxner.encoders import load_tokenizer, packaged_encoder
from ctxner.labels import LabelSet
from ctxner.predictor import Tagger
from ctxner.schema import VIEWS, Example, ScoredPassage
from ctxner.training.build import build_model, build_step
from ctxner.training.data.training_set import TrainingSet, load_split
from ctxner.views.batches import pack_batches
from ctxner.views.builder import ViewBuilder
from ctxner.views.view import ViewBatch

NAMES = ["cooperative_step", "evaluation", "padding"]
_ROOT = Path(__file__).parents[2]
_DATA, _CONTEXTS = _ROOT.parent / "shared" / "data" / "wnut17", _ROOT / "runs" / "wnut17" / "contexts"
_STEP_FLOOR, _EVALUATION_FLOOR, _PADDING_FLOOR = 0.90, 0.85, 0.92
_BATCHES, _ROUNDS = 2, 4
_EVALUATED = 512  # sentences
CPU = torch.device("cpu")


def main(names: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yield the figures asked for."""
    torch.manual_seed(0)
    examples, config = _examples()
    labels = LabelSet.from_sentences(example.sentence for example in examples)
    model = build_model(config, labels)
    views = ViewBuilder(load_tokenizer(packaged_encoder()), max_pieces=model.config.max_pieces)
    data = TrainingSet(examples, labels, views, config)
    for name in names:
        if name == "cooperative_step":
            yield {"benchmark": name, "floor": _STEP_FLOOR, "unit": "ms a step", **_step(model, data, config)}
        elif name == "evaluation":
            figures = _evaluation(Tagger(model, views.tokenizer), examples[:_EVALUATED])
            yield {"benchmark": name, "floor": _EVALUATION_FLOOR, "unit": "s, both views", **figures}
        else:
            yield {"benchmark": name, "floor": _PADDING_FLOOR, **_padding(data)}


def _examples() -> tuple[list[Example], Config]:
    """WNUT-17 with its contexts where both are at hand, else the demo's world."""
    train = _DATA / "train.conll"
    if train.exists() and (_CONTEXTS / "train.parquet").exists():
        config = parse_config({"data": {"train": train, "contexts": _CONTEXTS}, "model": {"max_pieces": 192}})
        return load_split(config.data, "train"), config
    world = make_world(num_train=3400)  # as many as WNUT-17 has
    passages = [ScoredPassage(passage, 1.0, 1) for passage in world.corpus]
    pairs = zip(passages[::2], passages[1::2], strict=False)
    return [Example(own, pair) for own, pair in zip(world.train, pairs, strict=False)], parse_config({})


def _padding(data: TrainingSet) -> dict[str, object]:
    """Pieces in an epoch's batches against positions, padding included; of both views, and each alone."""
    pieces, padding = data.num_pieces(), data.padding()
    positions = {view: round(pieces[view] / (1 - padding[view])) for view in pieces}
    ours, reference = sum(positions.values()), sum(pieces.values())
    alone = {view: round(1 - share, 4) for view, share in padding.items()}
    return {
        "unit": "pieces an epoch",
        "ratio": round(reference / ours, 4),
        "ours": ours,
        "reference": reference,
        **alone,
    }


def _step(model: torch.nn.Module, data: TrainingSet, config: Config) -> dict[str, float]:
    """Median milliseconds of a step of each, over the same micro-batches in every round."""
    step = build_step(model, config).train()
    batches = [batch for own in data.steps(0)[:_BATCHES] for batch in own]
    shares = [data.share(batch, 0, 1, CPU) for batch in batches]

    def ours(plain: ViewBatch, context: ViewBatch, weight_B: Tensor) -> None:
        step(plain, context, weight_B)["loss"].backward()

    def reference(plain: ViewBatch, context: ViewBatch, weight_B: Tensor) -> None:
        views = (plain, context)
        hidden = [model.encoder(input_ids=own.input_ids_RP, attention_mask=own.attention_RP) for own in views]
        outputs = [own.last_hidden_state for own in hidden]
        torch.autograd.backward(outputs, [torch.randn_like(own) for own in outputs])

    times = [[_milliseconds(call, model, *own) for call in (ours, reference)] for _ in range(_ROUNDS) for own in shares]
    times = times[len(shares) :]  # the first round warms up
    return {
        "ratio": round(statistics.median(b / a for a, b in times), 3),
        "ours": round(statistics.median(a for a, _ in times), 1),
        "reference": round(statistics.median(b for _, b in times), 1),
    }


def _evaluation(tagger: Tagger, examples: Sequence[Example]) -> dict[str, float]:
    """Median seconds of each, in turns."""
    build = tagger.views
    views = [[build.plain(own.sentence) for own in examples], [build.context(own) for own in examples]]
    batches = [
        build.collate([own[index] for index in batch])
        for own in views
        for batch in pack_batches([(view.num_rows, view.longest_row) for view in own], max_pieces=tagger.batch_pieces)
    ]

    def ours() -> None:
        build._word_pieces.clear()  # words tokenized before are not tokenized again
        for view in VIEWS:
            tagger.predict(examples, view=view)

    @torch.inference_mode()
    def reference() -> None:
        for batch in batches:
            tagger.model.encoder(input_ids=batch.input_ids_RP, attention_mask=batch.attention_RP)

    times = [[_milliseconds(call, tagger.model) / 1e3 for call in (ours, reference)] for _ in range(_ROUNDS + 1)][1:]
    return {
        "ratio": round(statistics.median(b / a for a, b in times), 3),
        "ours": round(statistics.median(a for a, _ in times), 2),
        "reference": round(statistics.median(b for _, b in times), 2),
    }


def _milliseconds(call: Callable[..., None], model: torch.nn.Module, *batch: object) -> float:
    model.zero_grad(set_to_none=True)
    start = time.perf_counter()
    call(*batch)
    return (time.perf_counter() - start) * 1e3
