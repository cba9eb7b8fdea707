"""What the dry run's minutes rest on: the threads that the run will have, and the speed of the encoder's own layers."""

import pytest
import torch

from ctxner.training.estimate import machine
from ctxner.training.estimate.memory import EncoderShape

SMALL = EncoderShape(layers=2, width=32, intermediate=64, heads=2, vocabulary=100, positions=64, token_types=1)


def test_minutes_are_those_of_the_threads_that_the_run_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, one worker of one thread was promised the speed of all cores."""
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(machine, "measured_flops", lambda shape, threads, bfloat16: threads * 1e9 / machine.USED)
    minutes = [machine.minutes_of(120e9, SMALL, threads=threads) for threads in (1, 2, 4, 8, None)]
    assert minutes == [2.0, 1.0, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_layer_is_measured_once_on_the_threads_given(monkeypatch: pytest.MonkeyPatch, bfloat16: bool) -> None:
    monkeypatch.setattr(machine, "_SECONDS", 0.01)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 2)
    layers, before = [], torch.get_num_threads()
    machine.measured_flops.cache_clear()
    made, threads = machine.nn.TransformerEncoderLayer, set[int]()

    def layer(*sizes: int, **settings: object) -> torch.nn.Module:
        layers.append(sizes)
        own = made(*sizes, **settings)
        own.register_forward_pre_hook(lambda *_: threads.add(torch.get_num_threads()))
        return own

    monkeypatch.setattr(machine.nn, "TransformerEncoderLayer", layer)
    assert machine.minutes_of(1e12, SMALL, threads=2, bfloat16=bfloat16) > 0
    assert machine.minutes_of(1e12, SMALL, threads=2, bfloat16=bfloat16) > 0
    assert (layers, threads, torch.get_num_threads()) == ([(32, 2, 64)], {2}, before)
    machine.measured_flops.cache_clear()
