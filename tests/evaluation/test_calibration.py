"""Calibration against naive loops, a numeric optimum and brute force; its file is bound to the weights."""

from __future__ import annotations

import json
import math
import os
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from ctxner.evaluation.calibration import (
    AutoPoint,
    PlattScaling,
    auto_curve,
    choose_threshold,
    cross_fitted,
    expected_calibration_error,
    fit_platt,
    outcomes,
    reliability_bins,
)
from ctxner.evaluation.scores import score_spans
from ctxner.model.calibration_file import Calibration
from ctxner.schema import Entity, Span

pytestmark = pytest.mark.numeric

OUTCOMES = st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=60)
SPANS = st.sets(st.builds(Span, st.integers(0, 1), st.just(2), st.sampled_from("xy")), max_size=3).map(tuple)
SENTENCES = st.lists(
    st.tuples(SPANS, SPANS, SPANS, st.sampled_from([0.0, 0.5, 1.0, 1.0 + 2**-52]) | st.floats(0, 9)),
    min_size=1,
    max_size=12,
)


def drawn(num: int, seed: int, slope: float = 0.5, intercept: float = -0.6) -> tuple[list[float], list[bool]]:
    """Overconfident entities: right with the probability that a scaling gives."""
    rng = random.Random(seed)
    confidences = [rng.betavariate(4, 1) for _ in range(num)]
    scaling = PlattScaling(slope, intercept)
    return confidences, [rng.random() < scaling(p) for p in confidences]


@settings(max_examples=200, deadline=None)
@given(pairs=OUTCOMES, num_bins=st.integers(1, 20))
def test_the_error_is_that_of_a_naive_loop(pairs, num_bins):
    total = 0.0
    for place in range(num_bins):
        own = [pair for pair in pairs if min(int(pair[0] * num_bins), num_bins - 1) == place]
        if own:
            total += abs(sum(p for p, _ in own) - sum(right for _, right in own))
    wanted = total / len(pairs) if pairs else 0.0
    found = expected_calibration_error([p for p, _ in pairs], [right for _, right in pairs], num_bins=num_bins)
    assert found == pytest.approx(wanted, abs=1e-12)


def test_bins_hold_every_entity_once_and_empty_ones_are_left_out():
    bins = reliability_bins(
        [0.0, 0.05, 0.1, 0.95, 1.0, 1.0 + 1e-7], [False, True, True, True, False, True], num_bins=10
    )
    assert [(own.low, own.high, own.num) for own in bins] == [(0.0, 0.1, 2), (0.1, 0.2, 1), (0.9, 1.0, 3)]
    assert [own.accuracy for own in bins] == pytest.approx([0.5, 1.0, 2 / 3])
    assert bins[0].confidence == pytest.approx(0.025)
    assert expected_calibration_error([], []) == 0.0


@pytest.mark.parametrize(
    ("confidences", "correct", "num_bins", "message"),
    [
        ([0.5], [True, False], 15, "1 confidences but 2 outcomes"),
        ([1.5], [True], 15, "outside"),
        ([math.nan], [True], 15, "not a number"),
        ([0.5], [True], 0, "num_bins is 0"),
    ],
)
def test_confidences_that_are_none_are_refused(confidences, correct, num_bins, message):
    with pytest.raises(ValueError, match=message):
        reliability_bins(confidences, correct, num_bins=num_bins)


@pytest.mark.parametrize("seed", range(5))
def test_platt_scaling_is_the_numeric_optimum_with_smoothed_targets(seed):
    confidences, correct = drawn(200, seed)
    p = np.clip(confidences, 1e-6, 1 - 1e-6)
    x, right, wrong = np.log(p / (1 - p)), sum(correct), len(correct) - sum(correct)
    target = np.where(correct, (right + 1) / (right + 2), 1 / (wrong + 2))

    def loss(weights):
        z = weights[0] * x + weights[1]
        return (np.logaddexp(0, z) - target * z).sum()

    wanted = minimize(loss, [1.0, 0.0], tol=1e-10).x
    found = fit_platt(confidences, correct)
    assert (found.slope, found.intercept) == pytest.approx(tuple(wanted), abs=1e-4)


def test_platt_scaling_finds_the_scaling_that_made_the_outcomes():
    found = fit_platt(*drawn(20_000, 0))
    assert (found.slope, found.intercept) == pytest.approx((0.5, -0.6), abs=0.06)


