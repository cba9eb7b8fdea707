"""A run goes on only under the settings that it was started with; what is refused is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ctxner.config import Config, load_config, parse_config
from ctxner.training.checkpoints.resume import (
    CONFIG_FILE,
    check_inputs,
    check_resumable,
    input_hashes,
    read_config,
    write_config,
)
from ctxner.training.export.provenance import write_provenance

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
        "set them as they were, or choose another --name to train anew",
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
    with pytest.raises(ValueError, match=r"config\.json: cannot tell what to resume \(.*choose another --name"):
        read_config(tmp_path)


@pytest.fixture
def started(tmp_path: Path) -> Config:
    """A run with a checkpoint, and every kind of file that a model depends on."""
    files = {
        name: tmp_path / name for name in ("train.conll", "dev.conll", "more.conll", "more.parquet", "bare.parquet")
    }
    for name in ("encoder", "contexts", "shards"):
        (tmp_path / name).mkdir()
    files |= {name: tmp_path / "encoder" / name for name in ("config.json", "model.safetensors", "tokenizer.json")}
    files |= {name: tmp_path / "shards" / name for name in ("1.conll", "2.conll")}
    files |= {f"{split} contexts": tmp_path / "contexts" / f"{split}.parquet" for split in ("train", "dev")}
    for name, path in files.items():
        path.write_text(f"{name}\nx O\n")
    also = [{"train": tmp_path / "more.conll", "contexts": tmp_path / "more.parquet"}, {"train": tmp_path / "shards"}]
    data = {"train": tmp_path / "train.conll", "dev": tmp_path / "dev.conll", "contexts": tmp_path / "contexts"}
    tree = {"data": {**data, "also": also, "unlabelled": tmp_path / "bare.parquet"}}
    config = parse_config({**tree, "model": {"encoder": str(tmp_path / "encoder")}})
    for number in range(2):
        model = tmp_path / "run" / f"checkpoint_{number}" / "model"
        model.mkdir(parents=True)
        write_provenance({"inputs": input_hashes(config)}, model)
    (tmp_path / "run" / "checkpoint_manager_snapshot.json").write_text("{}")
    return config


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("train.conll", "data.train: train.conll has changed"),
        ("dev.conll", "data.dev: dev.conll has changed"),
        ("bare.parquet", "data.unlabelled: bare.parquet has changed"),
        ("contexts/train.parquet", "data.contexts (train): train.parquet has changed"),
        ("contexts/dev.parquet", "data.contexts (dev): dev.parquet has changed"),
        ("more.conll", "data.also[0].train: more.conll has changed"),
        ("more.parquet", "data.also[0].contexts: more.parquet has changed"),
        ("shards/2.conll", "data.also[1].train: 2.conll has changed"),
        ("shards/3.conll", "data.also[1].train: 3.conll is new"),
        ("encoder/model.safetensors", "model.encoder: model.safetensors has changed"),
        ("encoder/tokenizer.json", "model.encoder: tokenizer.json has changed"),
    ],
)
def test_a_run_does_not_go_on_with_a_changed_file_and_names_it(
    started: Config, tmp_path: Path, file: str, named: str
) -> None:
    check_inputs(tmp_path / "run", started)
    (tmp_path / file).write_text("other")
    with pytest.raises(ValueError, match=r"run\.resume=true, but files are not those") as error:
        check_inputs(tmp_path / "run", started)
    assert str(error.value).splitlines()[1:] == [
        f"  {named}",
        "restore them, or choose another --name to train anew",
    ]


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_run_does_not_go_on_from_other_weights_than_it_was_started_with(
    started: Config, tmp_path: Path, file: str
) -> None:
    shutil.copytree(tmp_path / "encoder", tmp_path / "former")
    model = started.model.model_copy(update={"warm_start": str(tmp_path / "former")})
    config = started.model_copy(update={"model": model})
    write_provenance({"inputs": input_hashes(config)}, tmp_path / "run" / "checkpoint_1" / "model")
    (tmp_path / "encoder" / file).write_text("other")
    check_inputs(tmp_path / "run", config)  # the encoder is not what it starts from
    (tmp_path / "former" / file).write_text("other")
    with pytest.raises(ValueError, match=rf"model\.warm_start: {file} has changed"):
        check_inputs(tmp_path / "run", config)


def test_a_file_that_is_gone_is_named_and_the_models_notes_may_change(started: Config, tmp_path: Path) -> None:
    for name in ("README.md", "calibration.json", "training.json"):
        (tmp_path / "encoder" / name).write_text("new")
    check_inputs(tmp_path / "run", started)
    (tmp_path / "encoder" / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"model\.encoder: tokenizer\.json is missing"):
        check_inputs(tmp_path / "run", started)


def test_a_checkpoint_of_an_earlier_version_still_tells_the_files_of_train_and_dev(
    started: Config, tmp_path: Path
) -> None:
    hashes = input_hashes(started)
    splits = {
        split: {"files": hashes[f"data.{split}"], "contexts": hashes[f"data.contexts ({split})"]}
        for split in ("train", "dev")
    }
    write_provenance({"data": splits}, tmp_path / "run" / "checkpoint_1" / "model")
    check_inputs(tmp_path / "run", started)
    (tmp_path / "dev.conll").write_text("other")
    with pytest.raises(ValueError, match=r"data\.dev: dev\.conll has changed"):
        check_inputs(tmp_path / "run", started)


def test_a_run_without_a_checkpoint_begins_and_one_with_a_damaged_one_is_refused(
    started: Config, tmp_path: Path
) -> None:
    check_inputs(tmp_path / "new", started)
    (tmp_path / "run" / "checkpoint_1" / "model" / "training.json").write_text("{")
    with pytest.raises(ValueError, match=r"training\.json: cannot tell which files were trained on"):
        check_inputs(tmp_path / "run", started)
