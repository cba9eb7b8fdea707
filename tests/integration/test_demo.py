"""What `ctxner demo` promises, measured on its own output; minutes for each seed."""

from __future__ import annotations

import json
import random
import re
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.ray]

SEEDS = (0, 1, 2)
SPLITS = ("train", "dev", "test")
POINTS = 0.01  # of F1
CLUTTER = re.compile(
    "Traceback|Token authentication|Progress bars|PreemptionWatcher|Execution plan|Starting execution"
    "|startup concurrency|Requesting resources|Setting up process group|Reporting training result"
    r"|constructor arguments|[0-9a-f]{40}|pid=|Loading weights|it/s"
)


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of a demo for each seed."""
    return [_demo(seed, tmp_path_factory.mktemp("demo") / "out") for seed in SEEDS]


def _demo(seed: int, out: Path) -> Path:
    command = [sys.executable, "-m", "jobs", "demo", "--json", "--seed", str(seed), "--out", str(out)]
    command += ["--mode", "plain", "--mode", "cl-kl"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stdout.count("\n") == 1, "exactly one JSON object on stdout"
    found = json.loads(ended.stdout)
    assert Path(found["report"]).stat().st_size > 10_000
    assert found["scores"] == _scores(out)
    return out


def _scores(out: Path) -> dict[str, dict[str, float]]:
    return json.loads((out / "result.json").read_text())["scores"]


def test_context_view_beats_the_plain_model_by_twenty_points_on_every_seed(demos: list[Path]) -> None:
    for out in demos:
        scores = _scores(out)
        assert scores["cl-kl"]["context"] - scores["plain"]["plain"] >= 20 * POINTS, scores


def test_plain_view_learns_from_cooperation_on_average(demos: list[Path]) -> None:
    by_mode = {mode: [_scores(out)[mode]["plain"] for out in demos] for mode in ("plain", "cl-kl")}
    assert statistics.mean(by_mode["cl-kl"]) >= statistics.mean(by_mode["plain"]), by_mode


@pytest.mark.parametrize("place", range(len(SEEDS)))
def test_passages_of_other_sentences_take_the_context_view_down_to_the_plain_one(demos: list[Path], place: int) -> None:
    """The paper's control: it is what the passages say that helps, not that there are any."""
    from ctxner.config import load_config
    from ctxner.evaluation.scores import count_spans
    from ctxner.predictor import Tagger
    from ctxner.schemes import tags_to_spans
    from ctxner.training.data.training_set import load_split

    out = demos[place]
    files = [f"data.{split}={out / 'world' / split}.conll" for split in SPLITS]
    test = load_split(load_config(None, [*files, f"data.contexts={out / 'contexts'}"]).data, "test")
    tagger = Tagger.from_pretrained(out / "cl-kl" / "model")
    gold = [tags_to_spans(example.sentence.tags or ()) for example in test]

    def f1(examples: list, view: str) -> float:
        return count_spans(gold, [own.spans for own in tagger.predict(examples, view=view)]).scores().f1

    plain, context = f1(test, "plain"), f1(test, "context")
    order = random.Random(0).sample(range(len(test)), len(test))
    giver = dict(zip(order, order[1:] + order[:1], strict=True))
    shuffled = f1([replace(example, passages=test[giver[i]].passages) for i, example in enumerate(test)], "context")
    assert context - shuffled >= 15 * POINTS, (plain, context, shuffled)
    assert shuffled <= plain + 5 * POINTS, (plain, context, shuffled)


def test_demo_in_mode_cl_l2_shows_people_one_line_per_stage_its_result_and_what_to_do_next(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "jobs", "demo", "--mode", "cl-l2", "--out", str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert str(out / "report.html") in ended.stdout
    assert f"ctxner tag-text {out / 'cl-l2' / 'model'} " in ended.stdout
    assert f"ctxner serve --model {out / 'cl-l2' / 'model'} --index {out / 'index'}" in ended.stdout
    assert not CLUTTER.findall(ended.stderr)
    lines = (ended.stderr + ended.stdout).splitlines()
    assert len(lines) <= 28, lines
    for stage in ("indexing passages", "staging sentences", "retrieving for sentences", "training cl-l2"):
        assert sum(line.startswith(stage) for line in lines) == 1, lines
    scores = _scores(out)["cl-l2"]
    assert scores["context"] - scores["plain"] >= 10 * POINTS, scores


def test_the_model_knows_which_sentences_are_worth_looking_up(demos: list[Path]) -> None:
    from ctxner.model.calibration_file import Calibration

    for out in demos:
        calibration = Calibration.load(out / "cl-kl" / "model")
        assert calibration is not None
        assert calibration.threshold is not None
        assert calibration.found["auto"]["share"] >= 0.5
        assert (out / "cl-kl-calibration.html").is_file()
