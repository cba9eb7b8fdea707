"""The cooperative step: its sum of losses, where its gradients go, and that neither batches nor ranks change it."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ctxner.config import MODES, Config, parse_config
from ctxner.demo import World, make_world
from ctxner.encoders import load_tokenizer
from ctxner.labels import LabelSet
from ctxner.model.losses import PRESETS, LossWeights, cl_l2
from ctxner.model.tagger import EncoderCRF, EncoderCRFConfig
from ctxner.schema import Example, Passage, ScoredPassage
from ctxner.training.build import build_step
from ctxner.training.data.training_set import TrainingSet
from ctxner.training.step import UNLABELLED, CooperativeStep, linear_schedule, parameter_groups
from ctxner.views.builder import ViewBuilder
from ctxner.views.view import ViewBatch
from tests.closeness import assert_close
from tests.tiny_bert import tiny_bert

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")
NUM_SENTENCES = 5
PASSAGES = ("The quiet village sank at dawn.", "A ballad that few people remember.", "Nine captains sold furniture.")


def tiny_model(types: tuple[str, ...], *, legal_transitions: bool = True) -> EncoderCRF:
    torch.manual_seed(0)
    encoder = tiny_bert(initializer_range=0.2)  # far enough from zero that both views differ
    config = EncoderCRFConfig(
        encoder=encoder.to_dict(), types=list(types), dropout=0.0, legal_transitions=legal_transitions
    )
    model = EncoderCRF(config).train()
    torch.nn.init.normal_(model.head.weight, std=0.5)
    return model


def training_set(encoder: str, config: Config, world: World) -> TrainingSet:
    """Five sentences with one to three passages each, so that rows differ in length in both views."""
    examples = [
        Example(own, tuple(ScoredPassage(Passage(f"p{n}", "x", PASSAGES[n]), 1.0, n + 1) for n in range(1 + place % 3)))
        for place, own in enumerate(world.train)
    ]
    return TrainingSet(examples, LabelSet(world.types), ViewBuilder(load_tokenizer(encoder)), config)


def config_of(mode: str = "cl-kl") -> Config:
    return parse_config({"loss": {"mode": mode}})


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(num_train=NUM_SENTENCES, num_dev=0, num_test=0)


@pytest.fixture(scope="module")
def model(world: World) -> EncoderCRF:
    return tiny_model(world.types)


@pytest.fixture(scope="module")
def both(minilm: str, world: World) -> TrainingSet:
    return training_set(minilm, config_of(), world)


def share(data: TrainingSet, *indices: int) -> tuple[ViewBatch | None, ViewBatch | None, Tensor]:
    return data.share(indices, 0, 1, CPU)


def emissions(model: EncoderCRF, view: ViewBatch) -> tuple[Tensor, Tensor]:
    return model(view.input_ids_RP, view.attention_RP, view.word_index_BT)


def path_scores(model: EncoderCRF, emissions_TL: Tensor) -> dict[tuple[int, ...], Tensor]:
    """The score of every tag path, from the CRF's parameters and its constraints alone."""
    crf, num_tags = model.crf, emissions_TL.shape[1]
    scores = {}
    for path in itertools.product(range(num_tags), repeat=len(emissions_TL)):
        score = crf.start_transitions[path[0]] + crf.end_transitions[path[-1]]
        score = score + sum(emissions_TL[place, tag] for place, tag in enumerate(path))
        scores[path] = score + sum(crf.transitions[a, b] for a, b in itertools.pairwise(path))
    return scores


def test_loss_equals_the_enumeration_of_all_tag_paths(minilm: str) -> None:
    words = ("Velmora", "sank", "today")
    sentence = make_world(num_train=1, num_dev=0, num_test=0).train[0]
    sentence = type(sentence)("s", words, ("S-ship", "O", "O"))
    example = Example(sentence, (ScoredPassage(Passage("p", "x", PASSAGES[0]), 1.0, 1),))
    data = TrainingSet([example], LabelSet(("ship",)), ViewBuilder(load_tokenizer(minilm)), config_of())
    model = tiny_model(("ship",), legal_transitions=False)
    plain, context, weight_B = share(data, 0)
    with torch.no_grad():
        found = CooperativeStep(model, mode="cl-kl", weights=LossWeights())(plain, context, weight_B)
        by_view = [path_scores(model, emissions(model, view)[1][0]) for view in (plain, context)]
        gold = tuple(plain.tags_BT[0].tolist())
        log_q, log_p = (torch.log_softmax(torch.stack(list(scores.values())), 0) for scores in by_view)
        place = list(by_view[0]).index(gold)
        expected = {"nll": -log_q[place], "nll_ext": -log_p[place], "cl-kl": (log_p.exp() * (log_p - log_q)).sum()}
    assert expected["cl-kl"] > 0.01, "the views must differ for this to say anything"
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found["loss"], sum(expected.values()), atol=1e-4, rtol=1e-4)


