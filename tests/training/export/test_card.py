"""The model card is one that Hugging Face reads, and every figure in it is the run's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from ctxner.config import parse_config
from ctxner.evaluation.scores import Score, SpanCounts
from ctxner.training.export.card import CARD_FILE, model_card, plain_text, write_card

INDEX = {
    "version": "v000003",
    "corpus_sha256": "ab" * 32,
    "corpus_files": ["news_wiki.jsonl.gz"],
    "num_documents": 119209,
    "language": "en",
    "unit": "paragraph",
    "lucene_version": "9.9.1",
}
SCORES = {
    "plain": SpanCounts({"person": Score(5, 10, 8), "a|b": Score(0, 0, 2)}).scores().to_dict(),
    "context": SpanCounts({"person": Score(6, 8, 8), "a|b": Score(1, 1, 2)}).scores().to_dict(),
}
MODEL = {
    "types": ("a|b", "person"),
    "parameters": 22_000_000,
    "max_pieces": 128,
    "max_passages": 6,
    "encoder_type": "bert",
}


def run_of(index: dict[str, Any] | None = INDEX, **sections: dict) -> dict[str, Any]:
    sections = {"data": {"train": "/d/wnut17/train.conll", "contexts": "/d/contexts"}, **sections}
    retrieval = index and {"index": index, "settings": {}}
    own = {
        "files": {"train.conll": "12" * 32},
        "sentences": 3394,
        "words": 62730,
        "mentions": {"a|b": 4, "person": 660},
        "sentences_with_passages": 3390,
        "retrieval": retrieval,
    }
    return {
        "config": parse_config(sections).model_dump(mode="json"),
        "config_digest": "c0ffee",
        "data": {"train": own, "dev": own},
        "versions": {"ctxner": "0.1.0", "torch": "2.13.0"},
        "epoch": 4,
        "dev_scores": SCORES,
    }


def card_of(run: dict[str, Any]) -> ModelCard:
    return model_card(run, name="cl-kl", data_set="wnut17", model=MODEL)


def text_of(card: ModelCard) -> str:
    return " ".join(str(card).split())


def test_front_matter_is_read_back_with_the_scores_of_both_views(tmp_path: Path) -> None:
    write_card(card_of(run_of()), tmp_path)
    read = ModelCard.load(tmp_path / CARD_FILE).data
    assert (read.library_name, read.pipeline_tag, read.model_name) == ("ctxner", "token-classification", "cl-kl")
    found = {(own.dataset_config, own.metric_type): own.metric_value for own in read.eval_results}
    assert found == {
        (f"{view} view", ratio): round(SCORES[view]["micro"][ratio], 4)
        for view in SCORES
        for ratio in ("precision", "recall", "f1")
    }
    assert {(own.dataset_name, own.dataset_split) for own in read.eval_results} == {("wnut17", "dev")}


def test_scores_are_a_row_a_type_with_both_views_side_by_side() -> None:
    lines = str(card_of(run_of())).splitlines()
    assert "| all | 50.0 | 50.0 | 50.0 | 77.8 | 70.0 | 73.7 | 10 |" in lines
    assert "| a\\|b | 0.0 | 0.0 | 0.0 | 100.0 | 50.0 | 66.7 | 2 |" in lines
    assert "| person | 50.0 | 62.5 | 55.6 | 75.0 | 75.0 | 75.0 | 8 |" in lines


def test_data_and_index_are_named_with_counts_and_hashes() -> None:
    text = text_of(card_of(run_of()))
    assert "| train | train.conll | `1212121212121212` | 3394 | 62730 | 664 | 3390 |" in text
    assert "version `v000003` of an index over 119209 passages of news\\_wiki.jsonl.gz" in text
    assert "different indexes" not in text
    other = run_of()
    other["data"]["dev"] = {**other["data"]["dev"], "retrieval": {"index": {**INDEX, "version": "v9"}, "settings": {}}}
    assert "The splits were retrieved from different indexes" in text_of(card_of(other))


def test_a_run_without_contexts_or_without_their_manifest_says_so() -> None:
    assert "do not say which index" in text_of(card_of(run_of(None)))
    bare = run_of(None, data={"train": "/d/train.conll"})
    assert "both views were the bare sentence" in text_of(card_of(bare))


def test_only_an_encoder_of_the_hub_is_a_base_model(tmp_path: Path) -> None:
    assert card_of(run_of(model={"encoder": "FacebookAI/xlm-roberta-large"})).data.base_model == (
        "FacebookAI/xlm-roberta-large"
    )
    for encoder in (None, str(tmp_path)):
        card = card_of(run_of(model={"encoder": encoder}))
        assert card.data.base_model is None
        assert str(tmp_path.parent) not in str(card), "no path of this machine"


@pytest.mark.parametrize(("mode", "cooperative"), [("plain", False), ("cl-l2", True)])
def test_cooperative_learning_is_claimed_only_of_models_trained_so(mode: str, cooperative: bool) -> None:
    assert ("cooperative learning" in text_of(card_of(run_of(loss={"mode": mode})))) == cooperative


def test_a_model_saved_within_an_epoch_says_that_it_has_no_scores() -> None:
    run = run_of()
    del run["dev_scores"]
    card = card_of(run)
    assert "None yet: this model was saved within an epoch, after 4 of 5 whole ones." in text_of(card)
    assert card.data.eval_results is None


def test_text_of_the_run_cannot_become_markup() -> None:
    assert plain_text("a|b\n*c* <img>") == "a\\|b \\*c\\* \\<img\\>"
    assert json.dumps(str(card_of(run_of()))).count("\\n\\n\\n\\n") == 0, "no holes where a condition was false"
