"""Charts over named places and bins say what was counted; pages hold nothing but what they were given."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from ctxner.retrieval.measure.coverage import Tally
from ctxner.schema import Dropped
from jobs.pages.charts import BOTTOM, HEIGHT, TOP
from jobs.pages.page import DROPPED, clip, evenly, histogram, page_beside, percent, share_panel


def _labels(panel) -> list[list[str]]:
    return [[dot.label for dot in dots] for _, dots in panel.lines]


def test_a_histogram_counts_every_value_once_in_bins_of_a_round_width():
    panel = histogram("scores", "passages", [[0.0, 0.4, 9.99], [10.0, 19.9, 20.0, 75.0]])
    assert _labels(panel)[0][0] == "0 to 2: 2 passages"
    for labels, total in zip(_labels(panel), (3, 4), strict=True):
        assert sum(float(label.split(": ")[1].split()[0]) for label in labels) == total
    assert "20 to 22: 1 passages" in _labels(panel)[1]


def test_a_histogram_of_whole_numbers_names_them():
    panel = histogram("kept", "sentences", [[0, 2, 2, 3]], whole=True)
    assert _labels(panel) == [["0: 1 sentences", "1: 0 sentences", "2: 2 sentences", "3: 1 sentences"]]
    assert [text for _, text in panel.x_ticks] == ["0", "1", "2", "3"]
    heights = [dot.y for dot in panel.lines[0][1]]
    assert heights[1] == HEIGHT - BOTTOM
    assert heights[2] == TOP


@pytest.mark.parametrize("groups", [[], [[]], [[float("nan")], []]])
def test_a_histogram_of_nothing_is_none(groups):
    assert histogram("scores", "passages", groups) is None


@pytest.mark.parametrize("values", [[3.0], [-1.5, -1.5], [1e-9, 2e-9], [1e12, 0.0], [-0.3, 0.95]])
def test_a_histogram_of_any_range_has_few_bins_and_loses_nothing(values):
    [labels] = _labels(histogram("scores", "passages", [values]))
    assert len(labels) <= 42
    assert sum(float(label.split(": ")[1].split()[0]) for label in labels) == len(values)


def test_shares_are_drawn_in_percent_over_named_places_and_unknown_ones_left_out():
    panel = share_panel("found", ["1", "6", "32"], {0: [Tally(1, 4), Tally(0, 0), Tally(4, 4)], 2: [Tally(0, 1)] * 3})
    assert [text for _, text in panel.x_ticks] == ["1", "6", "32"]
    assert [line for line, _ in panel.lines] == [0, 2]
    assert _labels(panel)[0] == ["1: 25 percent", "32: 100 percent"]
    assert [dot.y for dot in panel.lines[1][1]] == [HEIGHT - BOTTOM] * 3
    assert share_panel("found", ["1"], {0: [Tally(0, 0)]}) is None


def test_even_steps_run_from_the_first_to_the_last():
    assert evenly(range(101), 5) == [0, 25, 50, 75, 100]
    assert evenly([1, 2], 5) == [1, 2]
    assert evenly([1, 2], 1) == [1]
    assert evenly([], 3) == []
    assert evenly([1], 0) == []


def test_percent_of_nothing_is_none_and_long_text_is_cut():
    assert (percent(Tally(0, 0)), percent(Tally(1, 3))) == ("none", "33.3")
    assert clip("x" * 1005, 1000) == "x" * 1000 + "… (+5 characters)"


def test_every_reason_to_drop_a_passage_is_told_in_words():
    assert set(DROPPED) == set(get_args(Dropped))


def test_pages_of_two_models_and_of_two_splits_are_different_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/a/model", "runs/b/model", "models/small", "models/large"):
        Path(folder).mkdir(parents=True)
    assert page_beside("runs/a/model", "model", "evaluation-test") == Path("runs/a/evaluation-test.html")
    assert page_beside("runs/a/model/", "model", "evaluation-dev") == Path("runs/a/evaluation-dev.html")
    assert page_beside("runs/b/model", "model", "evaluation-test") == Path("runs/b/evaluation-test.html")
    assert page_beside("models/small", "model", "evaluation-test") == Path("models/small-evaluation-test.html")
    assert page_beside("models/large", "model", "evaluation-test") == Path("models/large-evaluation-test.html")
    assert page_beside("org/name", "model", "evaluation-test") == Path("runs/org-name-evaluation-test.html")
    assert page_beside("../x/absent", "model", "evaluation-test") == Path("runs/x-absent-evaluation-test.html")
    monkeypatch.chdir("models/small")
    assert page_beside(".", "model", "evaluation-test") == tmp_path / "models/small-evaluation-test.html"


def test_a_page_about_a_folder_that_cannot_be_written_to_is_in_runs(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    page = page_beside(tmp_path / "model", "model", "evaluation-test")
    assert page == Path("runs", "-".join([*tmp_path.parts[1:], "evaluation-test.html"]))
