"""The keys of tagging and retrieval jobs: rows of another model, index or setting are never kept."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from ctxner.batch.retrieve import retrieval_key
from ctxner.batch.tag import settled
from ctxner.batch.tagging_files import stage_documents
from ctxner.config import Config, parse_config
from ctxner.evaluation.calibration import PlattScaling
from ctxner.files.documents import Document
from ctxner.model.calibration_file import Calibration
from ctxner.predictor import Tagger
from ctxner.retrieval.index.versions import IndexManifest

INDEX = IndexManifest(3, "v1", None, "9", "1", "en", "paragraph", 4, 1, (4,), 2, 2, "ab", ("a.jsonl",), "2026", 1.0)


@pytest.fixture
def model(tagger: Tagger, tmp_path: Path) -> Path:
    tagger.save_pretrained(tmp_path / "model")
    Calibration({"plain": PlattScaling(1.0, 0.0)}, threshold=2.0).save(tmp_path / "model")
    return tmp_path / "model"


def changed(path: Path) -> None:
    """Another content that can still be read: JSON with a further space, weights with another number."""
    content = bytearray(path.read_bytes())
    if path.suffix == ".safetensors":
        content[-1] ^= 1
    path.write_bytes(bytes(content) if path.suffix == ".safetensors" else bytes(content) + b"\n")


def test_each_file_of_the_model_is_in_the_key_of_a_tagging_job(model: Path) -> None:
    keys, names = [settled(Config(), str(model))[2]], sorted(path.name for path in model.iterdir())
    assert {"calibration.json", "config.json", "model.safetensors", "tokenizer.json"} <= set(names)
    assert settled(Config(), str(model))[2] == keys[0]
    for name in names:
        changed(model / name)
        keys.append(settled(Config(), str(model))[2])
        assert keys[-1] not in keys[:-1], name


def test_rows_of_another_calibration_are_not_kept(model: Path, tmp_path: Path) -> None:
    def staged() -> bool:
        """Whether a row of the call before is still there."""
        job = stage_documents([Document("a", "Hi.")], tmp_path / "out", settled(Config(), str(model))[2])
        kept = (job.rows / "0.parquet").exists()
        (job.rows / "0.parquet").touch()
        return kept

    assert [staged(), staged()] == [False, True]
    Calibration({"plain": PlattScaling(0.5, 0.1)}, threshold=2.0).save(model)
    assert not staged()


@pytest.mark.parametrize("setting", ["tagger", "encoder"])
def test_each_file_of_retrieval_s_models_is_in_the_key(model: Path, setting: str) -> None:
    config = parse_config({"retrieval": {setting: str(model), "dtype": "float32"}})
    keys = [retrieval_key(config, INDEX)]
    for path in sorted(model.iterdir()):
        changed(path)
        keys.append(retrieval_key(config, INDEX))
        assert keys[-1] not in keys[:-1], path.name


def test_the_packaged_encoder_and_each_fact_of_the_index_are_in_the_key() -> None:
    key = retrieval_key(Config(), INDEX)
    assert key["retrieval_models"].keys() == {"encoder"}
    facts: dict[str, Any] = {"version": "v2", "corpus_sha256": "cd", "language": "de"}
    for name, value in facts.items():
        assert retrieval_key(Config(), dataclasses.replace(INDEX, **{name: value})) != key
    assert not retrieval_key(parse_config({"retrieval": {"rerank": False}}), INDEX)["retrieval_models"]


def test_a_model_that_was_copied_has_the_same_key_and_hidden_files_change_nothing(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "copy")
    (tmp_path / "copy" / ".lock").touch()
    files = [settled(Config(), str(folder))[2]["model_files"] for folder in (model, tmp_path / "copy")]
    assert files[0] == files[1]


def test_rows_of_an_older_layout_are_not_kept(tmp_path: Path) -> None:
    """Its checkpoint names finished rows by another column, which Ray Data would look for in vain."""

    def stage() -> Path:
        return stage_documents([Document("a", "Hi.")], tmp_path / "out", {}).rows / "0.parquet"

    stage().touch()
    assert stage().exists()
    described = tmp_path / "out" / ".tagging" / "job.json"
    tree = json.loads(described.read_text())
    del tree["layout"]
    described.write_text(json.dumps(tree, indent=1, sort_keys=True))
    assert not stage().exists()
