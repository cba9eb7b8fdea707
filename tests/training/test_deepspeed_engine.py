"""Two real gloo workers under every ZeRO stage: the same losses, and the state of each goes on under any other.

All runs of a number of workers share their processes, which fork from one that has imported DeepSpeed: that takes
seconds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from safetensors.torch import load_file, save_file

from ctxner.config import parse_config
from ctxner.demo import make_world
from ctxner.encoders import load_tokenizer
from ctxner.labels import LabelSet
from ctxner.model.tagger import EncoderCRF, EncoderCRFConfig
from ctxner.predictor import Tagger
from ctxner.schema import Example, Passage, ScoredPassage
from ctxner.training import deepspeed_engine as engines
from ctxner.training.build import build_step
from ctxner.training.checkpoints.files import open_shares, step_seed, write_share
from ctxner.training.data.training_set import TrainingSet
from ctxner.training.deepspeed_engine import build_engine, own_moments, reduce_gradients, restore_moments, whole_model
from ctxner.training.estimate import memory
from ctxner.training.estimate.capacity import sent_bytes
from ctxner.training.estimate.memory import EncoderShape
from ctxner.views.builder import ViewBuilder
from tests.tiny_bert import tiny_bert

pytestmark = pytest.mark.numeric

NUM_STEPS, CUT = 5, 3
SETTINGS: dict[str, dict[str, Any]] = {
    **{str(stage): {"zero_stage": stage} for stage in range(4)},
    "1-offload": {"zero_stage": 1, "offload": True},
    "3-offload": {"zero_stage": 3, "offload": True},
    "3-checkpointing": {"zero_stage": 3},  # of activations
    "3-none-live": {"zero_stage": 3},  # no parameter stays gathered
    "dropout": {"zero_stage": 1},
    **{f"four-{stage}": {"zero_stage": stage} for stage in range(4)},
    "alone": {},
}
# Each state goes on under its own stage and under another.
RESUMED = (("1", "1"), ("2", "2"), ("3", "3"), ("0", "3"), ("3", "1"), ("1", "2"), ("2", "0"), ("dropout", "dropout"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, minilm: str) -> Mapping[str, dict[str, Any]]:
    """What each run gave, `parameters` among it; `alone` is one process without ZeRO, `four-0` four of them."""
    pytest.importorskip("deepspeed")
    folder = tmp_path_factory.mktemp("engine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DS_ACCELERATOR", "cpu")  # DeepSpeed reads it on import
        torch.multiprocessing.set_forkserver_preload(["deepspeed", "ctxner.training.build", "ctxner.predictor"])
        for world_size in (4, 2, 1):
            given = (world_size, str(folder), minilm)
            torch.multiprocessing.start_processes(_work, given, world_size, start_method="forkserver")
    return {
        path.stem: {**json.loads(path.read_text()), "parameters": load_file(path.with_suffix(".safetensors"))}
        for path in folder.glob("*.json")
    }


@pytest.mark.parametrize("name", ["1", "2", "3", "1-offload", "3-offload", "3-checkpointing"])
def test_every_zero_stage_gives_the_losses_and_the_model_of_none(runs: Mapping[str, Any], name: str) -> None:
    assert runs[name]["losses"] == pytest.approx(runs["0"]["losses"], rel=1e-4)
    torch.testing.assert_close(runs[name]["parameters"], runs["0"]["parameters"], atol=1e-5, rtol=0)
    assert runs[name]["entropies"] == pytest.approx(runs["0"]["entropies"], rel=1e-3), "both views on dev"


@pytest.mark.parametrize("name", ["1", "2", "3"])
def test_zero_shares_the_optimizers_state_between_the_workers(runs: Mapping[str, Any], name: str) -> None:
    assert runs[name]["held"] == pytest.approx(runs["0"]["held"] / 2, rel=0.01)


@pytest.mark.parametrize("name", ["1", "2"])
def test_float32_parameters_are_their_own_master_weights(runs: Mapping[str, Any], name: str) -> None:
    assert runs[name]["own_masters"]
    assert not runs["1-offload"]["own_masters"]


def test_two_workers_give_the_losses_of_one(runs: Mapping[str, Any]) -> None:
    assert runs["0"]["losses"] == pytest.approx(runs["alone"]["losses"], rel=1e-5)
    assert runs["0"]["losses"][-1] < runs["0"]["losses"][0], "something is learnt"


@pytest.mark.parametrize("stage", ["0", "3"])
def test_four_workers_give_the_losses_of_one(runs: Mapping[str, Any], stage: str) -> None:
    own, alone = runs[f"four-{stage}"], runs["alone"]
    assert own["losses"] == pytest.approx(alone["losses"], rel=1e-5 if stage == "0" else 1e-4)
    torch.testing.assert_close(own["parameters"], alone["parameters"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("workers", [2, 4])
def test_workers_send_what_the_formula_says(runs: Mapping[str, Any], stage: int, workers: int) -> None:
    name = str(stage) if workers == 2 else f"four-{stage}"
    sizes = {"workers": workers, "precision": "float32", "views": 2, "micro_batches": 1}
    run = runs[name]
    formula = sent_bytes(run["num_parameters"], run["num_trainable"], stage=stage, **sizes)
    assert run["sent_a_step"] == pytest.approx(formula, rel=0.02)


def test_stage_3_sends_at_most_what_the_formula_says_and_less_when_parameters_stay_gathered(
    runs: Mapping[str, Any],
) -> None:
    sizes = {"workers": 2, "precision": "float32", "views": 2, "micro_batches": 1}
    run = runs["3-none-live"]
    looked_up = EncoderShape.of(tiny_bert()).largest_parameter
    formula = sent_bytes(run["num_parameters"], run["num_trainable"], stage=3, **sizes, looked_up=looked_up)
    assert run["sent_a_step"] == pytest.approx(formula, rel=0.05)
    assert runs["3"]["sent_a_step"] < 0.9 * formula


@pytest.mark.parametrize(("saved", "resumed"), RESUMED)
def test_a_state_goes_on_under_any_stage_and_exactly_under_its_own(
    runs: Mapping[str, Any], saved: str, resumed: str
) -> None:
    run, whole, exact = runs[f"{saved}-to-{resumed}"], runs[saved], saved == resumed
    assert run["losses"] == pytest.approx(whole["losses"][CUT:], rel=0 if exact else 1e-4, abs=0)
    torch.testing.assert_close(run["parameters"], whole["parameters"], atol=0 if exact else 1e-5, rtol=0)


@pytest.mark.parametrize("saved", ["0", "3"])
def test_a_state_of_two_workers_goes_on_with_one(runs: Mapping[str, Any], saved: str) -> None:
    own, alone = runs[f"{saved}-to-alone"], runs["alone"]
    torch.testing.assert_close(own["parameters"], alone["parameters"], atol=1e-5, rtol=0)


def _work(rank: int, world_size: int, folder: str, tokenizer: str) -> None:
    """A process: all runs of a number of workers, one after another."""
    os.environ |= {"DS_ACCELERATOR": "cpu", "LOCAL_RANK": str(rank), "DEEPSPEED_LOG_LEVEL": "warning"}
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous-{world_size}", rank=rank, world_size=world_size
    )
    _count_collectives()
    data = _data(tokenizer)
    if world_size == 4:
        for name in ("four-0", "four-1", "four-2", "four-3"):
            _run(data, Path(folder), name, None, rank, world_size)
    elif world_size == 2:
        for name in SETTINGS:
            if name != "alone" and not name.startswith("four"):
                _run(data, Path(folder), name, None, rank, world_size)
        for saved, name in RESUMED:
            _run(data, Path(folder), name, saved, rank, world_size)
    else:
        for saved in (None, "0", "3"):
            _run(data, Path(folder), "alone", saved, rank, world_size)
    torch.distributed.destroy_process_group()


def _data(tokenizer: str) -> TrainingSet:
    world = make_world(num_train=2 * NUM_STEPS, num_dev=0, num_test=0)
    passages = (ScoredPassage(Passage("p", "x", "The quiet village sank at dawn."), 1.0, 1),)
    examples = [Example(own, passages) for own in world.train]
    config = parse_config({"optim": {"batch_sentences": 2}})
    data = TrainingSet(examples, LabelSet(world.types), ViewBuilder(load_tokenizer(tokenizer)), config)
    data.examples = examples  # type: ignore[attr-defined]
    return data


def _run(data: TrainingSet, folder: Path, name: str, saved: str | None, rank: int, world_size: int) -> None:
    """Some steps from the start, whose state is kept on the way; or, given whose state, from there to the end."""
    rates = {"encoder_lr": 1e-3, "head_lr": 5e-3, "crf_lr": 5e-3, "weight_decay": 0.1, "batch_sentences": 2}
    config = parse_config({"optim": rates, "run": SETTINGS[name]})
    model, num_done = _model(data), CUT if saved else 0
    frozen = sum(own.numel() for own in model.parameters() if not own.requires_grad)
    engines.LIVE_ELEMENTS = 0 if name == "3-none-live" else memory.LIVE_ELEMENTS
    if name == "dropout":
        model.dropout.p = 0.5
    if name == "3-checkpointing":
        model.encoder.gradient_checkpointing_enable({"use_reentrant": False})
    if saved:
        model.load_state_dict(load_file(folder / saved / "model.safetensors"))
    engine = build_engine(build_step(model, config), config, NUM_STEPS, num_done=num_done)
    if saved:
        with open_shares(folder / saved) as read:
            restore_moments(engine, read)
    engine.train()
    losses, sent = [], list[float]()
    for number, step in enumerate(data.steps(0)[num_done:], start=num_done + 1):
        torch.manual_seed(step_seed(config.run.seed, 0, number, rank))
        _sent.clear()
        loss = engine(*data.share(step[0], rank, world_size, torch.device("cpu")))["loss"]
        engine.backward(loss * (world_size / len(step[0])))
        reduce_gradients(engine)
        engine.step()
        sent.append(sum(_sent))
        total = loss.detach().clone()
        torch.distributed.all_reduce(total)
        losses.append(total.item())
        if number == CUT and not saved:
            _keep(folder / name, engine, rank, world_size)
    assert len(losses) == NUM_STEPS - num_done
    whole = whole_model(model)
    assert whole is not None
    # Each worker has another number of sentences, as in an evaluation.
    examples = data.examples[: 3 + 4 * rank]  # type: ignore[attr-defined]
    tagger = Tagger(whole, data.builder.tokenizer)
    entropies = [own.entropy for view in ("plain", "context") for own in tagger.predict(examples, view=view)]
    if rank == 0:
        path = folder / (f"{saved}-to-{name}" if saved else name)
        save_file(whole.state_dict(), path.with_suffix(".safetensors"))
        held = sum(moment.numel() for state in engine.basic_optimizer.state.values() for moment in state.values())
        size = sum(own.numel() for own in whole.parameters())
        found = {"losses": losses, "entropies": entropies, "held": held, "sent_a_step": sum(sent) / len(losses)}
        found |= {"num_parameters": size, "num_trainable": size - frozen}
        memory_of = {own.untyped_storage().data_ptr() for own in model.parameters()}
        masters = getattr(engine.optimizer, "single_partition_of_fp32_groups", [])
        found["own_masters"] = all(own.untyped_storage().data_ptr() in memory_of for own in masters)
        path.with_suffix(".json").write_text(json.dumps(found))


_RING = {  # what a worker sends of the larger tensor of a collective, times (N - 1) / N
    "all_reduce": 2,
    "all_gather": 1,
    "all_gather_into_tensor": 1,
    "reduce_scatter": 1,
    "reduce_scatter_tensor": 1,
}


_sent = list[float]()


def _count_collectives() -> None:
    """From now on `_sent` gets the bytes that this worker sends in each collective; before DeepSpeed looks them up."""
    share = 1 - 1 / torch.distributed.get_world_size()

    def counting(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **settings: Any) -> Any:
            every = [item for own in (*given, *settings.values()) for item in (own if isinstance(own, list) else [own])]
            sizes = [item.numel() * item.element_size() for item in every if isinstance(item, torch.Tensor)]
            _sent.append(_RING[name] * share * max(sizes))
            return original(*given, **settings)

        return call

    for name in _RING:
        setattr(torch.distributed, name, counting(name, getattr(torch.distributed, name)))


def _keep(folder: Path, engine: Any, rank: int, world_size: int) -> None:
    folder.mkdir(exist_ok=True)
    write_share(folder, own_moments(engine, rank, world_size), rank, world_size)
    whole = whole_model(engine.module.model, keep=rank == 0)
    if rank == 0:
        assert whole is not None
        save_file(whole.state_dict(), folder / "model.safetensors")


def _model(data: TrainingSet) -> EncoderCRF:
    torch.manual_seed(0)
    encoder = tiny_bert()
    types = make_world(num_train=1, num_dev=0, num_test=0).types
    model = EncoderCRF(EncoderCRFConfig(encoder=encoder.to_dict(), types=list(types), dropout=0.0))
    model.encoder.embeddings.position_embeddings.requires_grad_(False)  # frozen ones have no state
    return model
