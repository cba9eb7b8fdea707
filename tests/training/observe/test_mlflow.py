"""One MLflow run a training run, whatever becomes of the server; those who do not ask for MLflow need not have it."""

from __future__ import annotations

import importlib.util
import logging
import math
from pathlib import Path

import pytest

from ctxner.training.observe.mlflow import RUN_ID_FILE, MlflowRun, check_mlflow, finish_run

needs_mlflow = pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None, reason="MLflow is an extra: pip install 'ctxner[mlflow]'"
)
SETTINGS = {"optim": {"epochs": 5, "encoder_lr": 1e-4}, "loss": {"mode": "cl-kl", "kl": None}}


def test_without_mlflow_it_is_refused_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_mlflow(None)
    with pytest.raises(
        ValueError, match=r"run\.mlflow=http://x: MLflow is not installed; pip install 'ctxner\[mlflow\]'"
    ):
        check_mlflow("http://x")


def test_a_path_that_depends_on_the_working_directory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    for fine in ("http://host:5000", "file:///a/b", "/a/b"):
        check_mlflow(fine)
    with pytest.raises(ValueError, match=r"run\.mlflow=mlruns: wanted a tracking URI"):
        check_mlflow("mlruns")


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return (tmp_path / "tracking").as_uri()


@needs_mlflow
def test_parameters_metrics_and_artifacts_are_under_one_run_id_after_a_resume_too(tmp_path: Path, uri: str) -> None:
    import mlflow

    folder = tmp_path / "cl-kl"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    (folder / "history.json").write_text("[]")
    first = MlflowRun(uri, folder, SETTINGS)
    first.log({"loss/loss": 2.0, "dev_f1_plain/B&W": 0.5, "loss/nan": math.nan}, 10)
    first.fail()
    client = mlflow.MlflowClient(uri)
    assert client.get_run(first.id).info.status == "FAILED"
    second = MlflowRun(uri, folder, SETTINGS)
    assert second.id == first.id == (folder / RUN_ID_FILE).read_text()
    second.log({"loss/loss": 1.0}, 20)
    finish_run(uri, folder, [folder / "model", folder / "history.json"])
    run = client.get_run(first.id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "cl-kl"
    assert run.data.params == {
        "optim.epochs": "5",
        "optim.encoder_lr": "0.0001",
        "loss.mode": "cl-kl",
        "loss.kl": "None",
    }
    assert run.data.metrics == {"loss/loss": 1.0, "dev_f1_plain/B_W": 0.5}
    assert [(own.step, own.value) for own in client.get_metric_history(first.id, "loss/loss")] == [(10, 2.0), (20, 1.0)]
    assert {own.path for own in client.list_artifacts(first.id)} == {"model", "history.json"}
    assert [own.path for own in client.list_artifacts(first.id, "model")] == ["model/config.json"]


@needs_mlflow
def test_a_server_that_is_not_there_is_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(
        ValueError, match=r"run\.mlflow=http://127\.0\.0\.1:9: .*; start the server or set run\.mlflow=null"
    ):
        MlflowRun("http://127.0.0.1:9", tmp_path, SETTINGS)
    assert list(tmp_path.iterdir()) == []


@needs_mlflow
def test_a_server_that_goes_away_is_told_once_and_training_goes_on(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import mlflow

    run = MlflowRun(uri, tmp_path, SETTINGS)
    run._client = mlflow.MlflowClient("http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with caplog.at_level(logging.WARNING, logger="ctxner"):
        run.log({"loss": 1.0}, 1)
        run.log({"loss": 1.0}, 2)
    assert [own.getMessage().count("nothing more is sent there") for own in caplog.records] == [1]
