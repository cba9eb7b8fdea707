"""Pipelines: what a file may say, which steps are to do and why, and what is published under which name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctxner.demo import make_world, write_world
from jobs.experiment.store import Step
from jobs.pipeline.job import _planned, plan
from jobs.pipeline.publish import look, publish
from tests.jobs.command_line import Called, listing
from tests.jobs.experiment_results import FACTS

PIPELINE: dict[str, Any] = {
    "corpus": "corpus.jsonl",
    "data": {split: f"{split}.conll" for split in ("train", "dev", "test")},
    "train": {"base": "demo", "set": {"run.workers": 1}},
    "publish": {"to": "published"},
}
STORE = Path("store")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_world(make_world(num_train=10, num_dev=5, num_test=5), tmp_path)
    monkeypatch.chdir(tmp_path)
    _write()
    return tmp_path


def _write(**changes: Any) -> None:
    Path("weekly.yaml").write_text(yaml.safe_dump({**PIPELINE, **changes}, sort_keys=False))


def _finish() -> None:
    """Do all steps, as far as the plan can see."""
    planned = _planned("weekly.yaml", STORE, ())
    for kind, key in planned.task.keys.items():
        step = Step(kind, key)
        planned.store.folder(step).mkdir(parents=True, exist_ok=True)
        (planned.store.folder(step) / "result.json").write_text("{}")
        planned.store.finish(step, FACTS)
    planned.record.parent.mkdir(parents=True, exist_ok=True)
    planned.record.write_text(json.dumps(planned.task.steps.facts, default=str))


def _to_do(*overrides: str) -> dict[str, str]:
    """Reasons of the steps that are to do."""
    steps = plan("weekly.yaml", STORE, overrides)["steps"]
    return {step["step"]: step["why"] for step in steps if step["state"] == "to do" and step["step"] != "publish"}


def test_a_new_pipeline_has_everything_to_do_and_a_plan_writes_nothing(folder: Path) -> None:
    before = listing(folder)
    assert _to_do() == dict.fromkeys(("index", "retrieve", "train", "calibrate", "evaluate"), "not done yet")
    assert listing(folder) == before


def test_a_step_whose_inputs_are_the_same_is_skipped(folder: Path) -> None:
    _finish()
    assert _to_do() == {}
    Path("other.jsonl").write_bytes(Path("corpus.jsonl").read_bytes())
    _write(corpus="other.jsonl", evaluate={"split": "test", "views": ["plain"]})
    assert _to_do("run.workers=2", "retrieval.search_actors=3") == {}  # neither names nor where it runs


def test_a_changed_input_reruns_what_depends_on_it_and_is_named(folder: Path) -> None:
    _finish()
    with Path("test.conll").open("a") as file:
        file.write("\nOne\tO\nmore\tO\n")
    assert _to_do() == {"retrieve": "test.conll changed", "evaluate": "test.conll changed, the passages changed"}
    assert _to_do("run.seed=5")["train"] == "run.seed: 0 -> 5"
    with Path("corpus.jsonl").open("a") as file:
        file.write('{"id": "new", "text": "One more."}\n')
    reasons = _to_do("optim.epochs=3")
    assert list(reasons) == ["index", "retrieve", "train", "calibrate", "evaluate"]
    assert reasons["index"] == "corpus.jsonl changed"
    assert reasons["retrieve"] == "test.conll changed, the index changed"
    assert reasons["train"] == "optim.epochs: 4 -> 3, the passages changed"
    _write(calibrate={"share": 0.3})
    assert _to_do()["calibrate"] == "calibrate.share: 0.5 -> 0.3, the model changed, the passages changed"
    assert 'index.language: "en" -> "de"' in _to_do("index.language=de")["index"]


def test_what_is_damaged_failed_or_stopped_is_to_do_and_says_so(folder: Path) -> None:
    _finish()
    planned = _planned("weekly.yaml", STORE, ())
    step = Step("score", planned.task.keys["score"])
    (planned.store.folder(step) / "result.json").unlink()
    assert _to_do() == {"evaluate": "its result is gone"}
    planned.store.log(step).write_text("started score\n")
    assert _to_do() == {"evaluate": "its result is damaged or gone"}
    planned.store.forget_damaged(step)
    assert _to_do() == {"evaluate": "was stopped before its end"}
    planned.store.fail(step, "ValueError: no\nmore", 2)
    assert _to_do() == {"evaluate": "failed: ValueError: no"}
    with planned.store.claim(step):
        assert _to_do() == {"evaluate": "is running now"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"bse": "demo"}}, "weekly.yaml:7: train.bse: unknown key 'bse'; valid here: base, set"),
        ({"calibrate": {"shre": 1}}, "weekly.yaml:13: calibrate.shre: unknown key 'shre'; valid here: split, share"),
        ({"publsh": 1}, "weekly.yaml:12: publsh: unknown key 'publsh'; valid here: name, corpus, data, train"),
        ({"data": {"train": "train.conll"}}, "weekly.yaml:2: data.dev: found {'train': 'train.conll'}: Field required"),
        ({"evaluate": {"split": "tset"}}, "weekly.yaml:13: evaluate.split: found 'tset'"),
        ({"data": {"train": "train.conll", "dev": "dev.conll"}}, "evaluate.split: test has no file; add data.test"),
        ({"corpus": []}, "evaluate.views: no passages for the view context; give corpus, or views: [plain]"),
        ({"publish": {"to": "published", "version": "latest"}}, "weekly.yaml:12: publish.version: found 'latest'"),
        ({"publish": {"to": "published", "version": "../x"}}, "weekly.yaml:12: publish.version: found '../x'"),
        ({"train": {"set": {"optim.epoch": 3}}}, "weekly.yaml: optim.epoch: unknown key 'epoch'; valid here: enc"),
        ({"train": {"set": {"epochs": 3}}}, "weekly.yaml:8: 'epochs': wanted section.key"),
        ({"train": {"base": "nowhere"}}, "nowhere: not a readable YAML file"),
        ({"corpus": "absent.jsonl"}, "absent.jsonl: no such file or folder"),
        ({"publish": {"to": "odd://bucket"}}, "Protocol not known: odd; wanted a path, or s3://"),
    ],
)  # fmt: skip
def test_a_faulty_file_is_one_message_with_its_line(
    changes: dict, message: str, folder: Path, call: Callable[..., Called]
) -> None:
    _write(**changes)
    for options in (("--dry-run",), ()):
        code, out, err = call("pipeline", "weekly.yaml", *options)
        assert (code, out) == (2, "")
        assert message in err


def test_a_pipeline_is_found_by_name_among_those_of_the_project(folder: Path, call: Callable[..., Called]) -> None:
    code, _, err = call("pipeline", "demo", "--dry-run")
    assert (code, err) == (2, "error: runs/demo/world/train.conll: no such file or folder\n")
    code, _, err = call("pipeline", "nowhere")
    assert (code, err) == (2, "error: nowhere: no such pipeline; give a YAML file, or one of demo\n")


def test_what_a_pipeline_would_take_is_told(folder: Path, call: Callable[..., Called]) -> None:
    code, out, _ = call("cost", "weekly.yaml", "--hosts", "2", "--json")
    assert code == 0
    (told,) = json.loads(out)["plans"]
    assert [job["job"].split()[-1] for job in told["jobs"]] == ["index", "contexts", "train", "calibrate", "score"]


@pytest.mark.parametrize("store", ["published", "memory://models/published", "s3"])
def test_a_version_is_published_once_and_latest_leads_to_the_last(
    store: str, folder: Path, request: pytest.FixtureRequest
) -> None:
    to = f"{request.getfixturevalue('bucket')}/published" if store == "s3" else store
    files = {"model/config.json": Path("train.conll"), "page.html": Path("dev.conll")}
    publish(to, "first", {"key": "a"}, files)
    assert (look(to, "first", "a").is_whole, look(to, "first", "a").is_latest) == (True, True)
    publish(to, "second", {"key": "b"}, files)
    assert (look(to, "first", "a").is_latest, look(to, "second", "b").is_latest) == (False, True)
    with pytest.raises(ValueError, match=r"published/first: published before from other inputs \(key a, now b\)"):
        publish(to, "first", {"key": "b"}, files)
    publish(to, "first", {"key": "a"}, {})  # back to it: nothing is copied
    there = look(to, "first", "a")
    assert (there.is_whole, there.is_latest, there.key) == (True, True, "a")
    assert there.manifest is not None
    assert there.manifest["files"]["page.html"]["bytes"] == Path("dev.conll").stat().st_size


def test_a_folder_is_published_whole_or_not_at_all(folder: Path) -> None:
    files = {"model/config.json": Path("train.conll"), "page.html": Path("dev.conll")}
    (folder / "index").mkdir()
    publish("published", "first", {"key": "a"}, files, folder / "index")
    assert Path("published/latest/index").readlink() == folder / "index"
    Path("published/.second.01234567.aside").mkdir()  # of a writer that was killed
    with pytest.raises(FileExistsError):  # in the middle of copying
        publish("published", "second", {"key": "b"}, {"a": Path("dev.conll"), "a/b": Path("dev.conll")})
    assert sorted(path.name for path in Path("published").iterdir()) == [".lock", "first", "latest"]
    assert Path("published/latest").readlink() == Path("first")


def test_a_damaged_version_is_mended_and_what_is_no_version_is_left_alone(folder: Path) -> None:
    files = {"page.html": Path("dev.conll")}
    publish("published", "first", {"key": "a"}, files)
    Path("published/first/page.html").write_text("cut")
    assert not look("published", "first", "a").is_whole
    publish("published", "first", {"key": "a"}, files)
    assert Path("published/first/page.html").read_bytes() == Path("dev.conll").read_bytes()
    Path("published/mine").mkdir()
    with pytest.raises(ValueError, match="published/mine: is there and no published version"):
        look("published", "mine", "a")
    Path("other/latest").mkdir(parents=True)
    with pytest.raises(ValueError, match="other/latest: no link to a version"):
        look("other", "first", "a")
