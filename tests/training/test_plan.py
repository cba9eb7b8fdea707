"""The plan of a run: every sentence once an epoch whatever the number of workers, and honest arithmetic."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from ctxner.config import Config, parse_config
from ctxner.contexts import Context, write_contexts
from ctxner.demo import make_world, write_world
from ctxner.labels import LabelSet
from ctxner.model.tagger import load_tokenizer
from ctxner.schema import Example, Passage, ScoredPassage, Sentence
from ctxner.training.plan import TrainingSet, build_model, build_step, load_split, plan
from ctxner.views import ViewBuilder

CPU = torch.device("cpu")
WORLD = make_world(num_train=37, num_dev=6, num_test=0)


def config_of(**sections: dict) -> Config:
    return parse_config(sections)


@pytest.fixture(scope="module")
def views(minilm: str) -> ViewBuilder:
    return ViewBuilder(load_tokenizer(minilm))


def training_set(views: ViewBuilder, config: Config) -> TrainingSet:
    """Every third sentence has a passage, so that the views' lengths differ."""
    passage = ScoredPassage(Passage("p", "x", "A small village that few people remember."), 1.0, 1)
    examples = [Example(own, (passage,) if place % 3 == 0 else ()) for place, own in enumerate(WORLD.train)]
    return TrainingSet(examples, LabelSet(WORLD.types), views, config)


def rows(data: TrainingSet, batch: list[int], rank: int, world_size: int) -> list[tuple[tuple[int, ...], ...]]:
    """A rank's part as (pieces of the plain row, of the context row), fillers left out."""
    plain, context, weight_B = data.share(batch, rank, world_size, CPU)
    found = []
    for place in range(len(weight_B)):
        if weight_B[place] == 0:
            continue
        both = ((own.input_ids_RP[place], own.attention_RP[place]) for own in (plain, context))
        found.append(tuple(tuple(ids[mask.bool()].tolist()) for ids, mask in both))
    return found


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_shares_of_all_ranks_partition_every_micro_batch(views: ViewBuilder, world_size: int) -> None:
    data = training_set(views, config_of(optim={"batch_sentences": 4}))
    for batch in [batch for step in data.steps(0) for batch in step]:
        expected = [(data.plain[index].windows[0], data.context[index].windows[0]) for index in batch]
        shares = [rows(data, batch, rank, world_size) for rank in range(world_size)]
        assert sorted(row for own in shares for row in own) == sorted(expected)


