"""What a reload tries first: 30 kinds of damaged folders and more are refused by name, within time and memory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ctxner.evaluation.calibration import PlattScaling
from ctxner.model.calibration_file import Calibration
from ctxner.predictor import Tagger
from ctxner.schema import VIEWS
from serving.plan import Options, plan
from serving.settings import ReloadLimits
from serving.trial import tried
from tests.integration.built import build_index
from tests.serving.damage import INDEX, MODEL

SERVE = Path(__file__).parents[2] / "serving" / "serve.yaml"
FEWEST = 30  # kinds of damage, of each of the two folders


@pytest.fixture(scope="module")
def good(tagger: Tagger, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and an index, which another process built, as Java must not start in this one."""
    folder = tmp_path_factory.mktemp("good")
    tagger.save_pretrained(folder / "model")
    Calibration(dict.fromkeys(VIEWS, PlattScaling(1.0, 0.0)), threshold=0.5).save(folder / "model")
    (folder / "corpus.jsonl").write_text(
        "".join(
            json.dumps({"id": str(n), "contents": f"Marta {n} moved to Bergen.", "title": f"Marta {n}", "source": "x"})
            + "\n"
            for n in range(20)
        )
    )
    build_index(folder)
    return folder / "model", folder / "index"


def test_every_damage_of_every_file_is_refused_by_the_name_of_what_is_damaged(good: tuple[Path, Path]) -> None:
    command = [sys.executable, "-m", "tests.serving.damage", *map(str, good)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert ended.returncode == 0, ended.stderr[-2000:]
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    undamaged = [row for row in rows if not row["file"]]
    assert [row["reason"] for row in undamaged] == [None, None], undamaged
    drills = [row for row in rows if row["file"]]
    assert sum(map(len, MODEL.values())) >= FEWEST
    assert sum(map(len, INDEX.values())) + sum("shard-000/" in row["file"] for row in drills) >= FEWEST
    assert not [row for row in drills if not row["reason"]]
    wrong = [row for row in drills if not any(name in row["reason"] for name in _names(row["file"]))]
    assert not wrong
    assert max(row["seconds"] for row in drills) < 60
    for kind in ("model", "index"):
        peaks = [row["peak_mib"] for row in rows if row["kind"] == kind]
        print(f"\n{kind}: {len(peaks) - 1} damages, peak {peaks[0]} MiB undamaged, {peaks[-1]} MiB after all")
        assert peaks[-1] - peaks[0] < 500


def _names(file: str) -> list[str]:
    """The damaged file; also its folder where Lucene or the analyzer of the version reports it."""
    folder, _, name = file.rpartition("/")
    return [f"/{name}", f"{folder}: "] if folder else [f"/{name}", f" {name} "]


def test_a_candidate_that_hangs_is_given_up_and_the_step_is_named(good: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(good[1], tmp_path / "index")
    (stored,) = (tmp_path / "index" / "v000001" / "shard-000").glob("*.fdt")
    stored.unlink()
    os.mkfifo(stored)  # Lucene waits for a writer
    for seconds in (12, 120):  # the second where a slow machine does not come to the index in the first
        with pytest.raises(ValueError, match=f"not done within {seconds} s; --set reload.seconds changes") as refused:
            tried(options(good[0], tmp_path / "index"), ReloadLimits(seconds=seconds), threading.Event(), "")
        if "v000001" in str(refused.value):
            break
    assert "v000001: not done within" in str(refused.value)


def test_a_candidate_that_needs_more_memory_than_allowed_is_refused(good: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match=r"(model|starting).*(emory|GiB)"):
        tried(options(*good), ReloadLimits(memory_gib=0.2), threading.Event(), "")


def test_a_server_that_ends_does_not_wait_for_the_trial(good: tuple[Path, Path]) -> None:
    ended = threading.Event()
    threading.Timer(1, ended.set).start()
    started = time.monotonic()
    with pytest.raises(ValueError, match="died"):
        tried(options(*good), ReloadLimits(), ended, "")
    assert time.monotonic() - started < 10


def test_an_undamaged_candidate_is_planned_as_the_command_plans_it(good: tuple[Path, Path]) -> None:
    tree: dict[str, Any] = tried(options(*good), ReloadLimits(), threading.Event(), "")
    arguments = tree["applications"][0]["args"]
    assert (arguments["model"], arguments["index"]) == tuple(map(str, good))
    assert len(arguments["release"].split(".")) == 2
    assert signal.alarm(0) == 0  # the limits were the other process's


def test_a_new_version_of_the_index_is_told_to_the_retrievers_and_changes_no_argument(
    good: tuple[Path, Path], tmp_path: Path
) -> None:
    model, index = good[0], shutil.copytree(good[1], tmp_path / "index")

    def planned(serves: str) -> tuple[dict[str, Any], dict[str, Any]]:
        tree = plan(options(model, index), first=lambda _, same: known.append(same), serves=serves)
        (application,) = tree["applications"]
        (retriever,) = [one for one in application["deployments"] if one["name"] == "Retriever"]
        return application["args"], retriever["user_config"]

    known: list[bool] = []
    before, old = planned("")
    assert planned(before["release"]) == (before, old)
    (tmp_path / "new.jsonl").write_text('{"title": "Quorvane", "text": "Quorvane is a town."}\n')
    add = [sys.executable, "-m", "jobs", "index", "add", "--corpus", str(tmp_path / "new.jsonl"), "--index", str(index)]
    subprocess.run(add, check=True, capture_output=True)
    after, new = planned("another release")
    assert after == before
    assert new != old
    assert known == [False, True, False]


def options(model: Path, index: Path) -> Options:
    return Options(str(SERVE), str(model), str(index), overrides=("retrieval.rerank=false",))
