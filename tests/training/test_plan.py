"""The plan of a run: what it counts is what training does, and what training refuses it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ctxner.config import parse_config
from ctxner.files.contexts import Context, unlabelled_examples
from ctxner.labels import LabelSet
from ctxner.training.build import build_model
from ctxner.training.data.training_set import load_split
from ctxner.training.plan import plan
from tests.contexts_files import write_contexts
from tests.training.planned import WORLD, config_of

pytestmark = pytest.mark.numeric


def test_plan_counts_what_training_would_do(files: dict[str, dict]) -> None:
    config = parse_config(files)
    found = plan(config)
    assert found["sentences"] == {"train": 37, "dev": 6, "dev, scored after each epoch": 6}
    begins = [tag for own in WORLD.train for tag in own.tags if tag[0] in "BS"]  # one of these for each mention
    assert found["mentions"]["train"] == {type: sum(tag[2:] == type for tag in begins) for type in found["types"]}
    assert found["types"] == list(WORLD.types)
    assert found["sentences_an_epoch"] == 37
    assert (found["steps_an_epoch"], found["steps"]) == (10, 20)
    model = build_model(config, LabelSet(WORLD.types))
    assert found["parameters"]["all"] == sum(own.numel() for own in model.parameters())
    assert all(0 <= share < 0.5 for share in found["padding"].values())
    assert found["pieces_an_epoch"]["context"] == found["pieces_an_epoch"]["plain"] + 37 * 9, "eight pieces and [SEP]"
    assert found["doubts"] == []


def test_plan_refuses_contexts_of_other_sentences(files: dict[str, dict], tmp_path: Path) -> None:
    write_contexts({"stranger": Context(("a",), "q", ())}, tmp_path / "contexts" / "train.parquet")
    with pytest.raises(ValueError, match=r"train\.parquet: no row for 37 of 37 sentences, first"):
        plan(parse_config(files))


def test_plan_refuses_an_empty_training_file(files: dict[str, dict], tmp_path: Path) -> None:
    (tmp_path / "train.conll").write_text("")
    with pytest.raises(ValueError, match=r"train\.conll"):
        plan(parse_config(files))


@pytest.mark.parametrize("split", ["train", "dev", "also"])
def test_plan_refuses_sentences_without_gold_and_names_the_first(
    files: dict[str, dict], tmp_path: Path, split: str
) -> None:
    lines = [json.dumps({"id": f"s{n}", "words": ["Velmora"]} | ({"tags": ["O"]} if n < 2 else {})) for n in range(5)]
    (tmp_path / "mixed.jsonl").write_text("\n".join(lines))
    mixed = str(tmp_path / "mixed.jsonl")
    changed = {"also": [{"train": mixed}]} if split == "also" else {split: mixed, "contexts": None}
    config = {**files, "data": files["data"] | changed, "loss": {"mode": "plain"}}
    with pytest.raises(ValueError, match=r"mixed\.jsonl: 3 sentences have no gold tags, first 's2'; tag them or leave"):
        plan(parse_config(config))
    if split != "also":
        limit = {f"{split}_sentences": 2}
        assert len(load_split(parse_config({**config, "data": config["data"] | limit}).data, split)) == 2


def test_plan_refuses_a_wrong_encoder_path(files: dict[str, dict], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder with config"):
        plan(parse_config({**files, "model": {"encoder": str(tmp_path / "absent")}}))


def test_sentences_without_tags_need_a_loss_that_compares_views() -> None:
    with pytest.raises(ValueError, match=r"loss\.mode=plain has one view; --set loss\.mode=cl-kl or cl-l2"):
        config_of(data={"unlabelled": "x.parquet"}, loss={"mode": "plain"})


def test_contexts_of_which_every_row_failed_are_refused(tmp_path: Path) -> None:
    write_contexts({"1": Context(("a",), "", (), "no index")}, tmp_path / "u.parquet")
    with pytest.raises(
        ValueError, match=r"u\.parquet: retrieval failed for 1 of 1 sentences, first for '1': no index;"
    ):
        unlabelled_examples(tmp_path / "u.parquet")
    write_contexts({"1": Context((), "", ())}, tmp_path / "u.parquet")
    with pytest.raises(ValueError, match=r"u\.parquet: none of 1 rows has words"):
        unlabelled_examples(tmp_path / "u.parquet")