def test_loss_weights_multiply_the_losses(model: EncoderCRF, both: TrainingSet) -> None:
    batch = share(both, 0, 1, 2)
    with torch.no_grad():
        ones = CooperativeStep(model, mode="cl-kl", weights=LossWeights())(*batch)
        weighted = CooperativeStep(model, mode="cl-kl", weights=LossWeights(plain=2.0, context=0.5, cl=3.0))(*batch)
    expected = 2.0 * ones["nll"] + 0.5 * ones["nll_ext"] + 3.0 * ones["cl-kl"]
    assert_close(weighted["loss"], expected)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_uses_its_own_views_and_losses(mode: str, model: EncoderCRF, minilm: str, world: World) -> None:
    config = config_of(mode)
    data = training_set(minilm, config, world)
    plain, context, weight_B = share(data, 0, 1)
    with torch.no_grad():
        losses = build_step(model, config)(plain, context, weight_B)
    assert (plain is None, context is None) == (mode == "context", mode == "plain")
    wanted = {"plain": {"nll"}, "context": {"nll_ext"}}.get(mode, {"nll", "nll_ext", mode})
    assert set(losses) == wanted | {"loss"}
    assert_close(losses["loss"], sum(losses[name] for name in wanted))


def test_released_code_preset_scales_the_marginal_kl_and_the_distance(
    model: EncoderCRF, minilm: str, world: World
) -> None:
    tree = {"loss": {"mode": "cl-kl", "preset": "released_code", "temperature": 2.0}}
    step = build_step(model, parse_config(tree))
    plain, context, weight_B = share(training_set(minilm, config_of(), world), 0, 3)
    with torch.no_grad():
        losses = step(plain, context, weight_B)
        (plain_BTH, plain_BTL), (context_BTH, context_BTL) = (emissions(model, view) for view in (plain, context))
        kl_B = model.crf.marginal_kl(context_BTL, plain_BTL, plain.mask_BT, temperature=2.0)
        nll_ext_B = model.crf.nll(context_BTL, context.tags_BT, context.mask_BT)
        assert_close(losses["cl-kl"], 0.5 * 2.0**2 * kl_B.sum())
        assert_close(losses["nll_ext"], 0.5 * nll_ext_B.sum())
        l2 = CooperativeStep(model, mode="cl-l2", weights=PRESETS["released_code"])(plain, context, weight_B)["cl-l2"]
        gap_B = cl_l2(context_BTH, plain_BTH, plain.mask_BT)
    assert_close(l2, 0.5 * gap_B.sum() / 32)


@pytest.mark.parametrize("mode", ["cl-l2", "cl-kl"])
def test_released_code_weighs_the_cooperative_term_of_sentences_without_gold_by_one(
    mode: str, model: EncoderCRF, both: TrainingSet
) -> None:
    step = CooperativeStep(model, mode=mode, weights=PRESETS["released_code"])
    views, weight_B = share(both, 0, 1, 2)[:2], torch.ones(3)
    tags_BT = views[0].tags_BT.clone()
    tags_BT[1] = UNLABELLED
    bare = [dataclasses.replace(view, tags_BT=tags_BT) for view in views]
    with torch.no_grad():
        alone = [step(*views, row_B)[mode] for row_B in torch.eye(3)]
        assert_close(step(*bare, weight_B)[mode], alone[0] + 2 * alone[1] + alone[2])


@pytest.mark.parametrize("mode", ["cl-l2", "cl-kl"])
def test_cooperative_term_sends_no_gradient_into_the_context_view(mode: str, world: World, both: TrainingSet) -> None:
    def gradient_of_passages(weights: LossWeights) -> Tensor:
        model = tiny_model(world.types)
        plain, context, weight_B = share(both, *range(NUM_SENTENCES))
        CooperativeStep(model, mode=mode, weights=weights)(plain, context, weight_B)["loss"].backward()
        only_context = sorted(set(context.input_ids_RP.flatten().tolist()) - set(plain.input_ids_RP.flatten().tolist()))
        gradient = model.encoder.get_input_embeddings().weight.grad
        assert gradient.abs().sum() > 0
        return gradient[only_context]

    teacher_only = gradient_of_passages(LossWeights(plain=0.0, context=0.0))
    assert len(teacher_only) > 10
    assert teacher_only.count_nonzero() == 0
    assert gradient_of_passages(LossWeights(plain=0.0)).count_nonzero() > 0


