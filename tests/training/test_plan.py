"""The plan of a run: every sentence once an epoch whatever the number of workers, and honest arithmetic."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from ctxner.config import Config, parse_config
from ctxner.demo import make_world, write_world
from ctxner.encoders import load_tokenizer
from ctxner.files.contexts import Context, unlabelled_examples
from ctxner.labels import LabelSet
from ctxner.schema import Example, Passage, ScoredPassage, Sentence
from ctxner.training.build import build_model, build_step, encoder_dropout, start_path
from ctxner.training.data.training_set import TrainingSet, load_split, load_training
from ctxner.training.plan import plan
from ctxner.views.builder import ViewBuilder
from tests.contexts_files import write_contexts

pytestmark = pytest.mark.numeric

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


@pytest.fixture
def files(tmp_path: Path) -> dict[str, dict]:
    """Config sections of the demo world on disk, with contexts for training and dev."""
    write_world(WORLD, tmp_path)
    for split in ("train", "dev"):
        sentences = load_split(parse_config({"data": {split: str(tmp_path / f"{split}.conll")}}).data, split)
        passage = ScoredPassage(Passage("p", "x", "A small village that few people remember."), 1.0, 1)
        found = {own.sentence.id: Context(own.sentence.words, "q", (passage,)) for own in sentences}
        write_contexts(found, tmp_path / "contexts" / f"{split}.parquet")
    paths = {split: str(tmp_path / f"{split}.conll") for split in ("train", "dev")}
    folders = {"contexts": str(tmp_path / "contexts"), "cache": str(tmp_path / "views")}
    return {"data": {**paths, **folders}, "optim": {"batch_sentences": 4, "epochs": 2}}


def test_plan_counts_what_training_would_do(files: dict[str, dict]) -> None:
    config = parse_config(files)
    found = plan(config)
    assert found["sentences"] == {"train": 37, "dev": 6, "dev, scored after each epoch": 6}
    begins = [tag for own in WORLD.train for tag in own.tags if tag[0] in "BS"]  # one of these for each mention
    assert found["mentions"]["train"] == {type: sum(tag[2:] == type for tag in begins) for type in found["types"]}
    assert found["types"] == list(WORLD.types)
    assert (found["steps_an_epoch"], found["steps"]) == (10, 20)
    model = build_model(config, LabelSet(WORLD.types))
    assert found["parameters"]["all"] == sum(own.numel() for own in model.parameters())
    assert all(0 <= share < 0.5 for share in found["padding"].values())
    assert found["pieces_an_epoch"]["context"] == found["pieces_an_epoch"]["plain"] + 37 * 9, "eight pieces and [SEP]"
    assert found["doubts"] == []


def test_plan_refuses_contexts_of_other_sentences(files: dict[str, dict], tmp_path: Path) -> None:
    write_contexts({"stranger": Context(("a",), "q", ())}, tmp_path / "contexts" / "train.parquet")
    with pytest.raises(ValueError, match=r"train\.parquet: no row for 37 of 37 sentences, first"):
        plan(parse_config(files))


def test_plan_refuses_an_empty_training_file(files: dict[str, dict], tmp_path: Path) -> None:
    (tmp_path / "train.conll").write_text("")
    with pytest.raises(ValueError, match=r"train\.conll"):
        plan(parse_config(files))


@pytest.mark.parametrize("split", ["train", "dev", "also"])
def test_plan_refuses_sentences_without_gold_and_names_the_first(
    files: dict[str, dict], tmp_path: Path, split: str
) -> None:
    lines = [json.dumps({"id": f"s{n}", "words": ["Velmora"]} | ({"tags": ["O"]} if n < 2 else {})) for n in range(5)]
    (tmp_path / "mixed.jsonl").write_text("\n".join(lines))
    mixed = str(tmp_path / "mixed.jsonl")
    changed = {"also": [{"train": mixed}]} if split == "also" else {split: mixed, "contexts": None}
    config = {**files, "data": files["data"] | changed, "loss": {"mode": "plain"}}
    with pytest.raises(ValueError, match=r"mixed\.jsonl: 3 sentences have no gold tags, first 's2'; tag them or leave"):
        plan(parse_config(config))
    if split != "also":
        limit = {f"{split}_sentences": 2}
        assert len(load_split(parse_config({**config, "data": config["data"] | limit}).data, split)) == 2


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


def test_attention_has_a_dropout_of_its_own_and_without_it_is_fused(views: ViewBuilder) -> None:
    """What is not fused keeps each layer's probabilities [heads, pieces, pieces] for the backward pass."""
    whole = {"attention_dropout": None}
    for settings, rates in ((whole, {0.1}), ({}, {0.0, 0.1}), ({**whole, "encoder_dropout": 0.2}, {0.2})):
        config = parse_config({"model": settings})
        model = build_model(config, LabelSet(WORLD.types)).train()
        assert {own.p for own in model.encoder.modules() if isinstance(own, torch.nn.Dropout)} == rates
        data, step, kept = training_set(views, config), build_step(model, config), list[torch.Size]()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda own, kept=kept: kept.append(own.shape) or own, lambda own: own
        ):
            step(*data.share(range(4), 0, 1, CPU))
        squares = [shape for shape in kept if len(shape) == 4 and shape[1] > 1 and shape[2] == shape[3]]
        assert bool(squares) == ("attention_dropout" in settings)
    on_gpus = parse_config({"run": {"gpus": 1}, "model": {"encoder_dropout": 0.2}})
    assert encoder_dropout(on_gpus) == (0.2, 0.2)


