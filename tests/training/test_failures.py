"""What goes wrong on a worker is said with what to do, and only what may go well the next time is tried again."""

from __future__ import annotations

import math

import pytest
import torch

from ctxner.config import load_config
from ctxner.training.failures import check_finite, is_loss, memory_explained, mendable

CONFIG = load_config(None, ["optim.batch_pieces=4096", "model.max_pieces=128"])


def test_too_much_main_memory_says_what_to_lower() -> None:
    with pytest.raises(MemoryError) as error, memory_explained(CONFIG, "epoch 1, step 3"):
        torch.empty(2**60, dtype=torch.uint8)
    text = str(error.value)
    assert text.startswith("epoch 1, step 3: out of memory (")
    for advice in (
        "lower optim.batch_pieces (4096) or model.max_pieces (128)",
        "--set model.gradient_checkpointing=true",
        "raise run.zero_stage (0)",
    ):
        assert advice in text


def test_too_much_memory_of_a_gpu_says_the_same() -> None:
    with (
        pytest.raises(MemoryError, match=r"CUDA out of memory.*lower optim\.batch_pieces"),
        memory_explained(CONFIG, ""),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def test_advice_that_is_followed_already_is_not_given_again() -> None:
    config = load_config(
        None, ["run.gpus=1", "run.zero_stage=3", "run.offload=true", "model.gradient_checkpointing=true"]
    )
    with pytest.raises(MemoryError) as error, memory_explained(config, ""):
        raise MemoryError("x")
    assert not any(word in str(error.value) for word in ("offload", "zero_stage", "gradient_checkpointing"))


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^shapes$"), memory_explained(CONFIG, ""):
        raise RuntimeError("shapes")


def test_finite_losses_pass() -> None:
    check_finite([{"loss": 1.0}, {"loss": 0.0}], 0, "epoch 1")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_names_its_worker_and_its_place(value: float) -> None:
    with pytest.raises(FloatingPointError, match=r"^worker 1: epoch 2, step 7: nll not finite; lower optim\.\*_lr"):
        check_finite([{"loss": 1.0, "nll": 1.0}, {"loss": 1.0, "nll": value}], 0, "epoch 2, step 7")


def test_a_step_that_deepspeed_left_out_stops_the_run() -> None:
    with pytest.raises(FloatingPointError, match=r"^all workers: epoch 1: a gradient not finite"):
        check_finite([{"loss": 1.0}], 1, "epoch 1")


def test_what_a_user_can_mend_names_the_worker_once() -> None:
    lost = RuntimeError("Connection closed by peer")
    full = OSError("no space")
    assert repr(mendable({0: lost, 1: full})) == repr(OSError("worker 1: no space"))
    for error in (PermissionError("x"), ValueError("x"), MemoryError("x")):
        assert str(mendable({2: error})) == "worker 2: x"
    diverged = FloatingPointError("worker 1: epoch 2: nll not finite")
    assert str(mendable({0: diverged, 1: diverged})) == str(diverged)


@pytest.mark.parametrize(
    "error", [RuntimeError("Connection closed by peer"), ConnectionResetError("x"), TimeoutError("x")]
)
def test_a_lost_peer_is_not_the_users_and_is_tried_again(error: Exception) -> None:
    assert mendable({0: error}) is None
    assert is_loss({0: error})


def test_a_programming_error_is_not_tried_again() -> None:
    assert not is_loss({0: RuntimeError("Connection closed by peer"), 1: TypeError("x")})
