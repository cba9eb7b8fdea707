"""Every second between laps is counted once, to the phase that it belongs to."""

from __future__ import annotations

import time

import pytest
import torch

from ctxner.training.observe.phase_timer import PHASES, PhaseTimer

CPU = torch.device("cpu")


def test_laps_add_up_to_the_time_that_went_by_and_go_to_their_phases() -> None:
    timer, started = PhaseTimer(CPU), time.perf_counter()
    for _ in range(2):
        time.sleep(0.02)
        timer.lap("forward")
        time.sleep(0.06)
        timer.lap("backward")
    time.sleep(0.01)
    timer.lap("evaluation")
    elapsed = time.perf_counter() - started
    found = timer.split()
    assert 0.17 <= sum(found.values()) <= elapsed
    assert found["forward"] >= 0.04
    assert found["backward"] >= 0.12
    assert list(found) == [phase for phase in PHASES if phase in found] == ["forward", "backward", "evaluation"]


def test_a_split_begins_anew_but_the_clock_goes_on() -> None:
    timer = PhaseTimer(CPU)
    timer.lap("data")
    timer.split()
    time.sleep(0.02)
    timer.lap("checkpoint")
    assert list(found := timer.split()) == ["checkpoint"]
    assert found["checkpoint"] >= 0.02
    assert timer.split() == {}


def test_exact_steps_stand_for_all_training_steps_and_leave_the_sum_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: steps that are not synchronized show their time in whatever phase happens to wait."""
    clock = iter([0.0, 1.0, 11.0, 12.0, 21.0, 30.0]).__next__
    monkeypatch.setattr(time, "perf_counter", clock)
    timer = PhaseTimer(CPU)
    timer.exact = False
    timer.lap("forward")  # 1 s: only started
    timer.lap("backward")  # 10 s: waits for the forward too
    timer.exact = True
    timer.lap("forward")  # 1 s
    timer.lap("backward")  # 9 s
    timer.exact = False
    timer.lap("evaluation")  # 9 s
    assert timer.split() == pytest.approx({"forward": 21 * 0.1, "backward": 21 * 0.9, "evaluation": 9.0})
