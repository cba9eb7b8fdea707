"""Settings that are `auto` are decided where a run starts, and stay so when it goes on elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ctxner.config import Config, parse_config
from ctxner.training import automatic
from ctxner.training.automatic import resolved
from ctxner.training.estimate import machine

GIB = 2**30


def _auto(**settings: object) -> Config:
    return parse_config({"run": {"precision": "auto"}, "optim": {"batch_pieces": "auto"}, **settings})


@pytest.mark.parametrize("is_native", [True, False])
def test_the_precision_is_what_the_processor_multiplies_natively(
    monkeypatch: pytest.MonkeyPatch, is_native: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": is_native})
    assert resolved(_auto()).run.precision == ("bfloat16" if is_native else "float32")


def test_the_batch_grows_with_memory_to_a_full_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentences of 64 and 512 pieces, 64 of them in a batch."""
    found = []
    for gib in (2, 4, 6, 1000):
        monkeypatch.setattr(automatic, "memory_bytes", lambda gib=gib: gib * GIB)
        found.append(resolved(_auto(optim={"batch_pieces": "auto", "batch_sentences": 64})).optim.batch_pieces)
    assert found == sorted(set(found))
    assert all(number % 576 == 0 for number in found)
    assert found[-1] == 64 * 576


def test_what_cannot_fit_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automatic, "memory_bytes", lambda: GIB // 10)
    with pytest.raises(ValueError, match=r"batch_pieces=auto: not one sentence of 576 pieces fits into 0\.1 GiB"):
        resolved(_auto())


def test_a_run_that_goes_on_keeps_what_it_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    began = resolved(_auto())
    monkeypatch.setattr(automatic, "memory_bytes", lambda: 2 * GIB)
    monkeypatch.setattr(automatic, "native_dtype", lambda device: "float32")
    saved = began.model_copy(update={"run": began.run.model_copy(update={"precision": "bfloat16"})})
    assert resolved(_auto(), saved=saved) == saved
    assert resolved(saved) == saved, "nothing is decided twice"


def test_a_containers_memory_is_what_it_may_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before, batches and plans went by the host's memory, and a container was killed."""
    monkeypatch.setattr(machine, "_LIMIT", tmp_path / "memory.max")
    whole = machine.memory_bytes()
    for text, expected in (("max\n", whole), (f"{GIB}\n", GIB), (f"{whole * 2}\n", whole)):
        (tmp_path / "memory.max").write_text(text)
        assert machine.memory_bytes() == expected
