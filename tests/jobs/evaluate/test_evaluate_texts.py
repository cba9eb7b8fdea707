"""Scores of texts are those of what users get: the entities of `Tagger.tag`, compared by characters."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ctxner.config import load_config
from ctxner.files.contexts import Context
from ctxner.files.jsonl import write_jsonl
from ctxner.files.sentences import read_sentences
from ctxner.files.words import split_text
from ctxner.labels import gold_spans
from ctxner.predictor import Tagger
from ctxner.schema import Entity, Example, Sentence
from ctxner.texts import as_scored, sentences_of
from ctxner.training.loop import dev_scores
from jobs.evaluate import gold_examples
from tests.contexts_files import write_contexts
from tests.jobs.evaluate.samples import shown

pytestmark = pytest.mark.numeric

WORDS = [
    "Paris", "Hilton", "sings", "in", "London", "so", "don't", "@you", "#think", "Müller", "10:30", "loooong",
    "un-Paris-like", "日本", "👍🏽", "http://t.co/x", "U.S.", "Hilton's",
]  # fmt: skip
BREAKS = [". ", "! ", "\n", " ", " ", " ", "...", " – ", "\u200b", ", "]
PASSAGES = ["Paris Hilton sings in London.", "Müller is far."]
NUM_TEXTS = 300
Mentions = set[tuple[int, int, str]]


def noisy(rng: random.Random) -> str:
    return "".join(rng.choice(WORDS) + rng.choice(BREAKS) for _ in range(rng.randint(1, 40)))


def characters(entities: Sequence[Entity]) -> Mentions:
    return {(entity.start, entity.end, entity.type) for entity in entities}


@pytest.fixture(scope="module")
def raw() -> list[str]:
    rng = random.Random(0)
    return [noisy(rng) for _ in range(NUM_TEXTS)]


@pytest.fixture(scope="module")
def answers(tagger: Tagger, raw: list[str]) -> dict[str, list[Mentions]]:
    """What users get for the raw texts, in both views."""
    passages = {str(number): PASSAGES for number in range(len(raw))}
    return {
        "plain": [characters(entities) for entities in tagger.tag(raw)],
        "context": [characters(entities) for entities in tagger.tag(raw, passages=passages)],
    }


@pytest.fixture(scope="module")
def texts(raw: list[str], answers: dict[str, list[Mentions]]) -> list[tuple[str, Mentions]]:
    """The texts with gold: a part of what the tagger finds, and spans from anywhere to anywhere near."""
    rng = random.Random(1)
    rows = []
    for text, plain, context in zip(raw, answers["plain"], answers["context"], strict=True):
        gold = {mention for mention in sorted(plain) if rng.random() < 0.6}
        gold |= {mention for mention in sorted(context) if rng.random() < 0.3}
        inked = sorted({place for offsets in split_text(text) for word in offsets for place in range(*word)})
        for _ in range(rng.randint(0, 3)):
            start = rng.choice(inked)
            end = rng.choice([place for place in inked if start <= place < start + 12]) + 1
            gold.add((start, end, rng.choice(["person", "place"])))
        rows.append((text, gold))
    return rows


@pytest.fixture
def folder(texts: list[tuple[str, Mentions]], tagger: Tagger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a model, the texts, and the same passages for each of their sentences."""
    lines = [json.dumps({"id": f"t{n}", "text": text, "label": sorted(gold)}) for n, (text, gold) in enumerate(texts)]
    (tmp_path / "test.jsonl").write_text("\n".join(lines), encoding="utf-8")
    sentences = read_sentences(tmp_path / "test.jsonl").sentences
    rows = {own.id: Context(own.words, "q", as_scored(PASSAGES)) for own in sentences}
    write_contexts(rows, tmp_path / "contexts" / "test.parquet")
    (tmp_path / "config.yaml").write_text("data: {test: test.jsonl, contexts: contexts}\n")
    tagger.save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def counted(texts: list[tuple[str, Mentions]], predicted: Sequence[Mentions]) -> tuple[int, int, int]:
    """Correct, predicted and gold mentions, compared as character spans; nothing of ctxner decides here."""
    pairs = [(gold, answers) for (_, gold), answers in zip(texts, predicted, strict=True)]
    return tuple(map(sum, zip(*((len(g & a), len(a), len(g)) for g, a in pairs), strict=True)))  # type: ignore[return-value]


def scored(result: dict[str, Any], view: str) -> tuple[int, int, int]:
    micro = result["scores"][view]["micro"]
    return micro["num_correct"], micro["num_predicted"], micro["num_gold"]


def test_the_texts_are_hard(texts, folder):
    sentences = read_sentences("test.jsonl").sentences
    assert len(sentences) > 2 * NUM_TEXTS
    assert sum(len(own.beyond_tags) for own in sentences) > NUM_TEXTS / 2
    assert sum(len(own.tags) - own.tags.count("O") for own in sentences) > NUM_TEXTS


