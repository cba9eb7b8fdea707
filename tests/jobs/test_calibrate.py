"""`ctxner calibrate` on files: the file beside the weights, the threshold, the page, and what it refuses."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from ctxner.config import load_config
from ctxner.evaluation.calibration import auto_curve, expected_calibration_error, outcomes
from ctxner.files.contexts import Context, load_examples
from ctxner.files.jsonl import write_jsonl
from ctxner.model.calibration_file import Calibration
from ctxner.predictions import Prediction
from ctxner.predictor import Tagger
from ctxner.schema import Example, Sentence
from ctxner.schemes import tags_to_spans
from ctxner.texts import as_scored
from tests.closeness import assert_close
from tests.contexts_files import write_contexts

pytestmark = pytest.mark.numeric

WORDS = ["Paris", "Hilton", "sings", "in", "London", "so", "don't", "think", "Müller", "10:30", "loooong", "far"]


@pytest.fixture(scope="module")
def made(tagger, tmp_path_factory) -> Path:
    """A model, and dev sentences with contexts; gold is what one of its views finds, or nothing."""
    folder = tmp_path_factory.mktemp("calibrate")
    rng = random.Random(0)
    sentences = [Sentence(f"dev-{n}", tuple(rng.choices(WORDS, k=rng.randint(2, 9)))) for n in range(120)]
    examples = [Example(own, as_scored([" ".join(rng.choices(WORDS, k=12))])) for own in sentences]
    answers = [tagger.predict(examples, view=view) for view in ("plain", "context")]

    def sure(answer: Prediction) -> bool:
        return all(rng.random() < own.confidence for own in answer.entities)

    gold = [
        Sentence(own.id, own.words, tags=rng.choice((plain, context)).tags if sure(plain) else ("O",) * len(own.words))
        for own, plain, context in zip(sentences, *answers, strict=True)
    ]
    write_jsonl(gold, folder / "dev.jsonl")
    write_jsonl(sentences, folder / "test.jsonl")
    rows = {own.sentence.id: Context(own.sentence.words, "q", own.passages) for own in examples}
    write_contexts(rows, folder / "contexts" / "dev.parquet")
    tagger.save_pretrained(folder / "model")
    (folder / "config.yaml").write_text("data: {dev: dev.jsonl, test: test.jsonl, contexts: contexts}\n")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def examples_of(folder: Path) -> list[Example]:
    config = load_config(folder / "config.yaml", [])
    return load_examples(
        config.data.path("dev"), config.data.column_format(), contexts=config.data.contexts_path("dev")
    )


def test_the_threshold_gives_the_wanted_share_and_the_f1_that_it_says(folder, call):
    code, out, err = call("calibrate", "model", "-c", "config.yaml", "--json")
    assert (code, out.count("\n")) == (0, 1), err
    found = json.loads(out)
    assert found["wanted"] == {"share": 0.5}
    assert 0.5 <= found["auto"]["share"] < 0.53
    examples = examples_of(folder)
    gold = [tags_to_spans(example.sentence.tags) for example in examples]
    tagger = Tagger.from_pretrained("model")
    assert tagger.calibration.threshold == found["threshold"]
    auto = tagger.predict(examples, view="auto")
    assert sum(own.view == "context" for own in auto) / len(auto) == found["auto"]["share"]
    plain, context = (tagger.predict(examples, view=view) for view in ("plain", "context"))
    curve = auto_curve(
        gold, *([own.spans for own in view] for view in (plain, context)), [own.entropy for own in plain]
    )
    assert found["auto"]["f1"] in [pytest.approx(point.f1) for point in curve]
    raw = Tagger.from_pretrained("model", calibrated=False).predict(examples, view="plain")
    before = expected_calibration_error(*outcomes(gold, [own.entities for own in raw])[:2])
    assert found["views"]["plain"]["ece_before"] == pytest.approx(before, abs=1e-4)
    after = expected_calibration_error(*outcomes(gold, [own.entities for own in plain])[:2])
    assert after < before
    assert found["views"]["plain"]["ece_after"] < before


def test_calibrating_again_starts_from_raw_confidences_and_gives_the_same_file(folder, call):
    assert call("calibrate", "model", "-c", "config.yaml")[0] == 0
    first = json.loads((folder / "model/calibration.json").read_text())
    assert call("calibrate", "model", "-c", "config.yaml")[0] == 0
    assert_close(json.loads((folder / "model/calibration.json").read_text()), first, tolerance=1e-3)


def test_without_contexts_only_confidences_are_calibrated(folder, call):
    code, out, _ = call("calibrate", "model", "--set", "data.dev=dev.jsonl", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["threshold"], found["auto"], list(found["views"])) == (None, None, ["plain"])
    assert set(Calibration.load(folder / "model").confidence) == {"plain"}


def test_too_few_entities_leave_confidences_as_they_are_and_say_so(folder, call):
    few = examples_of(folder)[:3]
    write_jsonl([own.sentence for own in few], folder / "few.jsonl")
    code, _, err = call("calibrate", "model", "--set", "data.dev=few.jsonl")
    assert code == 0
    assert "too few right or wrong entities to fit: plain" in " ".join(err.split())
    assert Calibration.load(folder / "model").confidence == {}


def test_the_page_shows_the_curve_and_both_diagrams(folder, call):
    code, out, _ = call("calibrate", "model", "-c", "config.yaml", "--f1", "0.1", "--out", "made/page.html")
    assert code == 0
    assert "calibration error" in out
    page = (folder / "made/page.html").read_text(encoding="utf-8")
    assert page.count('<figure class="panel">') == 3
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert call("calibrate", "model", "--set", "data.dev=dev.jsonl", "--out", "made/plain.html")[0] == 0
    assert "F1 of auto" not in (folder / "made/plain.html").read_text(encoding="utf-8")


def test_a_dry_run_checks_and_writes_nothing(folder, call):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    code, out, _ = call("calibrate", "model", "-c", "config.yaml", "--f1", "0.5", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out).items() >= {"sentences": 120, "views": ["plain", "context"], "wanted": {"f1": 0.5}}.items()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent", "-c", "config.yaml"), "absent: no such folder"),
        (("contexts", "-c", "config.yaml"), "model 'contexts': no folder that ctxner saved"),
        (("model",), "split 'dev' has no file"),
        (("model", "-c", "config.yaml", "--split", "test", "--set", "data.contexts=null"), "no gold tags"),
        (("model", "-c", "config.yaml", "--share", "0.5", "--gain", "0.9"), "give one of --share, --f1 and --gain"),
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_what_a_user_can_mend_is_one_message(folder, call, arguments, message, dry):
    code, out, err = call("calibrate", *arguments, *dry)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_an_f1_out_of_reach_says_what_can_be_reached_and_writes_nothing(folder, call):
    code, out, err = call("calibrate", "model", "-c", "config.yaml", "--f1", "1.0")
    assert (code, out) == (2, "")
    assert "no threshold reaches F1 1.0000; the best is 0." in " ".join(err.split())
    assert not (folder / "model/calibration.json").exists()