@settings(max_examples=200, deadline=None)
@given(p=st.floats(0, 1), q=st.floats(0, 1), slope=st.floats(1e-3, 1e3), intercept=st.floats(-1e3, 1e3))
def test_a_scaling_keeps_the_order_and_stays_a_probability(p, q, slope, intercept):
    scaling = PlattScaling(slope, intercept)
    low, high = scaling(min(p, q)), scaling(max(p, q))
    assert 0 <= low <= high <= 1
    assert PlattScaling(1, 0)(p) == pytest.approx(min(max(p, 1e-6), 1 - 1e-6))


@pytest.mark.parametrize(
    ("confidences", "correct"),
    [
        ([], []),
        ([0.5, 0.9] * 30, [True] * 60),
        ([0.5, 0.9] * 30, [True] * 51 + [False] * 9),
        ([0.7] * 60, [True, False] * 30),
        ([0.9, 0.2] * 30, [False, True] * 30),
    ],
    ids=["none", "all right", "nine wrong", "one confidence", "the wrong way round"],
)
def test_nothing_is_fitted_to_too_little(confidences, correct):
    assert fit_platt(confidences, correct) is None


def test_cross_fitting_scales_each_fold_by_the_others():
    confidences, correct = drawn(300, 3)
    groups = [index // 3 for index in range(300)]
    found = cross_fitted(confidences, correct, groups)
    for fold in range(5):
        others = [index for index in range(300) if groups[index] % 5 != fold]
        scaling = fit_platt([confidences[index] for index in others], [correct[index] for index in others])
        own = [index for index in range(300) if groups[index] % 5 == fold]
        assert [found[index] for index in own] == [scaling(confidences[index]) for index in own]
    assert expected_calibration_error(found, correct) < 0.6 * expected_calibration_error(confidences, correct)
    assert cross_fitted([0.5, 0.6], [True, False], [0, 1]) == [0.5, 0.6]


def test_an_entity_is_right_when_its_span_and_type_are():
    entities = [Entity("a", "x", 0, 1, 0, 1, 0.9), Entity("b", "y", 2, 3, 1, 2, 0.8)]
    found = outcomes([[Span(0, 1, "x"), Span(1, 2, "x")], []], [entities, entities[:1]])
    assert found == ([0.9, 0.8, 0.9], [True, False, False], [0, 0, 1])
    with pytest.raises(ValueError, match="1 gold sentences but 2"):
        outcomes([[]], [[], []])


@settings(max_examples=300, deadline=None)
@given(sentences=SENTENCES)
def test_the_curve_is_what_each_threshold_gives(sentences):
    gold, plain, context, entropies = map(list, zip(*sentences, strict=True))
    curve = auto_curve(gold, plain, context, entropies)
    assert len(curve) == len(set(entropies)) + 1
    assert (curve[0].share, curve[-1].share) == (0.0, 1.0)
    for point in curve:
        up = [entropy > point.threshold for entropy in entropies]
        answers = [c if looked_up else p for looked_up, p, c in zip(up, plain, context, strict=True)]
        assert point.share == pytest.approx(sum(up) / len(up))
        assert point.f1 == pytest.approx(score_spans(gold, answers).f1)
    assert sorted(curve, key=lambda point: point.share) == curve


def test_the_threshold_is_that_of_the_smallest_share_that_reaches_what_is_wanted():
    gold = [[Span(0, 1, "x")]] * 10
    plain = [gold[0]] * 5 + [[]] * 5
    curve = auto_curve(gold, plain, gold, [0.1 * number for number in range(10)])
    assert [round(point.f1, 4) for point in curve] == [0.6667, 0.75, 0.8235, 0.8889, 0.9474] + [1.0] * 6
    assert choose_threshold(curve, share=0.25).share == 0.3
    assert choose_threshold(curve, share=0.0).share == 0.0
    assert choose_threshold(curve, share=1.0).threshold < 0
    assert choose_threshold(curve, f1=0.85).share == 0.3
    assert choose_threshold(curve, gain=0.9).share == 0.5
    assert choose_threshold(curve, gain=0.5).share == 0.3


@pytest.mark.parametrize(
    ("entropies", "share", "chosen"),
    [
        ([3.0, 2.0, 0.0, 0.0, 0.0], 0.5, 0.4),  # 0, 0.2, 0.4 and 1 can be had
        ([3.0, 2.0, 0.0, 0.0, 0.0], 0.7, 1.0),  # equally near to both: the larger
        ([3.0, 2.0, 0.0, 0.0, 0.0], 0.69, 0.4),
        ([1.0] * 5, 0.4, 0.0),
        ([1.0] * 5, 0.5, 1.0),
        ([4.0, 3.0, 2.0, 1.0, 0.0], 0.3, 0.4),
        ([4.0, 3.0, 2.0, 1.0, 0.0], 0.29, 0.2),
    ],
)
def test_with_ties_the_share_nearest_to_the_wanted_one_is_chosen(entropies, share, chosen):
    nothing = [[]] * len(entropies)
    assert choose_threshold(auto_curve(nothing, nothing, nothing, entropies), share=share).share == chosen


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({}, "exactly one of share, f1 and gain, found none"),
        ({"share": 0.5, "gain": 0.9}, "found share, gain"),
        ({"share": 1.5}, "share is 1.5; wanted a number from 0 to 1"),
        ({"f1": 0.9}, "no threshold reaches F1 0.9000; the best is 0.6667, with 50% of the sentences"),
        ({"gain": 0.9}, "not above the plain view's"),
    ],
)
def test_what_cannot_be_reached_is_said(wanted, message):
    curve = [AutoPoint(2.0, 0.0, 0.6), AutoPoint(1.0, 0.5, 2 / 3), AutoPoint(-1.0, 1.0, 0.6)]
    with pytest.raises(ValueError, match=message):
        choose_threshold(curve, **wanted)


