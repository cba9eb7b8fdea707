"""Sizes are told in units that one reads at a glance."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.plan_tables import show_plan, size


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536 * 1024, "1.5 MiB"),
        (120 * 2**30, "120 GiB"),
        (2**41, "2.0 TiB"),
    ],
)
def test_bytes_have_a_unit_that_leaves_few_digits(num_bytes: int, text: str) -> None:
    assert size(num_bytes) == text


def test_tables_have_a_column_a_stage_and_mark_the_one_that_is_set(capsys: pytest.CaptureFixture[str]) -> None:
    amounts = ("parameters", "gradients", "optimizer", "master_weights", "buffers", "activations")
    amounts += ("total", "activations_checkpointed", "total_checkpointed", "sent_a_step")
    plan: dict[str, Any] = {
        "sentences": {"train": 3394},
        "types": ["person"],
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
    show_plan(plan, configured_stage=2)
    lines = [
        " ".join(line.replace("│", " ").replace("┃", " ").split()) for line in capsys.readouterr().out.splitlines()
    ]
    assert "a worker, computed ZeRO 0 ZeRO 1 ZeRO 2 (set) ZeRO 3" in lines
    assert "total 1.0 GiB 2.0 GiB 3.0 GiB 4.0 GiB" in lines
    assert "configured 1 x 24 GiB * 11.5k – 0.6k 217k" in lines
    assert "note: dev has no mention" in lines
    assert "configured 64 250.0 500.0 1,000.0 2,000.0" in lines
    assert "largest micro-batch 16 x 60 plain (rows x pieces, of one of 2 workers)" in lines
    assert "padding plain 5.2%" in lines
