"""The newcomer's story of docs/start.md: each of its commands, in order, in a folder with nothing but docs/start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_docs_run import ROOT, blocks_of
from tests.start_files import FOLDER, files

pytestmark = pytest.mark.ray
PAGE = ROOT / "docs" / "start.md"
CONFIGURATION = "--set optim.epochs=20"  # all of it; here two epochs show that the commands fit together


def test_the_files_are_those_that_their_program_makes() -> None:
    assert {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()} == files()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory after all commands of the page."""
    place = tmp_path_factory.mktemp("start") / "here"
    shutil.copytree(FOLDER, place)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for block in blocks_of(PAGE):
        assert block.reason is None
        command = ["bash", "-euo", "pipefail", "-c", block.code.replace(CONFIGURATION, "--set optim.epochs=2")]
        ended = subprocess.run(
            command, cwd=place, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, f"{block.place}: {ended.stdout[-1000:]}{ended.stderr[-3000:]}"
    return place


def test_one_setting_is_all_the_configuration() -> None:
    text = "".join(block.code for block in blocks_of(PAGE))
    assert text.count("--set ") == text.count(CONFIGURATION) == 1
    assert " -c " not in text
    assert "--config" not in text


def test_train_has_looked_all_sentences_up_in_the_glossary(folder: Path) -> None:
    manifests = json.loads((folder / "runs/first/contexts/_SUCCESS").read_text())
    assert {split: manifest["sentences"] for split, manifest in manifests.items()} == {
        "train": 40,
        "dev": 10,
        "test": 10,
    }
    named = sum(bool(json.loads(line)["label"]) for line in (folder / "export.jsonl").read_text().splitlines())
    assert sum(manifest["kept_passages"] for manifest in manifests.values()) == named, "one entry for each name"


def test_the_page_of_the_evaluation_and_the_tagged_letters_are_there(folder: Path) -> None:
    assert "context" in (folder / "runs/first/evaluation.html").read_text()
    tagged = [json.loads(line) for line in (folder / "runs/tagged/tagged.jsonl").read_text().splitlines()]
    letters = [json.loads(line) for line in (folder / "letters.jsonl").read_text().splitlines()]
    assert [row["text"] for row in tagged] == [row["text"] for row in letters]
    assert {row["sentences"][0]["view"] for row in tagged} == {"context", "plain"}, "plain where nothing is found"


def test_passages_are_looked_up_again_only_where_they_do_not_fit(folder: Path) -> None:
    """A deleted sentence leaves the others theirs; a new sentence or another index does not."""
    from jobs import run_contexts
    from jobs.model_settings import settings_for

    config = settings_for(str(folder / "runs/first/model"), None, [])
    lines = (folder / "train.jsonl").read_text().splitlines(keepends=True)
    assert run_contexts.to_retrieve(config, ["train", "dev", "test"]) == {}
    try:
        (folder / "train.jsonl").write_text("".join(lines[:4] + lines[5:]))
        assert run_contexts.to_retrieve(config, ["train"]) == {}
        (folder / "train.jsonl").write_text("".join([*lines, json.dumps({"text": "Quite new.", "label": []}) + "\n"]))
        assert run_contexts.to_retrieve(config, ["train"]) == {"train": "1 of 41 sentences are new"}
    finally:
        (folder / "train.jsonl").write_text("".join(lines))
    other = config.retrieval.model_copy(update={"depth": 3})
    changed = "the index or the settings of retrieval have changed"
    assert run_contexts.to_retrieve(config.model_copy(update={"retrieval": other}), ["dev"]) == {"dev": changed}
