"""Training on a real local Ray with DeepSpeed: workers change only the speed, and an interrupted run goes on exactly.

A fit costs about half a minute, so four fits serve all default tests.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.ray
ray = pytest.importorskip("ray")

from huggingface_hub import ModelCard  # noqa: E402
from ray.train.v2.api.exceptions import TrainingFailedError  # noqa: E402
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402
from transformers import AutoTokenizer, BertConfig, BertModel  # noqa: E402

from ctxner.config import Config, parse_config  # noqa: E402
from ctxner.contexts import Context, write_contexts  # noqa: E402
from ctxner.demo import make_world, write_world  # noqa: E402
from ctxner.predictor import Tagger  # noqa: E402
from ctxner.schema import Passage, ScoredPassage, Sentence  # noqa: E402
from ctxner.training.plan import load_split  # noqa: E402
from ctxner.training.worker import TrainResult, train  # noqa: E402


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    from jobs.cluster import connect  # its environment variables, not its cluster: CPUs are fixed here

    assert not ray.is_initialized()
    # Ray Train asks the dashboard whether its controller lives; with none here it must not ask another Ray's.
    nobody = {"env_vars": {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=nobody)
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
        "data": {**files, "contexts": str(folder)},
        "model": {"encoder": _save_encoder(folder / "encoder", minilm), "dropout": 0.0},
        "optim": {"epochs": 2, "batch_sentences": 8, "encoder_lr": 1e-3, "head_lr": 5e-3, "crf_lr": 5e-3},
        "run": {"storage": str(folder / "runs"), "seed": 3, "threads": 1, "log_steps": 6},
    }


def _context(sentence: Sentence) -> Context:
    text = f"{sentence.words[-1]} is a village that few people remember."
    return Context(sentence.words, "q", (ScoredPassage(Passage(f"p-{sentence.id}", "x", text), 1.0, 1),))


def _save_encoder(folder: Path, tokenizer: str) -> str:
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return str(folder)


def config_of(tree: dict[str, dict], **run: object) -> Config:
    return parse_config({**tree, "run": {**tree["run"], **run}})


@pytest.fixture(scope="module")
def one(local_ray: None, tree: dict[str, dict]) -> TrainResult:
    return train(config_of(tree, name="one", workers=1))


@pytest.fixture(scope="module", params=[0, 1, pytest.param(2, marks=pytest.mark.slow)], ids="ZeRO {}".format)
def two(request: pytest.FixtureRequest, local_ray: None, tree: dict[str, dict]) -> TrainResult:
    return train(config_of(tree, name=f"two-{request.param}", workers=2, zero_stage=request.param))


def test_two_workers_give_the_losses_scores_and_model_of_one(one: TrainResult, two: TrainResult) -> None:
    assert len(one.history) == len(two.history) == 2
    for alone, shared in zip(one.history, two.history, strict=True):
        assert shared["losses"] == pytest.approx(alone["losses"], rel=1e-4)
        assert shared["dev_f1"] == pytest.approx(alone["dev_f1"], abs=1e-6)
    expected = _parameters(one.folder, epoch=2)
    torch.testing.assert_close(_parameters(two.folder, epoch=2), expected, atol=1e-5, rtol=0)


def test_zero_shares_the_optimizers_state_between_the_workers(two: TrainResult) -> None:
    stage = json.loads((two.folder / "config.json").read_text())["run"]["zero_stage"]
    names = sorted(path.name for path in _checkpoint(two.folder, epoch=2).glob("state/*/*zero_pp_rank*optim_states.pt"))
    assert [name[: len("zero_pp_rank_0")] for name in names] == ["zero_pp_rank_0", "zero_pp_rank_1"][: 2 * (stage > 0)]


def test_loss_is_the_sum_of_its_parts_and_falls(one: TrainResult) -> None:
    first, last = (entry["losses"] for entry in one.history)
    assert set(first) == {"loss", "nll", "nll_ext", "cl-kl"}
    assert first["loss"] == pytest.approx(first["nll"] + first["nll_ext"] + first["cl-kl"], rel=1e-5)
    assert last["loss"] < first["loss"]


def test_result_folder_loads_and_says_where_it_comes_from(one: TrainResult, tree: dict[str, dict]) -> None:
    tagger = Tagger.from_pretrained(one.model)
    assert isinstance(tagger.tag("We met in Velmora."), list)
    assert json.loads((one.folder / "history.json").read_text()) == one.history
    assert Config.model_validate_json((one.folder / "config.json").read_text()) == config_of(tree, name="one")
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
    for entry in one.history:
        split = entry["seconds_by_phase"]
        training = sum(split[phase] for phase in ("data", "forward", "backward", "step"))
        assert training == pytest.approx(entry["seconds"], rel=0.1)
        assert split["evaluation"] > 0
    assert "checkpoint" not in one.history[0]["seconds_by_phase"], "the first one is not yet written"
    assert one.history[1]["seconds_by_phase"]["checkpoint"] > 0


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


def test_run_cut_after_its_first_epoch_goes_on_to_the_same_parameters(one: TrainResult, tree: dict[str, dict]) -> None:
    folder = _as_after_the_first_epoch(one.folder, one.folder.with_name("cut"))
    resumed = train(config_of(tree, name="cut", workers=1, resume=True))
    assert [entry["epoch"] for entry in resumed.history] == [1, 2]
    assert resumed.history[0] == one.history[0], "the first epoch was not trained again"
    assert resumed.history[1]["seconds"] != one.history[1]["seconds"], "the second one was"
    assert resumed.history[1]["losses"] == pytest.approx(one.history[1]["losses"], rel=1e-6)
    torch.testing.assert_close(_parameters(folder, epoch=2), _parameters(one.folder, epoch=2), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_cut_run_of_two_workers_goes_on_to_the_same_parameters(two: TrainResult, tree: dict[str, dict]) -> None:
    folder = _as_after_the_first_epoch(two.folder, two.folder.with_name(f"{two.folder.name}-cut"))
    stage = json.loads((folder / "config.json").read_text())["run"]["zero_stage"]
    train(config_of(tree, name=folder.name, workers=2, zero_stage=stage, resume=True))
    torch.testing.assert_close(_parameters(folder, epoch=2), _parameters(two.folder, epoch=2), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_cut_run_goes_on_with_another_number_of_workers(one: TrainResult, tree: dict[str, dict]) -> None:
    folder = _as_after_the_first_epoch(one.folder, one.folder.with_name("more"))
    train(config_of(tree, name="more", workers=2, resume=True))
    torch.testing.assert_close(_parameters(folder, epoch=2), _parameters(one.folder, epoch=2), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_two_workers_that_accumulate_give_the_model_of_one(local_ray: None, tree: dict[str, dict]) -> None:
    halves = {**tree, "optim": {**tree["optim"], "batch_sentences": 4, "accumulate": 2}}
    expected = _parameters(train(config_of(halves, name="halves")).folder, epoch=2)
    for stage in (0, 1, 2):
        shared = train(config_of(halves, name=f"halves-{stage}", workers=2, zero_stage=stage))
        torch.testing.assert_close(_parameters(shared.folder, epoch=2), expected, atol=1e-5, rtol=0)


def test_name_of_an_existing_run_is_refused_without_resume(one: TrainResult, tree: dict[str, dict]) -> None:
    with pytest.raises(ValueError, match=r"a run of this name exists; choose another run\.name, or run\.resume=true"):
        train(config_of(tree, name="one"))


def test_run_is_not_resumed_with_other_settings(one: TrainResult, tree: dict[str, dict]) -> None:
    with pytest.raises(ValueError, match=r"run\.seed: the run has 3, given is 4"):
        train(config_of(tree, name="one", resume=True, seed=4))


def test_more_workers_than_cpus_are_refused_at_once(local_ray: None, tree: dict[str, dict]) -> None:
    started = time.perf_counter()
    with pytest.raises(ValueError, match=r"run\.workers=99 wants 99 CPUs but the cluster has 2; lower run\.workers"):
        train(config_of(tree, name="greedy", workers=99))
    assert time.perf_counter() - started < 5
    assert not (Path(tree["run"]["storage"]) / "greedy").exists()


@pytest.mark.slow
def test_run_whose_worker_is_killed_goes_on_to_the_same_parameters(local_ray: None, tree: dict[str, dict]) -> None:
    long = {**tree, "optim": {**tree["optim"], "batch_sentences": 1, "batch_pieces": 64, "epochs": 6}}
    whole = train(config_of(long, name="whole"))
    folder = Path(tree["run"]["storage"]) / "killed"
    threading.Thread(target=_kill_worker_after_a_checkpoint, args=(folder,), daemon=True).start()
    with pytest.raises(TrainingFailedError):
        train(config_of(long, name="killed"))
    assert not (folder / "history.json").exists()
    resumed = train(config_of(long, name="killed", resume=True))
    assert [entry["epoch"] for entry in resumed.history] == [1, 2, 3, 4, 5, 6]
    torch.testing.assert_close(_parameters(folder, epoch=6), _parameters(whole.folder, epoch=6), atol=1e-6, rtol=0)


def _as_after_the_first_epoch(folder: Path, target: Path) -> Path:
    """A copy of a run's folder as it was between its epochs: without later checkpoints and Ray's record of them."""
    shutil.copytree(folder, target)
    shutil.rmtree(target / "model")
    (target / "history.json").unlink()
    first = _checkpoint(target, epoch=1)
    shutil.rmtree(_checkpoint(target, epoch=2))
    record = json.loads((target / "checkpoint_manager_snapshot.json").read_text())
    both = zip(record["checkpoint_results"], record["checkpoint_report_indices"], strict=True)
    result, index = next(pair for pair in both if pair[0]["checkpoint_dir_name"] == first.name)
    record |= {"checkpoint_results": [result], "latest_checkpoint_result": result}
    record |= {"checkpoint_report_indices": [index], "current_report_index": index + 1}
    (target / "checkpoint_manager_snapshot.json").write_text(json.dumps(record))
    return target


def _kill_worker_after_a_checkpoint(folder: Path) -> None:
    record = folder / "checkpoint_manager_snapshot.json"
    while not (record.exists() and json.loads(record.read_text() or "{}").get("checkpoint_results")):
        time.sleep(0.05)
    for process in psutil.Process().children(recursive=True):
        if "RayTrainWorker" in " ".join(process.cmdline()):
            process.kill()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _parameters(folder: Path, *, epoch: int) -> dict[str, torch.Tensor]:
    return load_file(_checkpoint(folder, epoch=epoch) / "model" / "model.safetensors")


def _checkpoint(folder: Path, *, epoch: int) -> Path:
    [found] = [
        path.parent
        for path in folder.glob("checkpoint_*/progress.json")
        if json.loads(path.read_text())["epoch"] == epoch
    ]
    return found