def test_gradient_checkpointing_keeps_less_and_gives_the_same_losses_and_gradients(
    views: ViewBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the last layer whole in both: where it sees words only, it draws fewer random numbers for its dropout."""
    monkeypatch.setattr("ctxner.model.tagger._PLAIN_LAYERS", ())
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


def test_sentences_without_tags_need_a_loss_that_compares_views() -> None:
    with pytest.raises(ValueError, match=r"loss\.mode=plain has one view; --set loss\.mode=cl-kl or cl-l2"):
        config_of(data={"unlabelled": "x.parquet"}, loss={"mode": "plain"})


def test_contexts_of_which_every_row_failed_are_refused(tmp_path: Path) -> None:
    write_contexts({"1": Context(("a",), "", (), "no index")}, tmp_path / "u.parquet")
    with pytest.raises(
        ValueError, match=r"u\.parquet: retrieval failed for 1 of 1 sentences, first for '1': no index;"
    ):
        unlabelled_examples(tmp_path / "u.parquet")
    write_contexts({"1": Context((), "", ())}, tmp_path / "u.parquet")
    with pytest.raises(ValueError, match=r"u\.parquet: none of 1 rows has words"):
        unlabelled_examples(tmp_path / "u.parquet")


def test_a_warm_start_keeps_the_encoder_and_the_scores_of_shared_tags(minilm: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    former = build_model(config_of(model={"max_pieces": 64}), LabelSet(("person", "ship")))
    torch.nn.init.normal_(former.crf.transitions)
    former.save_pretrained(tmp_path / "former")
    load_tokenizer(minilm).save_pretrained(tmp_path / "former")
    config = config_of(model={"warm_start": str(tmp_path / "former")})
    assert start_path(config) == str(tmp_path / "former")
    model = build_model(config, LabelSet(("ship", "town")))
    for name, tensor in former.encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], tensor)
    shared = ["O", "B-ship", "I-ship", "E-ship", "S-ship"]
    mine, theirs = model.labels.encode(shared), former.labels.encode(shared)
    assert torch.equal(model.head.weight[mine], former.head.weight[theirs])
    assert torch.equal(model.crf.transitions[mine][:, mine], former.crf.transitions[theirs][:, theirs])
    other = build_model(config, LabelSet(("gene",)))
    assert torch.equal(other.head.weight[0], former.head.weight[0]), "O"
    assert other.config.max_pieces == 512


def test_two_starts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.encoder and model\.warm_start each say where to begin; set one"):
        config_of(model={"encoder": "a", "warm_start": "b"})