def test_sentences_of_weight_zero_contribute_no_loss_and_no_gradient(world: World, both: TrainingSet) -> None:
    def run(*indices: int, weights: list[float]) -> tuple[Tensor, list[Tensor]]:
        model = tiny_model(world.types)
        plain, context, _ = share(both, *indices)
        loss = build_step(model, config_of())(plain, context, torch.tensor(weights))["loss"]
        loss.backward()
        return loss.detach(), [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    torch.testing.assert_close(
        run(0, 1, 2, weights=[1.0, 0.0, 1.0]), run(0, 2, weights=[1.0, 1.0]), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("mode", ["cl-l2", "cl-kl"])
def test_losses_depend_neither_on_batch_order_nor_on_padding(mode: str, model: EncoderCRF, both: TrainingSet) -> None:
    step = CooperativeStep(model, mode=mode, weights=LossWeights())

    def losses_of(*indices: int) -> list[dict[str, Tensor]]:
        """Each sentence's losses in this batch, taken out by a weight of one for it alone."""
        plain, context, _ = share(both, *indices)
        return [step(plain, context, row_B) for row_B in torch.eye(len(indices))]

    with torch.no_grad():
        alone = [losses_of(index)[0] for index in range(NUM_SENTENCES)]
        for order in ([0, 1, 2, 3, 4], [3, 0, 4, 2, 1]):
            for index, found in zip(order, losses_of(*order), strict=True):
                torch.testing.assert_close(found, alone[index], atol=1e-4, rtol=1e-4)


MICRO_BATCHES = ([0, 1, 2], [3], [4])  # on two ranks: uneven shares, and two where a rank has only a filler


def gradients(rank: int, world_size: int, encoder: str, folder: str) -> None:
    """Save the averaged gradients of one accumulated step, computed as a training worker does."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store-{world_size}", rank=rank, world_size=world_size
    )
    world = make_world(num_train=NUM_SENTENCES, num_dev=0, num_test=0)
    model = tiny_model(world.types)
    data, step = training_set(encoder, config_of(), world), build_step(model, config_of())
    for batch in MICRO_BATCHES:
        loss = step(*data.share(batch, rank, world_size, CPU))["loss"]
        (loss * (world_size / NUM_SENTENCES)).backward()
    found = {}
    for name, parameter in model.named_parameters():
        torch.distributed.all_reduce(parameter.grad)
        found[name] = parameter.grad / world_size
    if rank == 0:
        torch.save(found, f"{folder}/ranks-{world_size}.pt")
    torch.distributed.destroy_process_group()


def test_gradients_of_two_gloo_ranks_equal_those_of_one_process(
    minilm: str, world: World, both: TrainingSet, tmp_path: Path
) -> None:
    torch.multiprocessing.spawn(gradients, (2, minilm, str(tmp_path)), nprocs=2)
    model = tiny_model(world.types)
    (build_step(model, config_of())(*share(both, *range(NUM_SENTENCES)))["loss"] / NUM_SENTENCES).backward()
    found = torch.load(tmp_path / "ranks-2.pt")
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_parameter_groups_hold_every_trainable_parameter_once_at_its_rate(world: World) -> None:
    model = tiny_model(world.types)
    model.encoder.get_input_embeddings().requires_grad_(False)
    groups = parameter_groups(model, encoder_lr=1.0, head_lr=2.0, crf_lr=3.0, weight_decay=0.1)
    settings = {id(own): (group["lr"], group["weight_decay"]) for group in groups for own in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(settings)
    rates = {"encoder": 1.0, "head": 2.0, "crf": 3.0}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert id(parameter) not in settings
            continue
        decay = 0.0 if name.startswith("crf") or name.endswith("bias") or "LayerNorm" in name else 0.1
        assert settings.pop(id(parameter)) == (rates[name.partition(".")[0]], decay), name
    assert not settings


def test_schedule_warms_up_and_falls_linearly_to_zero() -> None:
    factor = linear_schedule(10, warmup=0.2)
    expected = [1 / 3, 2 / 3, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0.0, 0.0]
    assert [factor(step) for step in range(12)] == pytest.approx(expected)


def test_schedule_without_warmup_starts_at_the_full_rate() -> None:
    factor = linear_schedule(4, warmup=0.0)
    assert [factor(step) for step in range(5)] == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


@pytest.mark.parametrize("mode", ["cl-kl", "cl-l2"])
def test_a_sentence_without_tags_has_only_the_cooperative_loss(minilm: str, world: World, mode: str) -> None:
    config = config_of(mode)
    views, labels = ViewBuilder(load_tokenizer(minilm)), LabelSet(world.types)
    passage = ScoredPassage(Passage("p", "x", PASSAGES[0]), 1.0, 1)
    tagged = [Example(own, (passage,)) for own in world.train[:2]]
    bare = Example(dataclasses.replace(world.train[1], tags=None), (passage,))
    data = TrainingSet(tagged, labels, views, config, [bare])
    step = build_step(tiny_model(world.types), config).eval()
    first, second, unlabelled = (step(*share(data, index)) for index in (0, 1, 2))
    assert (unlabelled["nll"], unlabelled["nll_ext"]) == (0, 0)
    assert unlabelled[mode] == pytest.approx(second[mode].item(), rel=1e-6)
    assert unlabelled["loss"] == unlabelled[mode]
    together = step(*share(data, 0, 2))
    assert together["loss"].item() == pytest.approx(first["loss"].item() + unlabelled[mode].item(), rel=1e-5)
    together["loss"].backward()
    assert all(own.grad is None or own.grad.isfinite().all() for own in step.parameters())
