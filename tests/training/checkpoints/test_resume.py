"""A run goes on only under the settings that it was started with; what is refused is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctxner.config import Config, load_config
from ctxner.training.checkpoints.resume import CONFIG_FILE, check_resumable, read_config, write_config

STARTED = ("data.train=a/train.conll", "data.dev=a/dev.conll", "run.storage=runs", "run.name=x", "optim.epochs=3")


def config_of(*overrides: str) -> Config:
    return load_config(None, [*STARTED, *overrides])


def check(saved: Config, given: Config) -> None:
    check_resumable(saved, given, source="runs/x")


@pytest.mark.parametrize(
    "override",
    [
        "run.resume=true",
        "run.storage=elsewhere",
        "run.name=y",
        "run.workers=4",
        "run.threads=2",
        "run.keep_checkpoints=5",
        "run.zero_stage=3",
        "run.checkpoint_steps=5",
        "run.checkpoint_minutes=0.5",
        "run.max_failures=0",
        "model.gradient_checkpointing=true",
        "data.test=other.conll",
        "index.folder=elsewhere",
        "retrieval.depth=32",
    ],
)
def test_what_training_does_not_read_and_where_it_runs_may_differ(override: str) -> None:
    check(config_of(), config_of(override))


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("optim.epochs=4", "optim.epochs: the run has 3, given is 4"),
        ("optim.encoder_lr=1.0e-5", "optim.encoder_lr: the run has 0.0001, given is 1e-05"),
        ("loss.mode=plain", "loss.mode: the run has 'cl-kl', given is 'plain'"),
        ("loss.temperature=2", "loss.temperature: the run has None, given is 2.0"),
        ("model.freeze_layers=1", "model.freeze_layers: the run has 0, given is 1"),
        ("run.seed=1", "run.seed: the run has 0, given is 1"),
        ("run.gpus=1", "run.gpus: the run has 0, given is 1"),
    ],
)
def test_another_setting_is_refused_with_both_values_and_what_to_do(override: str, named: str) -> None:
    with pytest.raises(ValueError, match=r"^runs/x: run\.resume=true") as error:
        check(config_of(), config_of("run.resume=true", override))
    assert str(error.value).splitlines()[1:] == [
        f"  {named}",
        "set them as they were, or choose another run.name to train anew",
    ]


def test_all_settings_that_differ_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"loss\.mode(.|\n)*optim\.clip(.|\n)*run\.seed"):
        check(config_of(), config_of("run.seed=1", "optim.clip=1", "loss.mode=context"))


def test_a_run_may_be_resumed_from_another_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started, elsewhere = tmp_path / "started", tmp_path / "elsewhere"
    for folder in (started, elsewhere):
        folder.mkdir()
    monkeypatch.chdir(started)
    write_config(config_of(), tmp_path / "x")
    monkeypatch.chdir(elsewhere)
    check(
        read_config(tmp_path / "x"), config_of("data.train=../started/a/train.conll", "data.dev=../started/a/dev.conll")
    )
    with pytest.raises(
        ValueError, match=r"data\.train: the run has '.*/started/a/train\.conll', given is '.*/elsewhere/"
    ):
        check(read_config(tmp_path / "x"), config_of())


def test_a_config_is_written_whole_and_read_back(tmp_path: Path) -> None:
    write_config(config_of("data.train=/a/train.conll", "data.dev=/a/dev.conll"), tmp_path / "new" / "x")
    assert [path.name for path in (tmp_path / "new" / "x").iterdir()] == [CONFIG_FILE]
    assert read_config(tmp_path / "new" / "x") == config_of("data.train=/a/train.conll", "data.dev=/a/dev.conll")


@pytest.mark.parametrize("content", [None, "", "{", '{"run": {"colour": 1}}', "[1]"])
def test_a_run_without_a_usable_config_cannot_be_resumed(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / CONFIG_FILE).write_text(content)
    with pytest.raises(ValueError, match=r"config\.json: cannot tell what to resume \(.*choose another run\.name"):
        read_config(tmp_path)
