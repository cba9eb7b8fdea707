"""Sizes are told in units that one reads at a glance."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.plan_tables import show_plan


def plan_of() -> dict[str, Any]:
    amounts = ("parameters", "gradients", "optimizer", "master_weights", "buffers", "activations")
    amounts += ("total", "activations_checkpointed", "total_checkpointed", "sent_a_step")
    plan: dict[str, Any] = {
        "sentences": {"train": 3394},
        "types": ["person"],
        "mentions": {"train": {"person": 40, "place": 3}, "dev": {"person": 7}},
        "minutes_here": 4.4,
        "memory_here": 8 * 2**30,
        "pieces_an_epoch": {"plain": 100},
        "padding": {"plain": 0.052},
        "steps_an_epoch": 10,
        "steps": 50,
        "global_batch": {"sentences": 15.9, "pieces": 1234.0},
        "largest_micro_batch": {"plain": {"rows": 16, "pieces": 60}},
        "parameters": {"encoder": 5, "head": 2, "crf": 1, "all": 8, "trainable": 7},
        "workers": 2,
        "max_pieces": 128,
        "zero_stages": [{"zero_stage": stage, **dict.fromkeys(amounts, (stage + 1) * 2**30)} for stage in range(4)],
        "fits": [
            {
                "encoder": "configured",
                "machine": "1 x 24 GiB",
                "checkpointing": True,
                "batch_pieces": [11520, None, 576, 217152],
            }
        ],
        "doubts": ["dev has no mention"],
        "step_times": {"configured": [{"gpus": 64, "seconds": [0.25, 0.5, 1.0, 2.0]}]},
    }
    return plan


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    text = capsys.readouterr().out
    return [" ".join(line.replace("│", " ").replace("┃", " ").split()) for line in text.splitlines()]


def test_a_plan_says_first_what_matters_here(capsys: pytest.CaptureFixture[str]) -> None:
    show_plan(plan_of(), configured_stage=2)
    lines = lines_of(capsys)
    assert len(lines) <= 12
    assert "sentences train 3,394" in lines
    assert "steps 10 an epoch, 50 in all" in lines
    assert [line for line in lines if line.startswith(("person", "place"))] == ["person 40 7", "place 3 0"]
    assert "time about 4 min on this machine when it is idle (a rough" in " ".join(lines)
    assert "memory 6.0 GiB for 2 workers, computed; this machine has 8.0 GiB" in lines
    assert "note: dev has no mention" in lines
    assert "H100" not in " ".join(lines)


@pytest.mark.parametrize("verbose", [False, True])
def test_other_hardware_is_shown_where_the_run_does_not_fit_or_it_is_asked_for(
    verbose: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    show_plan(plan_of() | {"memory_here": 2**30}, configured_stage=2, verbose=verbose)
    assert "this machine has 1.0 GiB: too little, see below" in " ".join(lines_of(capsys))
    show_plan(plan_of() | {"memory_here": 2**40}, configured_stage=2, verbose=verbose)
    assert any("H100" in line for line in lines_of(capsys)) is verbose


def test_tables_have_a_column_a_stage_and_mark_the_one_that_is_set(capsys: pytest.CaptureFixture[str]) -> None:
    show_plan(plan_of(), configured_stage=2, verbose=True)
    lines = lines_of(capsys)
    assert "a worker, computed ZeRO 0 ZeRO 1 ZeRO 2 (set) ZeRO 3" in lines
    assert "total 1.0 GiB 2.0 GiB 3.0 GiB 4.0 GiB" in lines
    assert "configured 1 x 24 GiB * 11.5k – 0.6k 217k" in lines
    assert "note: dev has no mention" in lines
    assert "configured 64 250.0 500.0 1,000.0 2,000.0" in lines
    assert "largest micro-batch 16 x 60 plain (rows x pieces, of one of 2 workers)" in lines
    assert "padding plain 5.2%" in lines