def test_rank_without_a_sentence_gets_one_of_weight_zero(views: ViewBuilder) -> None:
    plain, context, weight_B = training_set(views, config_of()).share([3], 1, 2, CPU)
    assert weight_B.tolist() == [0.0]
    assert plain.mask_BT.any()
    assert context.mask_BT.any()


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_steps_do_not_depend_on_the_number_of_workers(views: ViewBuilder, workers: int) -> None:
    data = training_set(views, config_of(run={"workers": workers}))
    assert data.steps(1) == training_set(views, config_of()).steps(1)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_every_epoch_has_every_sentence_once_in_another_order(views: ViewBuilder, accumulate: int) -> None:
    data = training_set(views, config_of(optim={"batch_sentences": 4, "accumulate": accumulate}))
    epochs = [[index for step in data.steps(epoch) for batch in step for index in batch] for epoch in range(3)]
    assert all(sorted(own) == list(range(37)) for own in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_accumulation_groups_micro_batches_within_their_bounds(views: ViewBuilder) -> None:
    data = training_set(views, config_of(optim={"batch_sentences": 4, "accumulate": 3, "batch_pieces": 150}))
    steps = data.steps(0)
    assert [len(step) for step in steps[:-1]] == [3] * (len(steps) - 1)
    assert 1 <= len(steps[-1]) <= 3
    for batch in [batch for step in steps for batch in step]:
        width = max(data.plain[index].longest_row + data.context[index].longest_row for index in batch)
        assert len(batch) <= 4
        assert len(batch) * width <= 150 or len(batch) == 1


def test_number_of_steps_is_the_sum_over_epochs(views: ViewBuilder) -> None:
    data = training_set(views, config_of(optim={"batch_sentences": 4, "accumulate": 2, "epochs": 3}))
    assert data.num_steps() == 3 * math.ceil(math.ceil(37 / 4) / 2)


def test_seed_changes_the_order(views: ViewBuilder) -> None:
    assert training_set(views, config_of(run={"seed": 1})).steps(0) != training_set(
        views, config_of(run={"seed": 2})
    ).steps(0)


def test_padding_is_the_share_of_padded_positions_of_the_collated_batches(views: ViewBuilder) -> None:
    data = training_set(views, config_of(optim={"batch_sentences": 4}))
    real, all_positions = [0, 0], [0, 0]
    for batch in [batch for step in data.steps(0) for batch in step]:
        for number, view in enumerate(data.share(batch, 0, 1, CPU)[:2]):
            real[number] += int(view.attention_RP.sum())
            all_positions[number] += view.attention_RP.numel()
    expected = {name: 1 - real[n] / all_positions[n] for n, name in enumerate(("plain", "context"))}
    assert data.padding() == pytest.approx(expected)
    assert data.num_pieces() == {"plain": real[0], "context": real[1]}


def test_untagged_training_sentence_is_refused_by_name(views: ViewBuilder) -> None:
    examples = [Example(WORLD.train[0]), Example(Sentence("bare", ("no", "tags")))]
    with pytest.raises(ValueError, match=r"1 training sentences have no tags, first 'bare'"):
        TrainingSet(examples, LabelSet(WORLD.types), views, config_of())


@pytest.fixture
def files(tmp_path: Path) -> dict[str, dict]:
    """Config sections of the demo world on disk, with contexts for training and dev."""
    write_world(WORLD, tmp_path)
    for split in ("train", "dev"):
        sentences = load_split(parse_config({"data": {split: str(tmp_path / f"{split}.conll")}}).data, split)
        found = {own.sentence.id: Context(own.sentence.words, "q", ()) for own in sentences}
        write_contexts(found, tmp_path / "contexts" / f"{split}.parquet")
    paths = {split: str(tmp_path / f"{split}.conll") for split in ("train", "dev")}
    return {"data": {**paths, "contexts": str(tmp_path / "contexts")}, "optim": {"batch_sentences": 4, "epochs": 2}}


def test_plan_counts_what_training_would_do(files: dict[str, dict]) -> None:
    config = parse_config(files)
    found = plan(config)
    assert found["sentences"] == {"train": 37, "dev": 6}
    assert found["types"] == list(WORLD.types)
    assert (found["steps_an_epoch"], found["steps"]) == (10, 20)
    model = build_model(config, LabelSet(WORLD.types))
    assert found["parameters"]["all"] == sum(own.numel() for own in model.parameters())
    assert all(0 <= share < 0.5 for share in found["padding"].values())
    assert found["pieces_an_epoch"]["plain"] == found["pieces_an_epoch"]["context"]  # no passages


def test_plan_refuses_contexts_of_other_sentences(files: dict[str, dict], tmp_path: Path) -> None:
    write_contexts({"stranger": Context(("a",), "q", ())}, tmp_path / "contexts" / "train.parquet")
    with pytest.raises(ValueError, match=r"unknown sentence ids, first 'stranger'"):
        plan(parse_config(files))


def test_plan_refuses_an_empty_training_file(files: dict[str, dict], tmp_path: Path) -> None:
    (tmp_path / "train.conll").write_text("")
    with pytest.raises(ValueError, match=r"train\.conll"):
        plan(parse_config(files))


def test_plan_refuses_a_wrong_encoder_path(files: dict[str, dict], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder with config"):
        plan(parse_config({**files, "model": {"encoder": str(tmp_path / "absent")}}))


def test_encoder_dropout_and_frozen_embeddings_are_what_the_config_says() -> None:
    settings = {"encoder_dropout": 0.0, "freeze_embeddings": True, "dropout": 0.3}
    model = build_model(parse_config({"model": settings}), LabelSet(WORLD.types))
    assert {own.p for own in model.encoder.modules() if isinstance(own, torch.nn.Dropout)} == {0.0}
    assert model.dropout.p == 0.3
    frozen = [name for name, own in model.named_parameters() if not own.requires_grad]
    assert frozen == [name for name, _ in model.named_parameters() if name.startswith("encoder.embeddings.")]


def test_gradient_checkpointing_keeps_less_and_gives_the_same_losses_and_gradients(views: ViewBuilder) -> None:
    found = {}
    for on in (False, True):
        config = parse_config({"model": {"gradient_checkpointing": on}})  # with the encoder's own dropout
        torch.manual_seed(0)
        model = build_model(config, LabelSet(WORLD.types)).train()
        data, step, kept = training_set(views, config), build_step(model, config), []
        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda own, kept=kept: kept.append(own.numel()) or own, lambda own: own
        ):
            losses = step(*data.share(range(4), 0, 1, CPU))
        losses["loss"].backward()
        gradients = [own.grad for own in model.parameters() if own.grad is not None]
        found[on] = (losses["loss"].item(), gradients, sum(kept))
    assert found[True][0] == found[False][0]
    torch.testing.assert_close(found[True][1], found[False][1], atol=1e-6, rtol=1e-4)
    assert found[True][2] < 0.7 * found[False][2]
