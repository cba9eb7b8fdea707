"""The steps of a study, each as a function of its own."""

import logging
from pathlib import Path

import pytest

from ctxner.config import Config, parse_config
from ctxner.training.checkpoints import resume
from jobs import train
from jobs.experiment.steps import Given, run_step
from jobs.experiment.store import Step, Store

SETTINGS = {"run": {"workers": 1}, "data": {"train": "train.conll", "dev": "dev.conll"}}


def test_a_training_that_other_settings_began_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Before, the step failed until somebody deleted the folder by hand."""
    store, started = Store(tmp_path / "store"), []

    def run(config: Config) -> dict:
        folder = config.run.storage / str(config.run.name)
        if resume.is_started(folder):
            resume.check_resumable(resume.read_config(folder), config, source=str(folder))
        started.append(config.run.name)
        resume.write_config(config, folder)
        (folder / "history.json").write_text('[{"seconds": 1.0}]')
        return {"best": {"dev_f1": {"plain": 0.5}, "epoch": 1}, "steps": 1}

    monkeypatch.setattr(train, "run", run)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)  # of the step's own process
    given = Given({"train": "0123"}, store, "test", "index", None)
    folder = store.folder(Step("train", "0123"))
    other = parse_config({**SETTINGS, "model": {"attention_dropout": 0.1}})
    resume.write_config(other, folder)
    (folder / "checkpoint_of_other_settings").mkdir()
    assert run_step("train", given, parse_config(SETTINGS).model_dump(mode="json")) == "done"
    assert started == ["0123"]
    assert not (folder / "checkpoint_of_other_settings").exists()
    assert "model.attention_dropout" in caplog.text
