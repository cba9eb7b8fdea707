"""The training loop: runs the steps of one epoch and scores the model on dev; it does not use Ray.

The engine is DeepSpeed's (`ctxner.training.deepspeed_engine`) or any object with the same few methods. The step is in
`ctxner.training.step`, the batches are in `ctxner.training.data.training_set`; the caller writes the checkpoints.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from transformers import PreTrainedTokenizerBase

from ctxner.config import Config
from ctxner.evaluation.scores import Scores, SpanCounts, count_spans
from ctxner.labels import gold_spans
from ctxner.model.tagger import EncoderCRF
from ctxner.predictor import Tagger
from ctxner.schema import VIEWS, Example, ViewName
from ctxner.training.checkpoints.files import Progress, step_seed
from ctxner.training.data.training_set import TrainingSet
from ctxner.training.deepspeed_engine import reduce_gradients, whole_model
from ctxner.training.failures import check_finite, memory_explained
from ctxner.training.observe.recorder import Recorder

_CHECK_STEPS = 50  # optimizer steps between two copies of the losses to the host, to check them


class Checkpoints(Protocol):
    """Decides when a checkpoint is due within an epoch, and writes it; all workers call both methods together."""

    def due(self, step: int) -> bool:
        """Whether a checkpoint is due after `step` optimizer steps of an epoch."""

    def write(self, progress: Progress) -> None:
        """Write a checkpoint of the run's present state."""


@dataclass(frozen=True)
class Epoch:
    """Results of an epoch's steps.

    Attributes:
        losses: Mean of each loss over all sentences of the epoch.
        num_sentences: Number of sentences in the epoch.
        seconds: Training time in seconds, including the time before a resume.
    """

    losses: dict[str, float]
    num_sentences: int
    seconds: float


def train_epoch(
    engine: Any,
    data: TrainingSet,
    progress: Progress,
    *,
    config: Config,
    rank: int,
    world_size: int,
    device: torch.device,
    recorder: Recorder,
    checkpoints: Checkpoints,
    on_step: Callable[[], None] = lambda: None,
) -> Epoch:
    """Run the remaining steps of an epoch; all workers call it together.

    Args:
        engine: Engine around the cooperative step.
        data: Training sentences and their batches.
        progress: State of the run: finished epochs, steps done in this epoch and the sums of their losses.
        config: Settings of the run.
        rank: Rank of this worker.
        world_size: Number of workers.
        device: Device of the model.
        recorder: Recorder that counts losses, seconds and steps.
        checkpoints: Writer of the checkpoints within the epoch.
        on_step: Function called after each optimizer step.

    Raises:
        ValueError: No step of the epoch is left, so the checkpoint belongs to other data.
        FloatingPointError: A loss or a gradient was not finite.
        MemoryError: Memory ran out; the error says which settings to lower.
    """
    lap, steps = recorder.timer.lap, data.steps(progress.epoch)
    if progress.step >= len(steps):
        raise ValueError(
            f"epoch {progress.epoch + 1}: the checkpoint is after step {progress.step} of an epoch that has "
            f"{len(steps)} steps now; restore the training data, or choose another --name to train anew"
        )
    engine.train()
    started = time.perf_counter() - progress.seconds
    sums = {
        name: torch.tensor(value, dtype=torch.float64, device=device)
        for name, value in progress.own_sums(rank, world_size).items()
    }
    for number, step in enumerate(steps[progress.step :], start=progress.step + 1):
        where = f"epoch {progress.epoch + 1}, step {number}"
        torch.manual_seed(step_seed(config.run.seed, progress.epoch, number, rank))  # dropout
        num_sentences = sum(len(batch) for batch in step)
        with memory_explained(config, where):
            for place, batch in enumerate(step):
                engine.set_gradient_accumulation_boundary(place == len(step) - 1)
                share = data.share(batch, rank, world_size, device, epoch=progress.epoch)
                lap("data")
                losses = engine(*share)
                lap("forward")
                engine.backward(losses["loss"] * (world_size / num_sentences))  # ranks are averaged: a global mean
                lap("backward")
                reduce_gradients(engine)
                lap("communication")
                engine.step()
                lap("step")
                recorder.add(losses, *share)
                for name, value in losses.items():
                    sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64, device=device)) + value.detach()
        recorder.step(engine.optimizer.param_groups)
        on_step()
        due = number < len(steps) and checkpoints.due(number)
        if due or number == len(steps) or number % _CHECK_STEPS == 0:
            all_sums = gather_sums(sums, world_size)
            check_finite(all_sums, engine.skipped_steps, where)
        if due:
            seconds = time.perf_counter() - started
            checkpoints.write(replace(progress, step=number, sums=all_sums, seconds=seconds))
            lap("checkpoint")
    num_sentences = sum(len(batch) for step in steps for batch in step)
    means = {name: sum(worker[name] for worker in all_sums) / num_sentences for name in all_sums[0]}
    return Epoch(means, num_sentences, time.perf_counter() - started)


def dev_scores(
    model: EncoderCRF,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    device: torch.device,
    world_size: int,
    *,
    views: Sequence[ViewName] = VIEWS,
    bfloat16: bool = False,
) -> dict[ViewName, Scores]:
    """Score views over the examples of all workers; all workers call it together, each with its share.

    Args:
        model: Model in training.
        tokenizer: Its tokenizer.
        examples: This worker's share of the examples.
        device: Device of the model.
        world_size: Number of workers.
        views: Views to score.
        bfloat16: Whether the encoder runs in bfloat16, as in a training step of that precision.

    Raises:
        ValueError: An example has no gold tags.
    """
    whole = whole_model(model)
    assert whole is not None
    tagger = Tagger(whole.to(device).eval(), tokenizer, bfloat16=bfloat16)  # type: ignore[arg-type]
    counts = {view: _count_predictions(tagger, examples, view) for view in views}
    if world_size > 1:
        gathered: list[Any] = [None] * world_size
        torch.distributed.all_gather_object(gathered, counts)
        counts = {view: sum((worker[view] for worker in gathered[1:]), start=gathered[0][view]) for view in views}
    return {view: view_counts.scores() for view, view_counts in counts.items()}


def gather_sums(sums: Mapping[str, torch.Tensor], world_size: int) -> tuple[dict[str, float], ...]:
    """Collect the loss sums of all workers on every worker, ordered by rank."""
    local = {name: value.item() for name, value in sums.items()}
    if world_size == 1:
        return (local,)
    gathered: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(gathered, local)
    return tuple(gathered)


def _count_predictions(tagger: Tagger, examples: Sequence[Example], view: ViewName) -> SpanCounts:
    gold = [gold_spans(example.sentence) for example in examples]
    return count_spans(gold, [prediction.spans for prediction in tagger.predict(examples, view=view)])
