"""The sizes that a dry run prints are those of the tensors that training would make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ctxner.config import Config, parse_config
from ctxner.demo import make_world
from ctxner.encoders import load_tokenizer
from ctxner.labels import LabelSet
from ctxner.model.tagger import EncoderCRF
from ctxner.schema import Example, Passage, ScoredPassage
from ctxner.training.build import build_step
from ctxner.training.data.training_set import TrainingSet
from ctxner.training.estimate.memory import XLM_R_LARGE
from ctxner.training.estimate.report import count_parameters, sizing
from ctxner.training.step import parameter_groups
from ctxner.views.builder import ViewBuilder

Make = Callable[..., EncoderCRF]
CPU = torch.device("cpu")
WORLD = make_world(num_train=37, num_dev=0, num_test=0)


def config_of(**sections: dict) -> Config:
    return parse_config({"optim": {"batch_sentences": 8, "accumulate": 2}, **sections})


def training_set(minilm: str, config: Config) -> TrainingSet:
    passage = ScoredPassage(Passage("p", "x", "A small village that few people remember. " * 4), 1.0, 1)
    examples = [Example(own, (passage,) if place % 2 else ()) for place, own in enumerate(WORLD.train)]
    return TrainingSet(examples, LabelSet(WORLD.types), ViewBuilder(load_tokenizer(minilm)), config)


def found_of(model: EncoderCRF, data: TrainingSet, config: Config) -> dict[str, Any]:
    return sizing(
        model,
        data.views(),
        data.steps(0),
        workers=config.run.workers,
        on_gpu=config.run.gpus > 0,
        precision="autocast" if config.run.precision == "bfloat16" else "float32",
        accumulate=config.optim.accumulate,
    )


def test_memory_is_within_15_percent_of_what_the_largest_micro_batch_takes(
    small_model: Make, saved_bytes: Callable[..., int], num_bytes: Callable[..., int], minilm: str
) -> None:
    config = config_of(run={"workers": 2})
    data, model = training_set(minilm, config), small_model(vocabulary=30522, types=WORLD.types)
    row = found_of(model, data, config)["zero_stages"][0]
    step = build_step(model, config)
    shares = [
        data.share(batch, rank, 2, CPU) for own in data.steps(0) for batch in own for rank in range(min(2, len(batch)))
    ]
    activations = max(saved_bytes(step, *share) for share in shares)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, encoder_lr=1e-4, head_lr=1e-3, crf_lr=1e-3, weight_decay=0.01), fused=True
    )
    step(*shares[0])["loss"].backward()
    optimizer.step()
    moments = [own for state in optimizer.state.values() for name, own in state.items() if name.startswith("exp_avg")]
    states = num_bytes(model.parameters()) + num_bytes(own.grad for own in model.parameters()) + num_bytes(moments)
    assert row["activations"] == pytest.approx(activations, rel=0.15)
    assert row["total"] - row["activations"] == states
    assert row["total"] == pytest.approx(states + activations, rel=0.15)


def test_the_largest_micro_batch_and_the_global_batch_are_those_of_the_tensors(small_model: Make, minilm: str) -> None:
    config = config_of(run={"workers": 3})
    data = training_set(minilm, config)
    found = found_of(small_model(vocabulary=30522, types=WORLD.types), data, config)
    positions = [
        [view.input_ids_RP.numel() for view in data.share(batch, rank, 3, CPU)[:2]]
        for step in data.steps(0)
        for batch in step
        for rank in range(min(3, len(batch)))
    ]
    largest = {name: own["rows"] * own["pieces"] for name, own in found["largest_micro_batch"].items()}
    assert list(largest.values()) in positions
    assert sum(largest.values()) == max(map(sum, positions))
    num_steps = len(data.steps(0))
    assert found["global_batch"] == pytest.approx(
        {"sentences": 37 / num_steps, "pieces": sum(map(sum, positions)) / num_steps}
    )


@pytest.mark.parametrize("mode", ["plain", "context"])
def test_a_run_on_one_view_keeps_one_view(small_model: Make, minilm: str, mode: str) -> None:
    config = config_of(loss={"mode": mode})
    data, model = training_set(minilm, config), small_model(vocabulary=30522, types=WORLD.types)
    found = found_of(model, data, config)
    assert list(found["largest_micro_batch"]) == [mode]
    both = found_of(model, training_set(minilm, config_of()), config_of())
    assert found["zero_stages"][0]["activations"] < both["zero_stages"][0]["activations"]
    assert found["zero_stages"][3]["sent_a_step"] <= both["zero_stages"][3]["sent_a_step"]


def test_parameters_are_counted_by_part_and_frozen_ones_are_not_trainable(small_model: Make) -> None:
    model = small_model()
    model.encoder.embeddings.requires_grad_(False)
    found = count_parameters(model)
    frozen = sum(own.numel() for own in model.encoder.embeddings.parameters())
    assert found["all"] == found["encoder"] + found["head"] + found["crf"] == model.num_parameters()
    assert found["trainable"] == found["all"] - frozen
    assert found["crf"] == sum(own.numel() for own in model.crf.parameters())


def test_frozen_layers_save_activations_only_below_frozen_embeddings(small_model: Make, minilm: str) -> None:
    config = config_of()
    data, model = training_set(minilm, config), small_model(vocabulary=30522, types=WORLD.types)
    trained = found_of(model, data, config)["zero_stages"][0]["activations"]
    model.encoder.encoder.layer[:2].requires_grad_(False)
    assert found_of(model, data, config)["zero_stages"][0]["activations"] == trained
    model.encoder.embeddings.requires_grad_(False)
    assert found_of(model, data, config)["zero_stages"][0]["activations"] < 0.6 * trained


def test_every_encoder_and_machine_is_told_with_and_without_checkpointing(small_model: Make, minilm: str) -> None:
    config = config_of()
    rows = found_of(small_model(vocabulary=30522, types=WORLD.types), training_set(minilm, config), config)["fits"]
    assert [(row["encoder"], row["machine"], row["checkpointing"]) for row in rows] == [
        (encoder, machine, checkpointing)
        for encoder in ("configured", "xlm-roberta-large")
        for machine in ("1 x 24 GiB", "8 x 80 GiB")
        for checkpointing in (False, True)
    ]
    for without, with_it in zip(rows[::2], rows[1::2], strict=True):
        for fewer, more in zip(without["batch_pieces"], with_it["batch_pieces"], strict=True):
            assert fewer is None or fewer < more
    assert rows[0]["batch_pieces"][0] > 10 * rows[4]["batch_pieces"][0], "a small encoder leaves far more room"
    assert XLM_R_LARGE.layers == 24