def test_each_views_f1_is_that_of_tagging_the_same_texts(texts, answers, folder, evaluated, tagger):
    threshold = 1.0
    result = evaluated("--threshold", threshold)
    assert 0.1 < result["auto"]["share"] < 0.9
    examples = [[Example(own, as_scored(PASSAGES)) for own in sentences_of(text, "x")] for text, _ in texts]
    auto = [
        set().union(*(characters(own.entities) for own in tagger.predict(sentences, view="auto", threshold=threshold)))
        for sentences in examples
    ]
    for view, predicted in {**answers, "auto": auto}.items():
        correct, num_predicted, num_gold = counted(texts, predicted)
        assert scored(result, view) == (correct, num_predicted, num_gold)
        assert result["scores"][view]["micro"]["f1"] == pytest.approx(2 * correct / (num_predicted + num_gold))
        detail = result["details"][view]
        assert detail["kinds"]["correct"] == correct
        assert sum(detail["kinds"].values()) - detail["kinds"]["spurious"] == num_gold
        assert sum(map(sum, detail["confusion"]["counts"][:-1])) == num_gold
        assert sum(bucket["num_gold"] for bucket in detail["buckets"]["words"]) == num_gold
        assert detail["surface"]["micro"]["num_gold"] > 0
        low, high = detail["interval"]
        assert low <= result["scores"][view]["micro"]["f1"] <= high
    assert result["unit"] == "document"
    for comparison in result["comparisons"]:
        assert comparison["f1_b"] == pytest.approx(result["scores"]["plain"]["micro"]["f1"])


def test_dev_scores_of_training_count_the_same(texts, answers, folder, tagger):
    examples = gold_examples(load_config(Path("config.yaml")), "test")
    scores = dev_scores(tagger.model, tagger.tokenizer, examples, torch.device("cpu"), 1)
    for view, predicted in answers.items():
        micro = scores[view].micro
        assert (micro.num_correct, micro.num_predicted, micro.num_gold) == counted(texts, predicted)


def test_the_same_scores_come_from_the_words_that_texts_were_converted_to(texts, folder, evaluated):
    wanted = evaluated()
    write_jsonl(read_sentences("test.jsonl").sentences, "words.jsonl")
    found = evaluated("--set", "data.test=words.jsonl")
    for name in ("scores", "unit", "num_units"):
        assert found[name] == wanted[name]


def test_calibration_counts_all_mentions(texts, folder, call):
    code, out, err = call("calibrate", "model", "-c", "config.yaml", "--split", "test", "--share", "0.5", "--json")
    assert code == 0, err
    assert json.loads(out)["mentions"] == sum(len(gold) for _, gold in texts)


def test_the_page_shows_a_mention_that_cuts_a_word_by_its_text(folder, evaluated, tagger):
    Path("cut.jsonl").write_text(json.dumps({"id": "a", "text": "un-Paris-like so", "label": [[3, 8, "place"]]}) + "\n")
    evaluated("--set", "data.test=cut.jsonl", "--set", "data.contexts=null", "--out", "cut.html")
    [sentence] = shown(Path("cut.html").read_text(encoding="utf-8"))["sentences"]
    assert [(mark["text"], mark["type"]) for mark in sentence["gold"]] == [("Paris", "place")]
    missed = [mark for mark in sentence["views"]["plain"] if mark["kind"] == "missed"]
    assert [(mark["text"], mark["type"]) for mark in missed] == [("Paris", "place")]
    assert not sentence["right"]


def test_a_document_of_55_lines_is_sentences_that_passages_fit_beside(tagger, tmp_path):
    lines = [f"Paris Hilton sings in London so far , line {number} ." for number in range(55)]
    text = "\n".join(lines)
    start = text.index("London")
    path = tmp_path / "document.jsonl"
    path.write_text(json.dumps({"id": "doc", "text": text, "entities": [[start, start + 6, "place"]]}))
    sentences = read_sentences(path).sentences
    assert [own.id for own in sentences] == [f"doc-{number}" for number in range(55)]
    assert [span.type for own in sentences for span in gold_spans(own)] == ["place"]
    answers = tagger.predict([Example(own, as_scored(PASSAGES)) for own in sentences], view="context")
    assert {answer.view for answer in answers} == {"context"}
    assert all(passage.dropped is None for answer in answers for passage in answer.passages)
    whole = Sentence("whole", tuple(word for own in sentences for word in own.words))
    answer = tagger.predict([Example(whole, as_scored(PASSAGES))], view="context")[0]
    assert answer.reason == "no_hits"  # what a text taken as one sentence got
