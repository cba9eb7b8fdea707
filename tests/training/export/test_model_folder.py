"""A checkpoint's model folder is all that a user needs: it loads, and says where it comes from and what it can do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from ctxner.config import Config, parse_config
from ctxner.demo import make_world, write_world
from ctxner.evaluation.scores import Score, SpanCounts
from ctxner.predictor import Tagger
from ctxner.training.data.training_set import load_split
from ctxner.training.export.model_folder import run_provenance, write_export
from tests.closeness import assert_close

pytestmark = pytest.mark.numeric


@pytest.fixture
def config(tmp_path: Path) -> Config:
    write_world(make_world(num_train=5, num_dev=3, num_test=0), tmp_path / "world")
    files = {split: str(tmp_path / "world" / f"{split}.conll") for split in ("train", "dev")}
    return parse_config({"data": files, "run": {"name": "mine"}})


def test_an_exported_folder_loads_and_tells_its_config_hashes_and_scores(
    config: Config, tagger: Tagger, tmp_path: Path
) -> None:
    provenance = run_provenance(config, {split: load_split(config.data, split) for split in ("train", "dev")})
    scores = SpanCounts({"person": Score(1, 2, 3)}).scores()
    entry = {"epoch": 2, "dev_f1": {"plain": scores.f1}, "dev_scores": {"plain": scores.to_dict()}}
    write_export(tagger.model, tagger.tokenizer, tmp_path / "model", provenance, entry)
    told = json.loads((tmp_path / "model" / "training.json").read_text())
    assert Config.model_validate(told["config"]) == config
    assert told["config_digest"] == config.digest()
    assert (told["data"]["train"]["sentences"], told["data"]["dev"]["sentences"]) == (5, 3)
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert "# mine\n" in card.text
    assert f"{tagger.model.num_parameters():,}" in card.text
    assert str(tmp_path) not in str(card)
    loaded = Tagger.from_pretrained(tmp_path / "model")
    assert_close(loaded.tag("Paris Hilton sings."), tagger.tag("Paris Hilton sings."))
    files = {split: told["data"][split]["files"] for split in ("train", "dev")}
    assert loaded.model.config.provenance == {
        "config_digest": config.digest(),
        "files": files,
        "epoch": 2,
        "dev_f1": {"plain": scores.f1},
    }


def test_a_model_saved_within_an_epoch_is_exported_without_scores(
    config: Config, tagger: Tagger, tmp_path: Path
) -> None:
    provenance = run_provenance(config, {"train": load_split(config.data, "train")})
    write_export(tagger.model, tagger.tokenizer, tmp_path / "model", provenance, {"epoch": 0})
    assert "saved within an epoch" in (tmp_path / "model" / "README.md").read_text()
    assert Tagger.from_pretrained(tmp_path / "model").model.config.provenance["dev_f1"] is None
