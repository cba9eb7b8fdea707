"""What TensorBoard shows is what was counted, and a resumed run goes on where it was cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ctxner.training.observe.recorder import TENSORBOARD_FOLDER, Recorder
from ctxner.views.view import ViewBatch

CPU = torch.device("cpu")
GROUPS = [{"name": "encoder", "lr": 1e-4}, {"name": "crf", "lr": 2e-3}, {"name": "encoder", "lr": 1e-4}]
ENTRY = {
    "epoch": 1,
    "losses": {"loss": 2.5},
    "dev_f1": {"plain": 0.25, "context": 0.5},
    "dev_scores": {"plain": {"per_type": {"person": {"f1": 0.75}}}, "context": {"per_type": {}}},
    "seconds_by_phase": {"forward": 3.0, "checkpoint": 1.0},
    "sentences_per_second": 12.5,
}


def recorder(folder: Path, *, rank: int = 0, log_steps: int = 2, first_step: int = 0) -> Recorder:
    settings: dict[str, Any] = {"run": {"seed": 0}}
    return Recorder(folder, settings, rank=rank, world_size=1, device=CPU, log_steps=log_steps, first_step=first_step)


def view(*lengths: int, width: int) -> ViewBatch:
    attention_RP = (torch.arange(width) < torch.tensor(lengths).unsqueeze(1)).long()
    nothing = torch.zeros(len(lengths), 1, dtype=torch.long)
    return ViewBatch(attention_RP, attention_RP, nothing, nothing.bool())


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    events = EventAccumulator(str(folder / TENSORBOARD_FOLDER))
    events.Reload()
    return {tag: {own.step: own.value for own in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def one_step(own: Recorder, loss: float, weight_B: torch.Tensor) -> None:
    own.timer.lap("forward")
    own.add({"loss": torch.tensor(loss)}, view(4, 2, width=4), view(8, 4, width=8), weight_B)
    own.step(GROUPS)


def test_a_log_step_has_means_over_sentences_since_the_last_one(tmp_path: Path) -> None:
    with recorder(tmp_path) as own:
        one_step(own, 6.0, torch.tensor([1.0, 1.0]))
        one_step(own, 3.0, torch.tensor([1.0, 0.0]))  # its second sentence only fills up
        one_step(own, 9.0, torch.tensor([1.0, 1.0]))  # no log step
    found = scalars(tmp_path)
    assert found["loss/loss"] == {2: pytest.approx(9.0 / 3)}
    assert found["padding/plain"] == {2: pytest.approx(0.25)}
    assert found["padding/context"] == {2: pytest.approx(0.25)}
    assert found["learning_rate/encoder"] == {2: pytest.approx(1e-4)}
    assert found["learning_rate/crf"] == {2: pytest.approx(2e-3)}
    assert found["time_share/forward"] == {2: 1.0}
    assert found["speed/pieces_per_second_context"][2] / found["speed/sentences_per_second"][2] == pytest.approx(24 / 3)
    assert found["memory/peak_gib"][2] > 0


def test_an_epoch_has_both_views_scores_by_type_and_where_its_seconds_went(tmp_path: Path) -> None:
    with recorder(tmp_path) as own:
        one_step(own, 1.0, torch.ones(2))
        own.epoch(ENTRY)
    found = scalars(tmp_path)
    assert found["dev_f1/plain"] == {1: 0.25}
    assert found["dev_f1/context"] == {1: 0.5}
    assert found["dev_f1_plain/person"] == {1: 0.75}
    assert found["epoch/loss/loss"] == {1: 2.5}
    assert found["epoch/seconds/forward"] == {1: 3.0}
    assert found["epoch/sentences_per_second"] == {1: 12.5}


def test_seconds_of_log_steps_count_in_the_epoch(tmp_path: Path) -> None:
    with recorder(tmp_path, log_steps=1) as own:
        one_step(own, 1.0, torch.ones(2))
        own.timer.lap("evaluation")
        assert list(own.seconds_by_phase()) == ["forward", "evaluation"]
        own.timer.lap("checkpoint")
        assert list(own.seconds_by_phase()) == ["checkpoint"]


def test_a_resumed_run_replaces_the_steps_that_it_repeats(tmp_path: Path) -> None:
    with recorder(tmp_path, log_steps=1) as own:
        for loss in (8.0, 7.0, 99.0):
            one_step(own, loss, torch.ones(2))
    with recorder(tmp_path, log_steps=1, first_step=2) as own:
        one_step(own, 5.0, torch.ones(2))
        one_step(own, 4.0, torch.ones(2))
    assert scalars(tmp_path)["loss/loss"] == {1: 4.0, 2: 3.5, 3: 2.5, 4: 2.0}


def test_only_rank_0_writes(tmp_path: Path) -> None:
    with recorder(tmp_path, rank=1, log_steps=1) as own:
        one_step(own, 1.0, torch.ones(2))
        own.epoch(ENTRY)
    assert list(tmp_path.iterdir()) == []
