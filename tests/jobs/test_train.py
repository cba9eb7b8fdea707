"""`ctxner train TRAIN --dev DEV --index I` and what later commands find by the model; training is in integration/."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ctxner.config import Config, load_config, parse_config
from ctxner.demo import make_world, write_world
from ctxner.files.contexts import Context, load_examples
from ctxner.schema import ScoredPassage
from ctxner.training.checkpoints.resume import absolute_paths, is_started, refuse_started
from jobs import train
from jobs.model_settings import settings_for
from tests.contexts_files import write_contexts
from tests.jobs.command_line import call_apart, listing

Called = tuple[int, str, str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_world(make_world(num_train=12, num_dev=4, num_test=5), tmp_path / "world")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def model_of(folder: Path, config: Config) -> Path:
    """A model's folder as far as its settings go."""
    (folder / "model").mkdir(parents=True)
    tree = {"config": absolute_paths(config).model_dump(mode="json")}
    (folder / "model" / "training.json").write_text(json.dumps(tree))
    return folder / "model"


def test_a_dry_run_before_retrieval_says_what_is_retrieved_and_writes_nothing(folder: Path) -> None:
    assert call_apart("index", "--corpus", "world/corpus.jsonl", "--out", "made")[0] == 0
    before = listing(folder)
    data = ("world/train.conll", "--dev", "world/dev.conll", "--test", "world/test.conll")
    code, out, err = call_apart("train", *data, "--index", "made", "--name", "first", "--dry-run", "--json")
    assert code == 0, err
    planned = json.loads(out)
    assert planned["to_retrieve"] == dict.fromkeys(("train", "dev", "test"), "there are none yet")
    assert planned["sentences"] == {"train": 12, "dev": 4, "dev, scored after each epoch": 4}
    assert listing(folder) == before


def test_passages_in_a_runs_folder_are_no_run(tmp_path: Path) -> None:
    (tmp_path / "first" / "contexts").mkdir(parents=True)
    (tmp_path / "first" / ".lock").touch()
    refuse_started(tmp_path / "first")
    (tmp_path / "first" / "config.json").touch()
    assert is_started(tmp_path / "first")
    with pytest.raises(ValueError, match="a run of this name exists"):
        refuse_started(tmp_path / "first")


def test_later_commands_find_data_contexts_and_index_by_the_model(folder: Path) -> None:
    given = [f"data.{split}=world/{split}.conll" for split in ("train", "dev", "test")]
    config = load_config(None, [*given, "data.contexts=runs/x/contexts", "index.folder=made", "retrieval.depth=3"])
    model = str(model_of(folder / "runs" / "x", config))
    there = settings_for(model, None, ["data.dev_sentences=2", "retrieval.gpus=1"])
    assert there.data.test == folder / "world" / "test.conll"
    assert there.data.contexts == folder / "runs" / "x" / "contexts"
    assert there.index.folder == folder / "made"
    assert (there.retrieval.depth, there.data.dev_sentences, there.retrieval.gpus) == (3, 2, 1)
    (folder / "other.yaml").write_text("index: {folder: other}\n")
    assert settings_for(model, folder / "other.yaml", []).index.folder == Path("other"), "a config file wins"
    assert settings_for(model, folder / "other.yaml", []).data.test is None


def test_audit_and_report_need_no_config_where_a_model_is_named(folder: Path) -> None:
    given = [f"data.{split}=world/{split}.conll" for split in ("train", "dev", "test")]
    given += ["data.contexts=runs/x/contexts", "index.corpus=[world/corpus.jsonl]"]
    model = str(model_of(folder / "runs" / "x", load_config(None, given)))
    code, out, err = call_apart("audit", "--model", model, "--dry-run", "--json")
    assert code == 0, err
    assert json.loads(out)["sentences"] == {"train": 12, "dev": 4, "test": 5}
    code, out, err = call_apart("retrieval-report", "--model", model, "--split", "test", "--dry-run")
    assert code == 2, out
    assert "contexts/test" in err.replace("\n", ""), "the run has not retrieved yet"
    assert call_apart("audit", "--dry-run")[0] == 2, "there is no data without either"


