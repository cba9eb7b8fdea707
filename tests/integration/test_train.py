"""Training on a real local Ray with DeepSpeed: workers change only the speed, and an interrupted run goes on exactly.

A fit costs about half a minute, so four fits serve all default tests.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.ray
ray = pytest.importorskip("ray")

from huggingface_hub import ModelCard  # noqa: E402
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402
from transformers import AutoTokenizer, BertModel  # noqa: E402

from ctxner.config import Config, parse_config  # noqa: E402
from ctxner.demo import make_world, write_world  # noqa: E402
from ctxner.files.contexts import Context  # noqa: E402
from ctxner.predictor import Tagger  # noqa: E402
from ctxner.schema import Passage, ScoredPassage, Sentence  # noqa: E402
from ctxner.training.data.training_set import load_split  # noqa: E402
from ctxner.training.observe.phase_timer import PHASES  # noqa: E402
from ctxner.training.worker import TrainResult, train  # noqa: E402
from tests.contexts_files import write_contexts  # noqa: E402
from tests.tiny_bert import tiny_bert  # noqa: E402


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    from jobs.cluster import connect  # its environment variables, not its cluster: CPUs are fixed here

    assert not ray.is_initialized()
    # Ray Train asks the dashboard whether its controller lives; with none here it must not ask another Ray's.
    nobody = {"env_vars": {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"}}
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=nobody)
    connect()
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, minilm: str) -> dict[str, dict]:
    """Config sections: a small world with contexts, and a random encoder of two narrow layers without dropout."""
    folder = tmp_path_factory.mktemp("train")
    world = make_world(num_train=41, num_dev=11, num_test=0)
    write_world(world, folder)
    files = {split: str(folder / f"{split}.conll") for split in ("train", "dev")}
    for split in files:
        sentences = load_split(parse_config({"data": files}).data, split)
        write_contexts({own.sentence.id: _context(own.sentence) for own in sentences}, folder / f"{split}.parquet")
    return {
        "data": {**files, "contexts": str(folder), "cache": str(folder / "views")},
        "model": {"encoder": _save_encoder(folder / "encoder", minilm), "dropout": 0.0},
        "optim": {"epochs": 2, "batch_sentences": 8, "encoder_lr": 1e-3, "head_lr": 5e-3, "crf_lr": 5e-3},
        "run": {"storage": str(folder / "runs"), "seed": 3, "threads": 1, "log_steps": 6},
    }


def _context(sentence: Sentence) -> Context:
    text = f"{sentence.words[-1]} is a village that few people remember."
    return Context(sentence.words, "q", (ScoredPassage(Passage(f"p-{sentence.id}", "x", text), 1.0, 1),))


def _save_encoder(folder: Path, tokenizer: str) -> str:
    torch.manual_seed(0)
    BertModel(tiny_bert(), add_pooling_layer=False).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return str(folder)


def config_of(tree: dict[str, dict], **run: object) -> Config:
    return parse_config({**tree, "run": {**tree["run"], **run}})


@pytest.fixture(scope="module")
def one(local_ray: None, tree: dict[str, dict]) -> TrainResult:
    return train(config_of(tree, name="one", workers=1, checkpoint_steps=2, keep_checkpoints=20))


@pytest.fixture(
    scope="module",
    params=[0, *(pytest.param(stage, marks=pytest.mark.slow) for stage in (1, 2, 3))],  # see tests/training/test_engine
    ids="ZeRO {}".format,
)
def two(request: pytest.FixtureRequest, local_ray: None, tree: dict[str, dict]) -> TrainResult:
    stage = request.param
    return train(config_of(tree, name=f"two-{stage}", workers=2, zero_stage=stage, checkpoint_steps=4))


def test_two_workers_give_the_losses_scores_and_model_of_one(one: TrainResult, two: TrainResult) -> None:
    assert len(one.history) == len(two.history) == 2
    for alone, shared in zip(one.history, two.history, strict=True):
        assert shared["losses"] == pytest.approx(alone["losses"], rel=1e-4)
        assert shared["dev_f1"] == pytest.approx(alone["dev_f1"], abs=1e-6)
    expected = _parameters(one.folder, epoch=2)
    torch.testing.assert_close(_parameters(two.folder, epoch=2), expected, atol=1e-5, rtol=0)


def test_the_best_checkpoints_are_kept_and_the_last(two: TrainResult) -> None:
    found = sorted((tree["epoch"], tree["step"]) for tree in map(_progress, _checkpoints(two.folder)))
    assert found == [(1, 0), (2, 0)], "those within an epoch have gone"


def test_loss_is_the_sum_of_its_parts_and_falls(one: TrainResult) -> None:
    first, last = (entry["losses"] for entry in one.history)
    assert set(first) == {"loss", "nll", "nll_ext", "cl-kl"}
    assert first["loss"] == pytest.approx(first["nll"] + first["nll_ext"] + first["cl-kl"], rel=1e-5)
    assert last["loss"] < first["loss"]


def test_result_folder_loads_and_says_where_it_comes_from(one: TrainResult, tree: dict[str, dict]) -> None:
    tagger = Tagger.from_pretrained(one.model)
    assert isinstance(tagger.tag("We met in Velmora."), list)
    assert json.loads((one.folder / "history.json").read_text()) == one.history
    expected = config_of(tree, name="one", checkpoint_steps=2, keep_checkpoints=20)
    assert Config.model_validate_json((one.folder / "config.json").read_text()) == expected
    told = json.loads((one.model / "training.json").read_text())
    assert told["config"]["optim"]["batch_sentences"] == 8
    assert told["data"]["train"]["files"] == {"train.conll": _sha256(Path(tree["data"]["train"]))}
    assert told["data"]["dev"]["sentences"] == 11
    assert {name: told[name] for name in one.best} == one.best
    provenance = tagger.model.config.provenance
    assert provenance["config_digest"] == told["config_digest"]
    assert provenance["dev_f1"] == one.best["dev_f1"]
    results = ModelCard.load(one.model / "README.md").data.eval_results
    f1 = {own.dataset_config: own.metric_value for own in results if own.metric_type == "f1"}
    assert f1 == pytest.approx({f"{view} view": own for view, own in one.best["dev_f1"].items()}, abs=1e-4)


def test_seconds_of_an_epoch_are_split_and_add_up(one: TrainResult) -> None:
    first, second = (entry["seconds_by_phase"] for entry in one.history)
    assert tuple(first) == tuple(second) == PHASES
    assert sum(first.values()) - first["evaluation"] == pytest.approx(one.history[0]["seconds"], rel=0.1)
    assert second["checkpoint"] > first["checkpoint"], "the one after the first epoch counts in the second"


def test_tensorboard_has_the_means_over_all_workers(two: TrainResult) -> None:
    events = EventAccumulator(str(two.folder / "tensorboard"))
    events.Reload()
    logged = events.Scalars("loss/loss")
    assert [own.step for own in logged] == [6, 12]
    assert [own.value for own in logged] == pytest.approx([entry["losses"]["loss"] for entry in two.history], rel=1e-5)
    for view in ("plain", "context"):
        found = [own.value for own in events.Scalars(f"dev_f1/{view}")]
        assert found == pytest.approx([entry["dev_f1"][view] for entry in two.history])


def test_published_model_has_the_parameters_of_the_best_checkpoint(two: TrainResult) -> None:
    expected = _parameters(two.folder, epoch=two.best["epoch"])
    torch.testing.assert_close(load_file(two.model / "model.safetensors"), expected, atol=0, rtol=0)


def test_run_cut_within_an_epoch_goes_on_to_the_same_parameters(one: TrainResult, tree: dict[str, dict]) -> None:
    folder = _cut(one.folder, "cut", epoch=1, step=4)
    resumed = train(config_of(tree, name="cut", workers=1, resume=True))
    assert resumed.history[0] == one.history[0], "the first epoch was not trained again"
    assert resumed.history[1]["seconds"] != one.history[1]["seconds"], "the second one was"
    assert resumed.history[1]["losses"] == pytest.approx(one.history[1]["losses"], rel=1e-5)
    assert resumed.history[1]["dev_f1"] == pytest.approx(one.history[1]["dev_f1"], abs=1e-6)
    torch.testing.assert_close(_parameters(folder, epoch=2), _parameters(one.folder, epoch=2), atol=1e-5, rtol=0)
    assert len(_checkpoints(folder)) <= 3, "of the two that are kept, and the last"


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 3])
def test_run_goes_on_with_fewer_workers_and_then_with_more(
    local_ray: None, one: TrainResult, tree: dict[str, dict], stage: int
) -> None:
    """Two workers, cut, one worker, cut, two workers again: the parameters of one worker throughout."""
    often = {"zero_stage": stage, "checkpoint_steps": 1, "keep_checkpoints": 40}
    whole = train(config_of(tree, name=f"elastic-{stage}", workers=2, **often))
    fewer = _cut(whole.folder, f"fewer-{stage}", epoch=0, step=3)
    train(config_of(tree, name=fewer.name, workers=1, resume=True, **often))
    more = _cut(fewer, f"more-{stage}", epoch=1, step=2)
    resumed = train(config_of(tree, name=more.name, workers=2, resume=True, **often))
    for alone, shared in zip(one.history, resumed.history, strict=True):
        assert shared["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    torch.testing.assert_close(_parameters(more, epoch=2), _parameters(one.folder, epoch=2), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_two_workers_that_accumulate_give_the_model_of_one(local_ray: None, tree: dict[str, dict]) -> None:
    halves = {**tree, "optim": {**tree["optim"], "batch_sentences": 4, "accumulate": 2}}
    expected = _parameters(train(config_of(halves, name="halves")).folder, epoch=2)
    for stage in (0, 1, 2, 3):
        shared = train(config_of(halves, name=f"halves-{stage}", workers=2, zero_stage=stage))
        torch.testing.assert_close(_parameters(shared.folder, epoch=2), expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_everything_at_once_gives_the_same_model_on_two_workers(
    local_ray: None, one: TrainResult, tree: dict[str, dict]
) -> None:
    """From another model, on two data sets and sentences without tags, with some of the passages."""
    data, model = tree["data"], {"warm_start": str(one.model), "dropout": 0.0, "context_dropout": 0.3}
    more = {"train": data["dev"], "contexts": f"{data['contexts']}/dev.parquet"}
    mixed = {**data, "also": [more], "unlabelled": more["contexts"], "unlabelled_ratio": 0.2}
    settings = {**tree, "data": mixed, "model": {**model, "random_passages": True}}
    alone, shared = (train(config_of(settings, name=f"mixed-{workers}", workers=workers)) for workers in (1, 2))
    for own, other in zip(alone.history, shared.history, strict=True):
        assert other["losses"] == pytest.approx(own["losses"], rel=1e-4)
    expected = _parameters(alone.folder, epoch=2)
    torch.testing.assert_close(_parameters(shared.folder, epoch=2), expected, atol=1e-5, rtol=0)
    first = alone.history[0]
    assert first["sentences_per_second"] * first["seconds"] == pytest.approx(41 + 11 + round(0.2 * 52))
    assert first["losses"]["loss"] < one.history[0]["losses"]["loss"], "what the first model learnt is there"


def test_name_of_an_existing_run_is_refused_without_resume(one: TrainResult, tree: dict[str, dict]) -> None:
    with pytest.raises(ValueError, match=r"this name exists; choose another --name, or --set run\.resume=true"):
        train(config_of(tree, name="one"))


def test_run_is_not_resumed_with_other_settings(one: TrainResult, tree: dict[str, dict]) -> None:
    with pytest.raises(ValueError, match=r"run\.seed: the run has 3, given is 4"):
        train(config_of(tree, name="one", resume=True, seed=4))


def test_run_is_not_resumed_on_changed_training_data(one: TrainResult, tree: dict[str, dict]) -> None:
    path = Path(tree["data"]["train"])
    whole = path.read_text()
    sentences = whole.strip().split("\n\n")
    _cut(one.folder, "changed", epoch=1, step=4)
    try:
        path.write_text("\n\n".join(reversed(sentences[:8])) + "\n")
        with pytest.raises(ValueError, match=r"(?s)files are not those.*data\.train: train\.conll has changed"):
            train(config_of(tree, name="changed", workers=1, resume=True))
    finally:
        path.write_text(whole)


def test_more_workers_than_cpus_are_refused_at_once(local_ray: None, tree: dict[str, dict]) -> None:
    started = time.perf_counter()
    with pytest.raises(ValueError, match=r"wants 99 CPUs but the cluster has 2; lower it \(--set run\.workers=N\)"):
        train(config_of(tree, name="greedy", workers=99))
    assert time.perf_counter() - started < 5
    assert not (Path(tree["run"]["storage"]) / "greedy").exists()


def _cut(folder: Path, name: str, *, epoch: int, step: int) -> Path:
    """A copy of a run's folder as if it had been killed after a checkpoint, before Ray Train's record was written."""
    target = folder.with_name(name)
    shutil.copytree(folder, target)
    shutil.rmtree(target / "model")
    for file in ("history.json", "checkpoint_manager_snapshot.json"):
        (target / file).unlink()
    assert _checkpoint(target, epoch=epoch, step=step)
    for path in _checkpoints(target):
        if (_progress(path)["epoch"], _progress(path)["step"]) > (epoch, step):
            shutil.rmtree(path)
    return target


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _parameters(folder: Path, *, epoch: int) -> dict[str, torch.Tensor]:
    return load_file(_checkpoint(folder, epoch=epoch, step=0) / "model" / "model.safetensors")


def _checkpoint(folder: Path, *, epoch: int, step: int) -> Path:
    wanted = (epoch, step)
    [found] = [path for path in _checkpoints(folder) if (_progress(path)["epoch"], _progress(path)["step"]) == wanted]
    return found


def _progress(checkpoint: Path) -> dict:
    return json.loads((checkpoint / "progress.json").read_text())


def _checkpoints(folder: Path) -> list[Path]:
    return [path.parent for path in folder.glob("checkpoint_*/progress.json")]
