"""Data that would train, but not as meant, is told before any worker starts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from ctxner.config import Config, parse_config
from ctxner.labels import LabelSet
from ctxner.retrieval.index.build import build_index
from ctxner.retrieval.index.versions import read_manifest
from ctxner.schema import Example, Passage, ScoredPassage, Sentence
from ctxner.training.data.warnings import check_passages, doubts

LABELS = LabelSet(("person",))
PASSAGE = ScoredPassage(Passage("p", "Ann", "Ann sings."), 1.0, 1)
TRAIN = [Example(Sentence("t", ("Ann", "sings"), ("S-person", "O")), (PASSAGE,))]


def config_of(**sections: dict) -> Config:
    return parse_config(sections)


def test_nothing_is_said_of_sound_data() -> None:
    check_passages(config_of(), TRAIN)
    assert doubts(config_of(), TRAIN, TRAIN, LABELS) == []


@pytest.mark.parametrize("mode", ["context", "cl-l2", "cl-kl"])
def test_a_context_view_without_any_passage_is_refused(mode: str) -> None:
    copy = dataclasses.replace(PASSAGE, dropped="near duplicate")
    for passages in ((), (copy,)):
        with pytest.raises(ValueError, match=rf"loss\.mode={mode} .* none of 1 training sentences has any .*retrieve"):
            check_passages(config_of(loss={"mode": mode}), [Example(TRAIN[0].sentence, passages)])
    check_passages(config_of(loss={"mode": "plain"}), [Example(TRAIN[0].sentence)])


def test_types_that_only_dev_has_are_named_with_their_mentions() -> None:
    dev = [*TRAIN, Example(Sentence("d", ("Acme", "and", "Ajax"), ("S-group", "O", "S-group")))]
    assert doubts(config_of(), TRAIN, dev, LABELS) == [
        "dev has types that no training sentence has: group (2 mentions); they count as missed"
    ]


def test_a_dev_split_without_mentions_chooses_nothing() -> None:
    [found] = doubts(config_of(), TRAIN, [Example(Sentence("d", ("so", "what"), ("O", "O")))], LABELS)
    assert "no mention" in found


def test_more_workers_than_sentences_are_told() -> None:
    [found] = doubts(config_of(run={"workers": 3}), TRAIN, TRAIN, LABELS)
    assert "run.workers=3, but there are 1 training sentences" in found


def test_passages_of_another_index_are_told(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text(json.dumps({"id": "a", "title": "Ann", "text": "Ann sings."}))
    index_folder = tmp_path / "index"
    build_index([tmp_path / "c.jsonl"], index_folder)
    now = dataclasses.asdict(read_manifest(index_folder))
    config = config_of(data={"contexts": str(tmp_path)}, index={"folder": str(index_folder)})

    def told(**changed: dict) -> list[str]:
        rows = {split: {"index": {**now, **changed.get(split, {})}, "retrieval": {}} for split in ("train", "dev")}
        (tmp_path / "_SUCCESS").write_text(json.dumps(rows))
        return doubts(config, TRAIN, TRAIN, LABELS)

    assert told() == []
    other = {"version": "v000007", "num_documents": 5, "corpus_sha256": "0" * 64}
    [found] = told(train=other, dev=other)
    assert "passages of train, dev come from another index" in found
    assert f"v000007 of 5 passages, now {now['version']} of {now['num_documents']}" in found
    both = told(train=other)
    assert "passages of train come from v000007 of 5 passages and dev come from" in both[0]
