"""The training loop around a plain optimizer, without Ray and DeepSpeed: what an epoch trains and counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ctxner.config import Config, parse_config
from ctxner.demo import make_world
from ctxner.encoders import load_tokenizer
from ctxner.labels import LabelSet
from ctxner.model.tagger import EncoderCRF
from ctxner.schema import Example, Sentence
from ctxner.training.build import build_step
from ctxner.training.checkpoints.files import Progress
from ctxner.training.data.training_set import TrainingSet
from ctxner.training.loop import dev_scores, train_epoch
from ctxner.training.observe.recorder import Recorder
from ctxner.views.builder import ViewBuilder
from tests.closeness import assert_close

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")
WORLD = make_world(num_train=12, num_dev=3, num_test=1, seed=1)


class PlainEngine:
    """The engine's few methods around a step and an optimizer of PyTorch."""

    world_size, skipped_steps = 1, 0

    def __init__(self, step: torch.nn.Module) -> None:
        self.module, self.optimizer = step, torch.optim.SGD([{"params": step.parameters(), "name": "all"}], lr=1e-2)
        self.boundary = True

    def __call__(self, *share):
        return self.module(*share)

    def train(self) -> None:
        self.module.train()

    def set_gradient_accumulation_boundary(self, boundary: bool) -> None:
        self.boundary = boundary

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def zero_optimization_stage(self) -> int:
        return 0

    def step(self) -> None:
        if self.boundary:
            self.optimizer.step()
            self.optimizer.zero_grad()


class Written:
    """Checkpoints kept in memory: where the run stood, and the parameters."""

    def __init__(self, engine: PlainEngine, every: int) -> None:
        self.engine, self.every = engine, every
        self.kept: list[tuple[Progress, dict[str, torch.Tensor]]] = []

    def due(self, step: int) -> bool:
        return step % self.every == 0

    def write(self, progress: Progress) -> None:
        state = {name: tensor.clone() for name, tensor in self.engine.module.model.state_dict().items()}
        self.kept.append((progress, state))


@pytest.fixture
def config() -> Config:
    optim = {"batch_sentences": 4, "accumulate": 2}
    return parse_config({"loss": {"mode": "cl-kl"}, "model": {"dropout": 0.0}, "optim": optim})


@pytest.fixture
def data(minilm: str, config: Config) -> TrainingSet:
    examples = [Example(sentence) for sentence in WORLD.train]
    return TrainingSet(examples, LabelSet(WORLD.types), ViewBuilder(load_tokenizer(minilm)), config)


def engine_of(small_model) -> PlainEngine:
    model: EncoderCRF = small_model(vocabulary=30522, types=WORLD.types)
    return PlainEngine(build_step(model, parse_config({"loss": {"mode": "cl-kl"}})))


def run(engine, data, config, folder: Path, progress: Progress = Progress(), every: int = 1, on_step=lambda: None):
    writer = Written(engine, every)
    with Recorder(folder, {}, rank=0, world_size=1, device=CPU, log_steps=50, first_step=0) as recorder:
        epoch = train_epoch(
            engine,
            data,
            progress,
            config=config,
            rank=0,
            world_size=1,
            device=CPU,
            recorder=recorder,
            checkpoints=writer,
            on_step=on_step,
        )
    return epoch, writer.kept


def test_an_epoch_trains_every_sentence_once_and_its_losses_are_means_over_sentences(
    small_model, data, config, tmp_path
) -> None:
    engine, done = engine_of(small_model), []
    with torch.no_grad():
        share = data.share(range(len(WORLD.train)), 0, 1, CPU)
        before = {name: loss.item() / len(WORLD.train) for name, loss in engine.module(*share).items()}
    for group in engine.optimizer.param_groups:
        group["lr"] = 0.0
    epoch, _ = run(engine, data, config, tmp_path, on_step=lambda: done.append(1))
    assert epoch.num_sentences == len(WORLD.train)
    assert len(done) == len(data.steps(0)) == 2
    assert_close(epoch.losses, before, tolerance=1e-3)


def test_an_epoch_that_goes_on_from_a_checkpoint_ends_where_the_whole_one_does(
    small_model, data, config, tmp_path
) -> None:
    whole = engine_of(small_model)
    epoch, kept = run(whole, data, config, tmp_path / "whole")
    (progress, state), *rest = kept
    assert (progress.epoch, progress.step, rest) == (0, 1, [])
    cut = engine_of(small_model)
    cut.module.model.load_state_dict(state)
    resumed, _ = run(cut, data, config, tmp_path / "cut", progress)
    assert_close(resumed.losses, epoch.losses)
    assert resumed.seconds >= progress.seconds
    assert_close(dict(cut.module.model.state_dict()), dict(whole.module.model.state_dict()), tolerance=1e-5)


def test_a_checkpoint_from_a_longer_epoch_is_refused(small_model, data, config, tmp_path) -> None:
    num_steps = len(data.steps(0))
    with pytest.raises(ValueError, match=rf"after step {num_steps} of an epoch that has {num_steps} steps now"):
        run(engine_of(small_model), data, config, tmp_path, Progress(step=num_steps))


def test_a_loss_that_is_not_finite_ends_the_epoch(small_model, data, config, tmp_path) -> None:
    engine = engine_of(small_model)
    with torch.no_grad():
        engine.module.model.head.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="epoch 1, step"):
        run(engine, data, config, tmp_path)


def test_dev_scores_are_those_of_both_views(small_model, minilm) -> None:
    model = engine_of(small_model).module.model
    scores = dev_scores(model, load_tokenizer(minilm), [Example(sentence) for sentence in WORLD.dev], CPU, 1)
    assert list(scores) == ["plain", "context"]
    assert_close(scores["plain"].to_dict(), scores["context"].to_dict())


@pytest.mark.parametrize("view", ["plain", "context"])
def test_dev_scores_are_those_of_the_views_asked_for(small_model, minilm, view) -> None:
    model = small_model(vocabulary=30522, types=WORLD.types)
    scores = dev_scores(
        model, load_tokenizer(minilm), [Example(sentence) for sentence in WORLD.dev], CPU, 1, views=(view,)
    )
    assert list(scores) == [view]


def test_dev_sentences_without_gold_are_not_scored_as_sentences_without_mentions(small_model, minilm) -> None:
    examples = [Example(Sentence("bare", ("Velmora", "sank")))]
    with pytest.raises(ValueError, match=r"sentence 'bare' has no gold tags"):
        dev_scores(small_model(vocabulary=30522, types=WORLD.types), load_tokenizer(minilm), examples, CPU, 1)