@pytest.mark.parametrize("entropies", [[], [1.0], [1.0, math.nan], [1.0, -0.1], [math.inf, 1.0]])
def test_entropies_that_are_none_are_refused(entropies):
    with pytest.raises(ValueError, match="entropies of 2 sentences"):
        auto_curve([[], []], [[], []], [[], []], entropies)


CALIBRATION = Calibration(
    {"plain": PlattScaling(0.7, -0.2), "context": PlattScaling(1.25, 0.0)}, 0.75, {"split": "dev", "curve": [[1, 2]]}
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def test_a_calibration_comes_back_from_its_file(folder):
    assert Calibration.load(folder) is None
    path = CALIBRATION.save(folder)
    assert path == folder / "calibration.json"
    assert Calibration.load(folder) == CALIBRATION
    assert sorted(file.name for file in folder.iterdir()) == ["calibration.json", "model.safetensors"]
    Calibration().save(folder)
    assert Calibration.load(folder) == Calibration()


def test_a_calibration_for_other_weights_is_refused(folder):
    CALIBRATION.save(folder)
    (folder / "model.safetensors").write_bytes(b"others")
    with pytest.raises(ValueError, match=r"calibration.json: fitted for weights .* run `ctxner calibrate` again"):
        Calibration.load(folder)


def test_weights_in_several_files_are_told_apart_too(folder):
    (folder / "model-00002.safetensors").write_bytes(b"more")
    CALIBRATION.save(folder)
    assert Calibration.load(folder) == CALIBRATION
    (folder / "model-00002.safetensors").write_bytes(b"less")
    with pytest.raises(ValueError, match="fitted for weights"):
        Calibration.load(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: [],
        lambda tree: 3,
        lambda tree: {**tree, "more": 1},
        lambda tree: {key: tree[key] for key in ("confidence", "threshold")},
        lambda tree: {**tree, "threshold": "high"},
        lambda tree: {**tree, "threshold": True},
        lambda tree: {**tree, "threshold": math.nan},
        lambda tree: {**tree, "threshold": 10**400},
        lambda tree: {**tree, "found": []},
        lambda tree: {**tree, "weights_sha256": None},
        lambda tree: {**tree, "confidence": [1]},
        lambda tree: {**tree, "confidence": {"side": {"slope": 1, "intercept": 0}}},
        lambda tree: {**tree, "confidence": {"plain": {"slope": 0, "intercept": 0}}},
        lambda tree: {**tree, "confidence": {"plain": {"slope": 1}}},
        lambda tree: {**tree, "confidence": {"plain": 3}},
        lambda tree: {**tree, "found": {"text": "x" * 2**20}},
    ],
)
def test_a_damaged_calibration_is_one_message(folder, change):
    path = CALIBRATION.save(folder)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=r"calibration.json: not what `ctxner calibrate` writes .*; run it again"):
        Calibration.load(folder)


@pytest.mark.parametrize("text", ["", "{", "\x00", "[" * 100_000])
def test_a_calibration_that_is_no_json_is_one_message(folder, text):
    (folder / "calibration.json").write_text(text)
    with pytest.raises(ValueError, match="not what `ctxner calibrate` writes"):
        Calibration.load(folder)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_what_is_no_file_in_a_calibrations_place_is_refused_at_once(folder, make):
    """Before: a pipe kept its reader for ever."""
    make(folder / "calibration.json")
    with pytest.raises(ValueError, match=r"calibration.json: not what .*not a regular file"):
        Calibration.load(folder)


def test_a_folder_without_weights_gets_no_calibration(tmp_path):
    with pytest.raises(ValueError, match=r"no model\.safetensors"):
        CALIBRATION.save(tmp_path)
