"""A checkpoint says where the run stands, for any number of workers, and whether all of it is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ctxner.training.checkpoints.files import (
    Progress,
    is_whole,
    open_shares,
    read_progress,
    step_seed,
    write_progress,
    write_share,
)

SUMS = ({"loss": 1.5, "nll": 0.1}, {"loss": 2.25, "nll": 1 / 3}, {"loss": 4.0, "nll": 2.0})
ENTRY = {"epoch": 1, "losses": {"loss": 0.1}, "dev_f1": {"plain": 0.25, "context": 0.75}, "seconds": 1.0}


def checkpoint(folder: Path, progress: Progress, num_shares: int = 2) -> Path:
    (folder / "model").mkdir(parents=True)
    save_file({"head.weight": torch.ones(3)}, folder / "model" / "model.safetensors")
    for rank in range(num_shares):
        write_share(folder, {f"p{rank}.exp_avg": torch.full((5,), float(rank))}, rank, num_shares)
    write_progress(folder, progress)
    return folder


def test_progress_is_read_back_exactly(tmp_path: Path) -> None:
    progress = Progress(1, 7, SUMS, 1.1, (ENTRY,))
    write_progress(tmp_path, progress)
    assert read_progress(tmp_path) == progress


def test_a_worker_takes_up_its_own_sums_exactly() -> None:
    progress = Progress(0, 7, SUMS)
    assert [progress.own_sums(rank, 3) for rank in range(3)] == list(SUMS)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_sums_of_another_number_of_workers_add_up_to_the_same(world_size: int) -> None:
    progress = Progress(0, 7, SUMS)
    taken = [progress.own_sums(rank, world_size) for rank in range(world_size)]
    assert sum(own.get("loss", 0.0) for own in taken) == pytest.approx(7.75)
    assert sum(own.get("nll", 0.0) for own in taken) == pytest.approx(2.1 + 1 / 3)


def test_a_run_that_starts_has_no_sums() -> None:
    assert Progress().own_sums(1, 2) == {}


def test_only_the_end_of_an_epoch_has_a_score() -> None:
    assert Progress(1, history=(ENTRY,)).metrics() == {
        "epoch": 1,
        "step": 0,
        "mean_f1": 0.5,
        "plain_f1": 0.25,
        "context_f1": 0.75,
    }
    within = Progress(1, 3, history=(ENTRY,)).metrics()
    assert within["mean_f1"] < 0, "below every score"
    json.dumps(within, allow_nan=False)  # Ray Train keeps it as JSON, where NaN becomes null


def test_a_run_of_one_view_is_ranked_by_that_view_even_if_both_are_scored() -> None:
    """Before: (plain .60, context .20) lost to (.50, .40) in a plain run."""
    better, worse = ({**ENTRY, "dev_f1": {"plain": p, "context": c}} for p, c in ((0.6, 0.2), (0.5, 0.4)))
    for view, first in (("plain", True), ("context", False)):
        one, two = (Progress(1, history=({**own, "chosen_by": [view]},)).metrics() for own in (better, worse))
        assert (one["mean_f1"] > two["mean_f1"]) is first


def test_steps_workers_epochs_and_seeds_all_draw_differently() -> None:
    places = [(seed, epoch, step, rank) for seed in (0, 1) for epoch in (0, 11) for step in (1, 11) for rank in (0, 1)]
    seeds = [step_seed(*place) for place in places]
    assert len(set(seeds)) == len(places)
    for seed in seeds:
        torch.manual_seed(seed)
    assert seeds == [step_seed(*place) for place in places]


def test_the_optimizers_state_is_read_by_name_from_all_shares(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "c", Progress())
    with open_shares(folder) as read:
        torch.testing.assert_close(read("p1.exp_avg"), torch.ones(5))
        torch.testing.assert_close(read("p0.exp_avg"), torch.zeros(5))
        assert read("p2.exp_avg") is None


def test_a_checkpoint_with_all_its_files_is_whole(tmp_path: Path) -> None:
    assert is_whole(checkpoint(tmp_path / "c", Progress(0, 1, SUMS)))


@pytest.mark.parametrize("file", ["progress.json", "model/model.safetensors", "optimizer-00001-of-00002.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_checkpoint_without_a_file_or_its_end_is_not_whole(tmp_path: Path, file: str, damage: str) -> None:
    folder = checkpoint(tmp_path / "c", Progress(0, 1, SUMS))
    if damage == "missing":
        (folder / file).unlink()
    else:
        (folder / file).write_bytes((folder / file).read_bytes()[:-8])
    assert not is_whole(folder)


@pytest.mark.parametrize("content", ["", "[]", json.dumps({"epoch": 1, "history": []})])
def test_a_checkpoint_without_usable_progress_cannot_be_resumed(tmp_path: Path, content: str) -> None:
    (tmp_path / "progress.json").write_text(content)
    with pytest.raises(ValueError, match=r"no usable progress\.json .*cannot be resumed"):
        read_progress(tmp_path)


def test_a_missing_share_is_named(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "c", Progress(), num_shares=3)
    (folder / "optimizer-00001-of-00003.safetensors").unlink()
    with pytest.raises(ValueError, match=r"2 of 3 shares of the optimizer's state"), open_shares(folder):
        pass
