"""The page of `ctxner evaluate`: which sentences it shows, text that stays text, and pages that are not replaced."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from pathlib import Path

import pytest

from ctxner.files.contexts import Context
from ctxner.files.jsonl import write_jsonl
from ctxner.schema import Passage, ScoredPassage, Sentence
from jobs.pages import evaluation as evaluation_page
from tests.contexts_files import write_contexts
from tests.jobs.evaluate.samples import NUM_SENTENCES, shown, visible

pytestmark = pytest.mark.numeric
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


def test_the_page_holds_every_sentence_with_each_mentions_kind(evaluated):
    found = evaluated("--out", "made/page.html")
    assert found["report"] == "made/page.html"
    held = shown(Path("made/page.html").read_text(encoding="utf-8"))
    assert sorted(own["id"] for own in held["sentences"]) == sorted(f"test-{n}" for n in range(NUM_SENTENCES))
    for view in ("plain", "context"):
        kinds = Counter(mark["kind"] for own in held["sentences"] for mark in own["views"][view])
        assert kinds == {kind: count for kind, count in found["details"][view]["kinds"].items() if count}
    outcomes = Counter(own["outcome"] for own in held["sentences"])
    assert outcomes == {name: n for name, n in found["context_against_plain"]["sentences"].items() if n}


def test_the_page_keeps_the_sentences_that_differ_or_have_errors(evaluated, monkeypatch):
    monkeypatch.setattr(evaluation_page, "MAX_SENTENCES", 3)
    changed = {own["sentence_id"] for own in evaluated()["context_against_plain"]["changed"]}
    page = Path("evaluation-test.html").read_text(encoding="utf-8")
    kept = {own["id"] for own in shown(page)["sentences"]}
    assert len(kept) == 3
    assert kept <= changed
    assert f"{NUM_SENTENCES - 3} of {NUM_SENTENCES} sentences are left out" in page


def test_hostile_text_stays_text(folder, evaluated, call):
    words = (HOSTILE, "\x9b", "x")
    write_jsonl([Sentence("test-0", words, tags=("S-[/b]<b>", "O", "O"))], folder / "test.jsonl")
    passage = ScoredPassage(Passage(HOSTILE, HOSTILE, HOSTILE, HOSTILE), float("nan"), 1, float("inf"))
    write_contexts({"test-0": Context(words, "", (passage,))}, folder / "contexts/test.parquet")
    evaluated()
    page = (folder / "evaluation-test.html").read_text(encoding="utf-8")
    [sentence] = shown(page)["sentences"]
    assert sentence["words"] == list(words)
    [held] = sentence["passages"]
    assert [held[name] for name in ("id", "source", "title", "text")] == [HOSTILE] * 4
    assert (held["bm25"], held["rerank"]) == (None, None)
    assert "<img" not in page
    assert "[/b]&lt;b&gt;" in page
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page, re.S)
    assert len(scripts) == page.count("<script") == 2
    [allowed] = re.findall(r"script-src 'sha256-(.*?)'", page)
    assert base64.b64encode(hashlib.sha256(scripts[1].encode()).digest()).decode() == allowed
    assert "[/b]<b>" in call("evaluate", "model", "-c", "config.yaml")[1]
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write", scripts[1])


def test_a_page_of_other_data_threshold_or_model_to_compare_with_stays(evaluated, folder, call):
    (folder / "other.jsonl").write_bytes((folder / "test.jsonl").read_bytes())
    others = [(), ("--threshold", "1e9"), ("--against", "model"), ("--set", "data.test=other.jsonl")]
    pages = [evaluated(*arguments)["report"] for arguments in others]
    assert pages == ["evaluation-test.html", *(f"evaluation-test-{number}.html" for number in (2, 3, 4))]
    assert len({visible(page) for page in pages}) == 4
    before = (folder / "evaluation-test.html").read_bytes()
    code, out, err = call("evaluate", "model", "-c", "config.yaml", "--threshold", "1e9")
    assert (code, "evaluation-test-2.html" in out) == (0, True)
    assert "evaluation-test.html shows something else and stays; the page of this is evaluation-test-2.html" in (
        " ".join(err.split())
    )
    assert (folder / "evaluation-test.html").read_bytes() == before
    assert evaluated("--out", "evaluation-test.html", "--threshold", "1e9")["report"] == "evaluation-test.html"
    assert sorted(file.name for file in folder.glob("*.html")) == sorted(pages)
