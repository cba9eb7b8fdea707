"""What a killed run leaves behind is removed, its record mended, and two drivers never share a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ctxner.files.storage import names_in, remove, write_bytes
from ctxner.files.uris import path_or_uri
from ctxner.training.checkpoints.files import UNSCORED, Progress, write_progress, write_share
from ctxner.training.checkpoints.recovery import RECORD_FILE, alone, clean_up


def checkpoint(run: Path, name: str, progress: Progress) -> Path:
    """A whole checkpoint of one worker."""
    folder = run / f"checkpoint_{name}"
    (folder / "model").mkdir(parents=True)
    save_file({"head.weight": torch.ones(3)}, folder / "model" / "model.safetensors")
    write_share(folder, {}, 0, 1)
    write_progress(folder, progress)
    return folder


def at_end_of(epoch: int, f1: float) -> Progress:
    return Progress(epoch, history=tuple({"epoch": n + 1, "dev_f1": {"plain": f1}} for n in range(epoch)))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was killed after its third step of the third epoch; its second epoch was worse than its first."""
    checkpoint(tmp_path, "a", at_end_of(1, 0.5))
    checkpoint(tmp_path, "b", at_end_of(2, 0.25))
    checkpoint(tmp_path, "c", Progress(2, 3, history=at_end_of(2, 0.25).history))
    return tmp_path


def names(run: Path) -> list[str]:
    return sorted(path.name for path in run.glob("checkpoint_?"))


def record_of(run: Path, *named: str) -> None:
    (run / RECORD_FILE).write_text(json.dumps({"checkpoint_results": [{"checkpoint_dir_name": own} for own in named]}))


def test_checkpoints_that_the_record_does_not_name_are_removed(run: Path) -> None:
    record_of(run, "checkpoint_a", "checkpoint_c")
    (run / "model").mkdir()
    (run / ".model.0123abcd.aside").mkdir()
    before = (run / RECORD_FILE).read_text()
    clean_up(run)
    assert names(run) == ["checkpoint_a", "checkpoint_c"]
    assert (run / "model").is_dir()
    assert not (run / ".model.0123abcd.aside").exists()
    assert (run / RECORD_FILE).read_text() == before


@pytest.mark.parametrize("content", [None, "", '{"checkpoint_results": [{"checkpo', "[]"])
def test_a_damaged_record_is_made_anew_from_the_whole_checkpoints(run: Path, content: str | None) -> None:
    if content is not None:
        (run / RECORD_FILE).write_text(content)
    broken = checkpoint(run, "d", Progress(2, 6))
    (broken / "optimizer-00000-of-00001.safetensors").unlink()
    clean_up(run)
    assert names(run) == ["checkpoint_a", "checkpoint_b", "checkpoint_c"]
    record = json.loads((run / RECORD_FILE).read_text())
    assert [own["checkpoint_dir_name"] for own in record["checkpoint_results"]] == [
        "checkpoint_c",  # within an epoch: no score, below all others
        "checkpoint_b",
        "checkpoint_a",
    ]
    assert record["checkpoint_report_indices"] == [2, 1, 0]
    assert record["latest_checkpoint_result"]["checkpoint_dir_name"] == "checkpoint_c"
    assert record["latest_checkpoint_result"]["metrics"]["mean_f1"] == UNSCORED


def test_ray_train_goes_on_from_a_record_made_anew_and_keeps_the_best(run: Path) -> None:
    pytest.importorskip("ray")
    import asyncio

    from ray.train import CheckpointConfig
    from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import CheckpointManager
    from ray.train.v2._internal.execution.storage import StorageContext
    from ray.train.v2._internal.execution.training_report import _TrainingReport

    clean_up(run)
    storage = StorageContext(str(run.parent), run.name)
    keep = CheckpointConfig(num_to_keep=2, checkpoint_score_attribute="mean_f1", checkpoint_score_order="max")
    manager = CheckpointManager(keep, storage)
    assert manager.latest_checkpoint_result.checkpoint.path == str(run / "checkpoint_c")

    async def report() -> None:
        for number, step in enumerate((6, 9, 12)):
            progress = Progress(2, step)
            own = manager.latest_checkpoint_result.checkpoint.__class__(
                str(checkpoint(run, f"{number}", progress)), storage.storage_filesystem
            )
            manager.register_checkpoint(_TrainingReport(checkpoint=own, metrics=progress.metrics(), validation=False))

    asyncio.run(report())
    assert names(run) == ["checkpoint_2", "checkpoint_a", "checkpoint_b"], "the best two, and the last"


def test_a_record_without_any_whole_checkpoint_goes(tmp_path: Path) -> None:
    (tmp_path / RECORD_FILE).write_text("{")
    (tmp_path / "checkpoint_a").mkdir()
    clean_up(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_names_what_is_gone_is_made_anew(run: Path) -> None:
    record_of(run, "checkpoint_a", "checkpoint_z")
    clean_up(run)
    assert names(run) == ["checkpoint_a", "checkpoint_b", "checkpoint_c"]


def test_a_second_driver_is_refused_until_the_first_one_is_gone(tmp_path: Path) -> None:
    code = "\n".join(
        (
            "from pathlib import Path",
            "from ctxner.training.checkpoints.recovery import alone",
            f"with alone(Path({str(tmp_path)!r})): 0",
        )
    )
    with alone(tmp_path):
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "this run is under way in another process" in second.stderr
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ValueError, match=r"run\.storage: .*file/x cannot be written .*choose another"),
        alone(tmp_path / "file" / "x"),
    ):
        pass


def test_in_a_store_too_only_the_checkpoints_of_the_record_stay(bucket: str) -> None:
    run = path_or_uri(f"{bucket}/runs/first")
    for name in ("checkpoint_a/progress.json", "checkpoint_b/progress.json", "model/config.json"):
        write_bytes(run / name, b"{}")
    write_bytes(
        run / RECORD_FILE, json.dumps({"checkpoint_results": [{"checkpoint_dir_name": "checkpoint_b"}]}).encode()
    )
    clean_up(run)
    assert names_in(run) == ["checkpoint_b", RECORD_FILE, "model"]
    remove(run / "checkpoint_b")
    with pytest.raises(ValueError, match=r"first: checkpoint_b of its record is gone; choose another --name"):
        clean_up(run)
    with alone(run), pytest.raises(ValueError, match="under way in another process"), alone(run):
        pass
