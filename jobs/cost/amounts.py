"""Jobs on paper: which stages a job passes, how many units each has, and how many operations of the encoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from ctxner.training.estimate.capacity import sent_bytes
from ctxner.training.estimate.memory import XLM_R_LARGE, EncoderShape, ViewSize, state_bytes
from ctxner.training.estimate.step_time import step_flops
from jobs.cost.files import Costs
from jobs.cost.model import Fleet, Job, Row, row

View = Literal["plain", "context", "auto"]
Query = Literal["entries", "mentions", "weighted", "bag"]
ENCODERS: Mapping[str, EncoderShape] = MappingProxyType(
    {
        "minilm-l6": EncoderShape(6, 384, 1536, 12, 30_522, 512, 2),
        "bert-base-uncased": EncoderShape(12, 768, 3072, 12, 30_522, 512, 2),
        "biobert-base-cased-v1.2": EncoderShape(12, 768, 3072, 12, 28_996, 512, 2),
        "xlm-roberta-base": EncoderShape(12, 768, 3072, 12, 250_002, 514, 1),
        "xlm-roberta-large": XLM_R_LARGE,
    }
)
_SERVED_LOAD = 0.7  # share of the cores above which answers wait
_NO_GPU = "nothing was measured on a GPU: 40% of its peak is assumed"


@dataclass(frozen=True, slots=True)
class Amounts:
    """What a job has to do.

    Attributes:
        sentences: Sentences to retrieve for, tag, train on or evaluate; requests of a server per second.
        passages: Passages of the index.
        view: View that answers.
        looked_up: Share of the sentences that `auto` looks up.
        query: How a sentence is looked up.
        rerank: Whether passages are re-ranked.
        shape: Sizes of the tagger's encoder.
        pieces, context_pieces: Of a sentence in each view; None: those of the measured texts.
        epochs: Of a training.
        batch: Sentences per training step.
        is_cooperative: Whether a training reads both views.
        index_is_copied: Whether hosts copy the index (`index.source`) rather than share it.
    """

    sentences: float
    passages: float = 0
    view: View = "plain"
    looked_up: float = 0.5
    query: Query = "entries"
    rerank: bool = True
    shape: EncoderShape = ENCODERS["minilm-l6"]
    pieces: float | None = None
    context_pieces: float | None = None
    epochs: int = 10
    batch: int = 32
    is_cooperative: bool = True
    index_is_copied: bool = True


def index(amounts: Amounts, costs: Costs, fleet: Fleet) -> Job:
    """`ctxner index` with a shard per worker."""
    stages = costs.stages
    rows = [row(name, stages[name], amounts.passages, fleet) for name in ("index.write", "index.check")]
    return Job("index", tuple(rows))


def retrieve(amounts: Amounts, costs: Costs, fleet: Fleet) -> Job:
    """`ctxner retrieve`."""
    names = ("retrieve.stage", "retrieve.move", "retrieve.join")
    stage, move, join = (row(name, costs.stages[name], amounts.sentences, fleet) for name in names)
    return Job("retrieve", (stage, *_lookups(amounts.sentences, amounts, costs, fleet), move, join))


def tag(amounts: Amounts, costs: Costs, fleet: Fleet) -> Job:
    """`ctxner tag`; a document of one sentence each is the worst case."""
    names = ("tag.stage", "tag.move", "tag.join")
    stage, move, join = (row(name, costs.stages[name], amounts.sentences, fleet) for name in names)
    answers = _answers("tag", amounts.sentences, amounts, costs, fleet)
    return Job(f"tag, {amounts.view} view", (stage, *answers, move, join), _notes(fleet))


def train(amounts: Amounts, costs: Costs, fleet: Fleet) -> Job:
    """`ctxner train`, data-parallel: a ring sums the gradients after each step."""
    views = _flops(amounts, costs)[: 2 if amounts.is_cooperative else 1]
    flops = 3 * sum(views)  # backward twice forward
    workers, size = fleet.hosts * (fleet.kind.gpus or 1), amounts.shape.num_parameters
    each = sent_bytes(size, size, stage=0, workers=workers, precision="autocast", views=len(views), micro_batches=1)
    seen = amounts.epochs * amounts.sentences
    sent = each * fleet.hosts / amounts.batch if fleet.hosts > 1 else 0.0
    step = row("train.step", costs.stages["train.step"], seen, fleet, flops=flops, sent_bytes=sent)
    states = state_bytes(size, size, stage=0, workers=workers, precision="autocast").total
    step = replace(step, worker_bytes=step.worker_bytes + states)
    return Job("train", (step,), _notes(fleet))


def evaluate(amounts: Amounts, costs: Costs, fleet: Fleet) -> Job:
    """`ctxner evaluate`, both views, in one process on one host."""
    one = replace(fleet, hosts=1)
    flops = sum(_flops(amounts, costs))
    return Job("evaluate", (row("evaluate", costs.stages["evaluate"], amounts.sentences, one, flops=flops),))


def serve(amounts: Amounts, costs: Costs, fleet: Fleet) -> Job:
    """An hour of `ctxner serve` at so many requests of one sentence per second; its seconds are of that hour."""
    stages, requests = costs.stages, 3600 * amounts.sentences
    router = row("serve.router", stages["serve.router"], requests, fleet)
    rows = (router, *_answers("serve", requests, amounts, costs, fleet))
    needed = math.ceil(sum(row.cpu_seconds for row in rows) / 3600 / _SERVED_LOAD / (fleet.cores / fleet.hosts))
    routers = math.ceil(router.seconds / 3600 / _SERVED_LOAD)
    told = f"{needed} hosts and {routers} routers keep the load at {_SERVED_LOAD:.0%}; hours go side by side here"
    return Job("serve, an hour", rows, (told, *_notes(fleet)))


JOBS: Mapping[str, Callable[[Amounts, Costs, Fleet], Job]] = MappingProxyType(
    {"index": index, "retrieve": retrieve, "train": train, "evaluate": evaluate, "tag": tag, "serve": serve}
)


def _answers(job: str, sentences: float, amounts: Amounts, costs: Costs, fleet: Fleet) -> Iterator[Row]:
    """The stages of a job's view: the plain view, and for what is looked up the look-ups and the context view."""
    plain, context = _flops(amounts, costs)
    looked_up = {"plain": 0.0, "context": 1.0, "auto": amounts.looked_up}[amounts.view] * sentences
    if amounts.view != "context":
        yield row(f"{job}.plain", costs.stages[f"{job}.plain"], sentences, fleet, flops=plain)
    if looked_up:
        yield from _lookups(looked_up, amounts, costs, fleet)
        yield row(f"{job}.context", costs.stages[f"{job}.context"], looked_up, fleet, flops=context)


def _lookups(sentences: float, amounts: Amounts, costs: Costs, fleet: Fleet) -> Iterator[Row]:
    """The search, and the re-ranking."""
    name = f"search.{amounts.query}"
    search = costs.stages[name]
    if not amounts.index_is_copied:
        search = search.model_copy(update={"copied_bytes": 0})
    yield row(name, search, sentences, fleet, passages=amounts.passages)
    if amounts.rerank and amounts.query != "entries":  # of entries none competes: retrieval.depth <= retrieval.keep
        yield row("rerank", costs.stages["rerank"], sentences, fleet)


def _flops(amounts: Amounts, costs: Costs) -> tuple[float, float]:
    """Operations of the encoder's forward pass over a sentence, in the plain and in the context view."""
    lengths = amounts.pieces or costs.text.pieces, amounts.context_pieces or costs.text.context_pieces
    sizes = [ViewSize(1, pieces, 0) for pieces in lengths]  # type: ignore[arg-type]
    plain, context = (step_flops(amounts.shape, [size], checkpointing=False) / 3 for size in sizes)
    return plain, context


def _notes(fleet: Fleet) -> tuple[str, ...]:
    return (_NO_GPU,) if fleet.kind.gpus else ()
