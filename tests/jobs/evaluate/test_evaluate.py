"""`ctxner evaluate` on files: figures that add up, the view `auto`, comparisons, and tables for people."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from ctxner.evaluation.scores import Score
from ctxner.files.columns import column_lines
from ctxner.files.jsonl import write_jsonl
from ctxner.model.calibration_file import Calibration
from ctxner.schema import Sentence
from jobs.console import score_percent
from tests.jobs.evaluate.samples import NUM_SENTENCES, WORDS, shown, visible

pytestmark = pytest.mark.numeric


def test_all_figures_of_a_view_are_parts_of_its_scores(evaluated):
    found = evaluated("--threshold", "1e9")
    assert set(found["scores"]) == set(found["details"]) == {"plain", "context", "auto"}
    for view, scores in found["scores"].items():
        micro, own = scores["micro"], found["details"][view]
        counts = {name: micro[name] for name in ("num_correct", "num_predicted", "num_gold")}
        for parts in (own["seen"].values(), *own["buckets"].values()):
            assert {name: sum(part[name] for part in parts) for name in counts} == counts
        assert set(own["buckets"]) == {"words", "passages", "rerank"}
        kinds = own["kinds"]
        assert kinds == {kind: sum(by[kind] for by in own["kinds_by_type"].values()) for kind in kinds}
        assert kinds["correct"] == micro["num_correct"]
        assert sum(kinds.values()) - kinds["missed"] == micro["num_predicted"]
        assert sum(map(sum, own["confusion"]["counts"][:-1])) == micro["num_gold"]
        assert sum(bin["num"] for bin in own["calibration"]["bins"]) == micro["num_predicted"]
        assert own["interval"][0] <= micro["f1"] <= own["interval"][1]
    changes = found["context_against_plain"]
    assert sum(changes["sentences"].values()) == found["sentences"] == NUM_SENTENCES
    correct = [found["scores"][view]["micro"]["num_correct"] for view in ("plain", "context")]
    assert correct[1] - correct[0] == changes["mentions"]["found"] - changes["mentions"]["lost"]


def test_auto_looks_up_the_sentences_above_the_threshold(evaluated, examples, tagger):
    entropies = {own.sentence_id: own.entropy for own in tagger.predict(examples, view="plain")}
    ordered = sorted(entropies.values())
    threshold = (ordered[-11] + ordered[-10]) / 2
    found = evaluated("--threshold", threshold)
    assert found["auto"] == {"threshold": threshold, "looked_up": 10, "share": 10 / NUM_SENTENCES}
    sentences = shown(Path("evaluation-test.html").read_text(encoding="utf-8"))["sentences"]
    looked_up = {own["id"] for own in sentences if own["looked_up"]}
    assert looked_up == {name for name, entropy in entropies.items() if entropy > threshold}
    everything, nothing = evaluated("--threshold", "-1"), evaluated("--threshold", "1e9")
    assert everything["scores"]["auto"] == everything["scores"]["context"]
    assert nothing["scores"]["auto"] == nothing["scores"]["plain"] != nothing["scores"]["context"]
    assert (everything["auto"]["share"], nothing["auto"]["share"]) == (1.0, 0.0)


def test_the_threshold_is_the_calibrated_models_unless_one_is_given(evaluated, folder, call):
    assert "ctxner calibrate" in evaluated()["auto"]["left_out"]
    shutil.copytree("model", folder / "calibrated")
    Calibration(threshold=-1.0).save(folder / "calibrated")
    found = json.loads(call("evaluate", "calibrated", "-c", "config.yaml", "--json")[1])
    assert (found["auto"]["threshold"], found["auto"]["share"]) == (-1.0, 1.0)
    found = json.loads(call("evaluate", "calibrated", "-c", "config.yaml", "--threshold", "1e9", "--json")[1])
    assert (found["auto"]["threshold"], found["auto"]["share"]) == (1e9, 0.0)


def test_views_are_compared_in_pairs_and_with_another_model(evaluated):
    found = evaluated("--against", "model", "--threshold", "1e9")
    pairs = {(own["first"], own["second"]): own for own in found["comparisons"]}
    assert set(pairs) == {
        ("context", "plain"),
        ("auto", "plain"),
        *((view, f"{view} of model") for view in ("plain", "context", "auto")),
        ("context", "plain of model"),
    }
    own = pairs["context", "plain"]
    f1 = {view: scores["micro"]["f1"] for view, scores in found["scores"].items()}
    assert (own["f1_a"], own["f1_b"]) == pytest.approx((f1["context"], f1["plain"]))
    assert own["interval"][0] <= own["difference"] <= own["interval"][1]
    across = pairs["context", "plain of model"]
    assert (across["difference"], across["p_value"]) == (own["difference"], own["p_value"])
    same = pairs["context", "context of model"]
    assert (same["difference"], same["p_value"], same["interval"]) == (0.0, 1.0, [0.0, 0.0])


@pytest.mark.parametrize("form", ["jsonl", "conll"])
def test_figures_are_by_document_where_the_data_name_documents(evaluated, examples, form):
    """Eight documents of five sentences, in JSON lines with ids or in columns with `-DOCSTART-`."""
    by_sentence = evaluated("--against", "model")
    if form == "jsonl":
        rows = [json.loads(line) for line in Path("test.jsonl").read_text(encoding="utf-8").splitlines()]
        lines = [json.dumps(row | {"document_id": number // 5}) for number, row in enumerate(rows)]
    else:
        lines = ["" if number % 5 else "-DOCSTART-\tO" for number in range(NUM_SENTENCES)]
        lines = [
            line
            for mark, example in zip(lines, examples, strict=True)
            for line in (mark, *column_lines(example.sentence))
        ]
    Path(f"test.{form}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = evaluated("--against", "model", "--set", f"data.test=test.{form}")
    shown_with = [found, *found["details"].values(), *found["comparisons"]]
    assert {(part["unit"], part["num_units"]) for part in shown_with} == {("document", 8)}
    assert found["unit_reason"] is None
    assert found["scores"] == by_sentence["scores"]
    pairs = [(part["details"]["plain"]["interval"], part["comparisons"][0]["p_value"]) for part in (found, by_sentence)]
    assert all(by_document != single for by_document, single in zip(*pairs, strict=True))
    text = visible(found["report"])
    for part in (
        "The interval is of 8 documents drawn with replacement.",
        "95% interval, by document",
        "p, by document",
        "outputs of each document are exchanged at random (8 documents;",
    ):
        assert part in text
    assert "by sentence" not in text


def test_figures_are_by_sentence_otherwise_and_say_why(evaluated, folder, call):
    found = evaluated()
    shown_with = [found, *found["details"].values(), *found["comparisons"]]
    assert {(part["unit"], part["num_units"]) for part in shown_with} == {("sentence", NUM_SENTENCES)}
    assert found["unit_reason"] == "the data name no documents"
    text = visible("evaluation-test.html")
    assert "40 sentences drawn with replacement, since the data name no documents." in text
    assert "by document" not in text
    out = " ".join(call("evaluate", "model", "-c", "config.yaml")[1].split())
    assert "by sentence, 40 sentences, since the data name no documents" in out
    assert re.search(r"p = \d\.\d+, by sentence", out)
    first, *rest = (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()
    lines = [first, *(json.dumps(json.loads(line) | {"doc_id": number % 2}) for number, line in enumerate(rest))]
    (folder / "test.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = evaluated()
    assert (found["unit"], found["unit_reason"]) == ("sentence", "1 of 40 sentences name no document")


def test_without_contexts_there_is_one_view_and_a_page(folder, call):
    code, out, err = call("evaluate", "model", "--set", "data.test=test.jsonl", "--threshold", "1", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert set(found["scores"]) == {"plain"}
    assert found["comparisons"] == []
    assert found["context_against_plain"] is None
    assert "no data.contexts" in found["auto"]["left_out"]
    assert "seen" not in found["details"]["plain"]
    page = (folder / "evaluation-test.html").read_text(encoding="utf-8")
    assert {own["outcome"] for own in shown(page)["sentences"]} == {None}
    assert 'name="outcome"' not in page


def test_people_get_tables_and_where_the_page_is(folder, call):
    code, out, _ = call("evaluate", "model", "-c", "config.yaml", "--threshold", "1e9")
    assert code == 0
    for part in ("95%", "surface", "auto", "wrong boundary", "unseen", "context against plain", "p = "):
        assert part in " ".join(out.split())
    assert "evaluation-test.html" in out


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_another_model_that_is_not_there_is_one_message(folder, call, dry):
    code, out, err = call("evaluate", "model", "-c", "config.yaml", "--against", "absent", *dry)
    assert (code, out) == (2, "")
    assert "model 'absent': no folder that ctxner saved" in err
    assert not list(folder.rglob("*.html"))


def test_shares_of_nothing_are_none_in_tables_and_on_the_page(folder, call):
    """No gold mention in the split, so no recall; no type that training has seen."""
    write_jsonl([Sentence(f"test-{n}", (word,), tags=("O",)) for n, word in enumerate(WORDS)], folder / "test.jsonl")
    arguments = ("evaluate", "model", "--set", "data.test=test.jsonl", "--set", "data.train=train.jsonl")
    code, out, err = call(*arguments)
    assert code == 0, err
    (plain,) = [line for line in out.splitlines() if line.startswith("plain")]
    assert plain.split()[2] == "none"  # recall
    rows = [line for line in out.splitlines() if "recall, " in line]
    assert [row.split()[-1] for row in rows] == ["none", "none"]
    assert " R none" in visible("evaluation-test.html")
    assert "R 0.0" not in visible("evaluation-test.html")
    found = json.loads(call(*arguments, "--json")[1])
    assert found["scores"]["plain"]["micro"]["recall"] == 0  # JSON keeps numbers


def test_a_ratio_without_predictions_or_gold_is_none():
    nothing, missed, wrong = Score(0, 0, 0).to_dict(), Score(0, 0, 3).to_dict(), Score(0, 2, 0).to_dict()
    names = ("precision", "recall", "f1")
    assert [score_percent(nothing, name) for name in names] == ["none"] * 3
    assert [score_percent(missed, name) for name in names] == ["none", "0.0", "0.0"]
    assert [score_percent(wrong, name) for name in names] == ["0.0", "none", "0.0"]
    assert [score_percent(Score(1, 2, 4).to_dict(), name) for name in names] == ["50.0", "25.0", "33.3"]
