"""The page of a run draws its history, and what went wrong in it does not break the page."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ctxner.config import parse_config
from ctxner.evaluation.scores import Score, SpanCounts
from jobs.pages.training import PAGE_FILE, f1_panel, loss_panels, write_training_page


def entry_of(epoch: int, *, loss: float | None = None, types: tuple[str, ...] = ("person", "place")) -> dict[str, Any]:
    scores = {
        view: SpanCounts({type: Score(epoch, 9 - bonus, 10) for type in types}).scores()
        for view, bonus in (("plain", 0), ("context", 2))
    }
    value = 10.0 / epoch if loss is None else loss
    return {
        "epoch": epoch,
        "losses": {"loss": value, "nll": value / 2, "nll_ext": value / 4, "cl-kl": value / 4},
        "dev_f1": {view: own.f1 for view, own in scores.items()},
        "dev_scores": {view: own.to_dict() for view, own in scores.items()},
        "dev_sentences": 1052,
        "seconds": 30.0,
        "seconds_by_phase": {"data": 1.0, "forward": 9.0, "backward": 20.0, "evaluation": 10.0},
        "sentences_per_second": 12.3,
    }


def write_run(folder: Path, history: list[dict[str, Any]]) -> Path:
    """A run's folder whose best epoch is the last one; returns the model's folder."""
    model = folder / "model"
    model.mkdir(parents=True)
    own = {"files": {"train.conll": "12" * 32}, "sentences": 3394, "mentions": {"person": 7}}
    run = {
        "config": parse_config({"data": {"train": "train.conll"}}).model_dump(mode="json"),
        "config_digest": "c0ffee",
        "data": {"train": own},
        "versions": {"ctxner": "0.1.0"},
        "epoch": len(history),
    }
    (folder / "history.json").write_text(json.dumps(history))
    (model / "training.json").write_text(json.dumps(run))
    return model


class Text(HTMLParser):
    """What a reader sees, and how often each element occurs."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: dict[str, int] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1

    def handle_data(self, data: str) -> None:
        self.words += data.split()


def read(folder: Path, history: list[dict[str, Any]]) -> Text:
    return Text(write_training_page(folder, write_run(folder, history)).read_text(encoding="utf-8"))


def test_page_has_the_best_scores_a_chart_for_each_loss_and_one_for_f1(tmp_path: Path) -> None:
    found = read(tmp_path / "cl-kl", [entry_of(1), entry_of(2)])
    text = " ".join(found.words)
    assert found.tags["figure"] == 5
    assert "dev F1 of the best epoch, 2 of 2" in text
    assert f"{100 * 2 * 4 / (18 + 20):.1f}" in text
    assert f"{100 * 2 * 4 / (14 + 20):.1f}" in text
    assert "20.0 50%" in text, "backward is half of the seconds"
    assert "train.conll 121212121212" in text
    assert "of 1,052 sentences, 25% of an epoch's time" in text
    assert [path.name for path in (tmp_path / "cl-kl").glob("*.html*")] == [PAGE_FILE]


def test_f1_is_one_line_a_view_in_percent() -> None:
    [plain, context] = f1_panel([entry_of(1), entry_of(2)]).lines
    assert [dot.label for dot in plain[1]] == ["epoch 1: 10.53", "epoch 2: 21.05"]
    assert [dot.label for dot in context[1]] == ["epoch 1: 11.76", "epoch 2: 23.53"]


@pytest.mark.parametrize("view", ["plain", "context"])
def test_a_run_of_one_view_has_a_page_of_that_view(tmp_path: Path, view: str) -> None:
    """Before, the page of a run of the context view alone failed, and with it the end of the training."""
    history = [entry_of(1), entry_of(2)]
    for entry in history:
        for scores in (entry["dev_f1"], entry["dev_scores"]):
            del scores["context" if view == "plain" else "plain"]
    text = " ".join(read(tmp_path, history).words)
    assert ("Plain view" in text, "Context view" in text) == (view == "plain", view == "context")


def test_losses_come_in_the_pages_order_and_unknown_ones_last() -> None:
    history = [{**entry_of(1), "losses": {"new": 1.0, "cl-kl": 2.0, "loss": 3.0}}]
    assert [panel.title for panel in loss_panels(history)] == ["Total", "Cooperation, CL-KL", "new"]


def test_a_loss_that_is_not_finite_is_told_and_not_drawn(tmp_path: Path) -> None:
    history = [entry_of(1), entry_of(2, loss=math.inf)]
    assert [panel.num_left_out for panel in loss_panels(history)] == [1, 1, 1, 1]
    assert "1 values are not finite and not drawn." in " ".join(read(tmp_path, history).words)


@pytest.mark.parametrize("types", [(), ("<script>alert(1)</script>",)])
def test_a_page_of_any_types_is_sound(tmp_path: Path, types: tuple[str, ...]) -> None:
    found = read(tmp_path, [entry_of(1, types=types)])
    assert "script" not in found.tags
    assert found.tags["h1"] == 1
