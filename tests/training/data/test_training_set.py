"""Batches: every sentence once an epoch, whatever the number of workers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from ctxner.config import parse_config
from ctxner.files.contexts import Context
from ctxner.labels import LabelSet
from ctxner.schema import Example, Passage, ScoredPassage, Sentence
from ctxner.training.data.training_set import TrainingSet, load_training
from ctxner.training.plan import plan
from ctxner.views.builder import ViewBuilder
from tests.contexts_files import write_contexts
from tests.training.planned import WORLD, config_of, training_set

pytestmark = pytest.mark.numeric


CPU = torch.device("cpu")


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
    assert sum(data.steps_by_epoch()) == 3 * math.ceil(math.ceil(37 / 4) / 2)


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


def unlabelled(number: int) -> list[Example]:
    passage = ScoredPassage(Passage("p", "x", "Few people remember the village."), 1.0, 1)
    return [Example(Sentence(f"u{n}", ("Velmora", "sank", *["again"] * n)), (passage,)) for n in range(number)]


def test_every_epoch_has_the_next_unlabelled_sentences(views: ViewBuilder) -> None:
    config = config_of(data={"unlabelled": "x", "unlabelled_ratio": 0.5}, optim={"batch_sentences": 4})
    examples = [Example(own) for own in WORLD.train[:10]]
    data = TrainingSet(examples, LabelSet(WORLD.types), views, config, unlabelled(7))
    epochs = [sorted(index for step in data.steps(epoch) for batch in step for index in batch) for epoch in range(7)]
    assert all(own[:10] == list(range(10)) and len(set(own)) == len(own) == 15 for own in epochs)
    seen = [index for own in epochs for index in own[10:]]
    assert {seen.count(index) for index in range(10, 17)} == {5}, "all of them equally often"
    plain, context, _ = data.share([3, 12], 0, 1, CPU)
    for view in (plain, context):
        assert (view.tags_BT[0][view.mask_BT[0]] >= 0).all()
        assert (view.tags_BT[1][view.mask_BT[1]] == -1).all()


def test_fewer_unlabelled_sentences_than_wanted_are_used_once_an_epoch(views: ViewBuilder) -> None:
    config = config_of(data={"unlabelled": "x", "unlabelled_ratio": 9})
    data = TrainingSet([Example(WORLD.train[0])], LabelSet(WORLD.types), views, config, unlabelled(4))
    assert sorted(index for step in data.steps(0) for batch in step for index in batch) == [0, 1, 2, 3, 4]


def test_context_dropout_and_random_passages_are_drawn_anew_each_epoch(views: ViewBuilder) -> None:
    texts = ("Few people remember it.", "A village.", "Ships sank there.", "So they say.")
    passages = tuple(ScoredPassage(Passage(text, "x", text), 1.0, 1) for text in texts)
    examples = [Example(own, passages) for own in WORLD.train]
    every = [[views.context(Example(own.sentence, passages[:n])).windows for n in range(5)] for own in examples]

    def numbers(seed: int, epoch: int, **settings: object) -> list[int]:
        config = config_of(model=settings, run={"seed": seed}, optim={"batch_sentences": 4})
        data = TrainingSet(examples, LabelSet(WORLD.types), views, config)
        _, context, _ = data.share([0, 1], 0, 1, CPU, epoch=epoch)
        shown = data.views(epoch)["context"]
        assert shown.shape()[1].tolist() == [view.longest_row for view in shown]
        assert context.attention_RP.sum(1).tolist() == [shown[0].longest_row, shown[1].longest_row]
        assert sorted(index for step in data.steps(epoch) for batch in step for index in batch) == list(range(37))
        return [own.index(view.windows) for own, view in zip(every, shown, strict=True)]

    assert set(numbers(0, 0, context_dropout=0.4)) == {0, 4}
    assert set(numbers(0, 0, random_passages=True)) == {1, 2, 3, 4}
    both = {"context_dropout": 0.3, "random_passages": True}
    assert set(numbers(0, 0, **both)) == {0, 1, 2, 3, 4}
    assert numbers(0, 1, **both) == numbers(0, 1, **both) != numbers(0, 2, **both)
    assert numbers(0, 1, **both) != numbers(1, 1, **both) != numbers(-1, 1, **both)


def test_several_data_sets_are_trained_on_with_the_types_of_all(files: dict[str, dict], tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("1\tB-gene\tBRCA1\n2\tO\tmatters\n\n")
    more = {"train": str(tmp_path / "more.txt"), "token_column": 2, "tag_column": 1}
    write_contexts({"more-0": Context(("BRCA1", "matters"), "q", ())}, tmp_path / "more.parquet")
    for contexts in (None, str(tmp_path / "more.parquet")):
        config = config_of(**{**files, "data": {**files["data"], "also": [{**more, "contexts": contexts}]}})
        examples, unlabelled_ones = load_training(config.data)
        assert len(examples) == 38
        assert unlabelled_ones == []
        assert examples[-1].sentence.tags == ("S-gene", "O")
        assert plan(config)["types"] == sorted((*WORLD.types, "gene"))


def test_views_are_kept_for_the_next_run(files: dict[str, dict], tmp_path: Path, views: ViewBuilder) -> None:
    first, stores = plan(parse_config(files)), sorted((tmp_path / "views").iterdir())
    assert len(stores) == 2, "a view each"
    assert plan(parse_config(files)) == first
    assert sorted((tmp_path / "views").iterdir()) == stores
    assert plan(parse_config({**files, "data": {**files["data"], "cache": None}})) == first
    config = parse_config({**files, "model": {"random_passages": True, "context_dropout": 0.2}})
    passages = tuple(ScoredPassage(Passage(text, "x", text), 1.0, 1) for text in ("Few remember it.", "A village."))
    examples = [Example(own, passages) for own in WORLD.train]
    kept, listed = (TrainingSet(examples, LabelSet(WORLD.types), views, config, cache=own) for own in (tmp_path, None))
    for epoch in range(2):
        assert kept.steps(epoch) == listed.steps(epoch)
        for step in kept.steps(epoch):
            found, expected = (own.share(step[0], 0, 1, CPU, epoch=epoch) for own in (kept, listed))
            for ours, theirs in zip(found[:2], expected[:2], strict=True):
                assert torch.equal(ours.input_ids_RP, theirs.input_ids_RP)
                assert torch.equal(ours.word_index_BT, theirs.word_index_BT)