def test_where_a_run_retrieves_is_no_setting_of_later_machines(folder: Path) -> None:
    model = str(model_of(folder / "x", load_config(None, ["retrieval.gpus=1", "retrieval.search_actors=9"])))
    there = settings_for(model, None, []).retrieval
    assert (there.gpus, there.search_actors) == (0, 1)


def test_contexts_of_a_run_that_was_moved_are_found_beside_the_model(folder: Path) -> None:
    model_of(folder / "x", load_config(None, ["data.contexts=x/contexts"]))
    (folder / "x" / "contexts").mkdir()
    shutil.move(folder / "x", folder / "y")
    assert settings_for(str(folder / "y" / "model"), None, []).data.contexts == folder / "y" / "contexts"


@pytest.mark.parametrize("text", ["{", "{}", '{"config": {"data": {"gone": 1}, "index": {}, "retrieval": {}}}'])
def test_settings_that_cannot_be_read_are_told_and_not_used(text: str, tmp_path: Path, caplog) -> None:
    (tmp_path / "training.json").write_text(text)
    assert settings_for(str(tmp_path), None, []) == Config()
    assert "training.json: its settings are not used" in caplog.text
    assert "give --config" in caplog.text


def test_evaluate_needs_no_config_beside_the_model(folder: Path, call: Callable[..., Called], monkeypatch) -> None:
    monkeypatch.setattr("ctxner.model.tagger.saved_types", lambda name: ("place",))
    model = model_of(folder / "x", load_config(None, ["data.test=world/test.conll"]))
    code, out, _ = call("evaluate", model, "--dry-run", "--json")
    assert (code, json.loads(out)["sentences"]) == (0, 5)


def test_what_retrieve_writes_for_files_is_what_train_finds(folder: Path) -> None:
    world = make_world(num_train=12, num_dev=4, num_test=5)
    rows = {
        f"{split}-{n}": Context(own.words, "q", (ScoredPassage(world.corpus[n], 1.0, 1),))
        for split in ("train", "dev")
        for n, own in enumerate(getattr(world, split))
    }
    write_contexts(rows, folder / "ctx" / "sentences.parquet")  # as `ctxner retrieve TRAIN DEV --out ctx`
    data = load_config(None, ["data.dev=world/dev.conll", "data.contexts=ctx"]).data
    assert data.contexts_path("dev") == Path("ctx/sentences.parquet")
    examples = load_examples(data.path("dev"), data.column_format(), contexts=data.contexts_path("dev"))
    assert [len(example.passages) for example in examples] == [1] * 4
    write_contexts(rows, folder / "ctx" / "dev.parquet")
    assert data.contexts_path("dev") == Path("ctx/dev.parquet"), "a split's own file comes first"


def test_minutes_count_the_scoring_of_dev_beside_all_sentences_of_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """30 sentences scored cost as much as a step over 10; an epoch has 60, of 1,000 without tags only some."""
    from dataclasses import asdict

    from ctxner.training.estimate import machine
    from ctxner.training.estimate.memory import XLM_R_LARGE
    from ctxner.training.plan import SCORED

    monkeypatch.setattr(machine, "minutes_of", lambda flops, shape, **how: (flops, shape, how))
    sentences = {"train": 40, "unlabelled": 1000, SCORED: 30}
    planned = {"sentences": sentences, "sentences_an_epoch": 60, "flops_an_epoch": 6.0, "encoder": asdict(XLM_R_LARGE)}
    config = parse_config({"optim": {"epochs": 2}, "run": {"threads": 3, "workers": 2, "precision": "bfloat16"}})
    flops, shape, how = train.minutes_here(config, planned)
    assert (flops, shape) == (pytest.approx(14.0), XLM_R_LARGE)
    assert how == {"threads": 6, "bfloat16": True}
