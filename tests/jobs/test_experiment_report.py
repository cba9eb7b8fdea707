"""Reports: figures against other computations, documents with marked tables, and the same bytes each time."""

from __future__ import annotations

import csv
import io
import itertools
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from ctxner.evaluation.significance import compare_counts, interval_of_counts, paired_significance, sign_flip_p
from ctxner.schema import Span
from jobs.experiment import report as job
from jobs.experiment.keys import digest, settings_of
from jobs.experiment.published import Published
from jobs.experiment.results import write_result
from jobs.experiment.study import cells, read_study
from tests.jobs.experiment_results import result_of

ROOT = Path(__file__).parents[2]
STUDY = {
    "title": "A & B",
    "base": "demo",
    "grid": {"mode": ["plain", "cl-kl"], "seed": [0, 1, 2]},
    "comparisons": [
        {
            "title": "context view against the plain model",
            "first": {"cell": {"mode": "cl-kl"}, "view": "context"},
            "second": {"cell": {"mode": "plain"}, "view": "plain"},
        }
    ],
}
GOLD = np.random.default_rng(0).poisson(2, 300)


def _counts(seed: int, share: float) -> np.ndarray:
    chance = np.random.default_rng(seed)
    correct = chance.binomial(GOLD, share)
    return np.stack([correct, correct + chance.poisson(0.3, len(GOLD)), GOLD], axis=1)


SHARES = {("plain", "plain"): 0.6, ("plain", "context"): 0.6, ("cl-kl", "plain"): 0.62, ("cl-kl", "context"): 0.75}
COUNTS = {
    (mode, str(seed)): {
        view: _counts(100 * seed + place, SHARES[mode, view]) for place, view in enumerate(("plain", "context"))
    }
    for mode, seed in itertools.product(("plain", "cl-kl"), range(3))
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A study, and its results in `results`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    for cell in cells(read_study(tmp_path / "mine.yaml")):
        counts = COUNTS[cell.coordinates["mode"], cell.coordinates["seed"]]
        write_result(result_of(cell.coordinates, counts, settings=digest(settings_of(cell))), tmp_path / "results")
    return tmp_path


def _f1(counts: np.ndarray) -> float:
    correct, predicted, gold = counts.sum(0)
    return 200 * correct / (predicted + gold)


def _report(folder: Path, published=()) -> job.Report:
    return job.report_of(read_study(folder / "mine.yaml"), folder / "results", published)


def test_scores_are_each_seeds_their_mean_and_sample_deviation(folder):
    (table,) = _report(folder).parts["scores"]
    assert table.columns == ("mode", "view", "F1 (seed 0, 1, 2)", "mean ± sd", "n")
    for mode, view, each, spread, number in table.rows:
        wanted = [_f1(COUNTS[mode, str(seed)][view]) for seed in range(3)]
        assert each == ", ".join(f"{f1:.1f}" for f1 in wanted)
        assert spread == f"{statistics.mean(wanted):.1f} ± {np.std(wanted, ddof=1):.1f}"
        assert number == "3"
    assert [row[:2] for row in table.rows] == list(SHARES)


def test_comparisons_are_paired_over_units_and_over_seeds(folder):
    (table,) = _report(folder).parts["comparisons"]
    ((_, by_seed, _, spread, interval, p, over_seeds),) = table.rows
    pairs = [(COUNTS["cl-kl", str(seed)]["context"], COUNTS["plain", str(seed)]["plain"]) for seed in range(3)]
    differences = [_f1(first) - _f1(second) for first, second in pairs]
    assert by_seed == ", ".join(f"{difference:+.1f}" for difference in differences)
    assert spread == f"{np.mean(differences):+.1f} ± {np.std(differences, ddof=1):.1f}"
    low, high = map(float, interval.split(" to "))
    assert low < np.mean(differences) < high
    assert (p, over_seeds) == ("< 0.001", "0.25")  # three of one sign: 2 of 8


def test_counts_compare_as_spans_do():
    gold = [[Span(n, n + 1, "x") for n in range(number)] for number in GOLD]
    answers = [[spans[: len(spans) // 2] for spans in gold], [spans[:1] for spans in gold]]
    of_spans = paired_significance(gold, *answers, num_rounds=500)
    counts = [
        np.array([[len(predicted), len(predicted), len(spans)] for predicted, spans in zip(answer, gold, strict=True)])
        for answer in answers
    ]
    assert compare_counts(counts[0][None], counts[1][None], num_rounds=500) == of_spans
    twice = compare_counts(*(np.stack([count, count]) for count in counts), num_rounds=500)
    assert twice == of_spans  # the same run twice proves no more than once


def _runs(chance: np.random.Generator, gold: np.ndarray, easy: np.ndarray) -> np.ndarray:
    correct = chance.binomial(gold, easy)
    return np.stack([correct, correct + chance.poisson(0.3, len(gold)), gold], axis=1)


def test_p_of_equal_systems_is_uniform_over_seeds_together():
    """Both systems of a pair are of one distribution, and the three runs share how hard a sentence is."""
    chance, p_values = np.random.default_rng(1), []
    for _ in range(200):
        gold = chance.poisson(2, 60)
        easy = chance.beta(1, 1, 60)
        sides = [np.stack([_runs(chance, gold, easy) for _ in range(3)]) for _ in range(2)]
        p_values.append(compare_counts(*sides, num_rounds=200).p_value)
    assert np.mean(np.array(p_values) < 0.1) < 0.17  # 0.1 is right; three sd of 200 draws


def test_counts_of_other_data_are_not_compared():
    with pytest.raises(ValueError, match="not of the same data"):
        compare_counts(np.ones((1, 5, 3), int), np.full((1, 5, 3), 2))
    with pytest.raises(ValueError, match="wanted"):
        interval_of_counts(np.ones((1, 5, 3), int), np.ones((1, 6, 3), int))


@pytest.mark.parametrize("differences", [[1.0], [1.0, 2.0, 3.0], [1.0, -0.5, 2.0, 0.1], [0.0, 0.0]])
def test_sign_flips_are_those_of_an_enumeration(differences):
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
            for signs in itertools.product((1, -1), repeat=len(differences))]  # fmt: skip
    assert sign_flip_p(differences) == np.mean([value >= abs(sum(differences)) - 1e-9 for value in sums])


def test_scipy_agrees_on_sign_flips():
    from scipy.stats import permutation_test

    differences = [0.8, 1.1, -0.2, 0.5, 1.9]
    wanted = permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert sign_flip_p(differences) == pytest.approx(wanted.pvalue)


def test_results_of_other_settings_or_missing_ones_are_told_not_shown(folder):
    cell = {"mode": "plain", "seed": "1"}
    write_result(result_of(cell, COUNTS["plain", "1"], settings="other"), folder / "results")
    (folder / "results" / "mine" / "mode-plain_seed-2.json").unlink()
    report = _report(folder)
    assert report.left_out == ("mode-plain_seed-1",)
    assert "4 of 6 cells" in report.state()
    assert "left out, of other settings: mode-plain_seed-1" in report.state()
    row = report.parts["scores"][0].rows[0]
    assert (row[2].split(", ")[1:], row[3:]) == (["–", "–"], (f"{_f1(COUNTS['plain', '0']['plain']):.1f}", "1"))
    assert report.parts["comparisons"][0].rows[0][1].count(",") == 0  # one pair is left


def test_published_figures_are_marked_with_their_source(folder):
    figure = Published(study="mine", cell={"mode": "cl-kl"}, value=60.5, source="Table 1 of a paper")
    table = _report(folder, [figure]).parts["scores"][0]
    assert table.columns[-1] == "published"
    assert [row[-1] for row in table.rows] == ["–", "–", "–", "60.5 (view not stated)"]
    assert "Published, not ours: Table 1 of a paper." in table.notes


def test_a_report_has_the_same_bytes_each_time_and_no_file_but_results(folder):
    for name in ("one", "two"):
        job.write_report(_report(folder), folder / name)
    files = sorted(path.name for path in (folder / "one").iterdir())
    assert files == ["comparisons.csv", "report.html", "report.md", "scores.csv", "tables.tex"]
    for name in files:
        assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes()
    rows = list(csv.DictReader(io.StringIO((folder / "one" / "scores.csv").read_text())))
    assert len(rows) == 6 * 2 * 4  # cells, views, scopes
    assert r"A \& B" not in (folder / "one" / "tables.tex").read_text()  # the title is not part of a table
    assert r"$\pm$" in (folder / "one" / "tables.tex").read_text()
    assert "A &amp; B" in (folder / "one" / "report.html").read_text()
    assert (folder / "one" / "report.html").read_text().count('<svg viewBox="0 0 360 230"') == 2


def test_a_document_is_renewed_and_checked(folder, call):
    document = folder / "results.md"
    document.write_text("# Ours\n\n<!-- study mine scores -->\nold\n<!-- /study -->\n\nText.\n")
    (folder / "jobs").mkdir()
    options = ["experiment", "report", "--docs", document, "--results", "results"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.experiment.study.STUDIES", folder)
        code, _, errors = call(*options, "--check")
        assert (code, "results.md:4: tables differ from the results" in errors) == (2, True)
        assert call(*options)[0] == 0
        text = document.read_text()
        assert text.startswith(
            "# Ours\n\n<!-- study mine scores -->\n\n| mode | view | F1 (seed 0, 1, 2) | mean ± sd | n |"
        )
        assert text.endswith("<!-- /study -->\n\nText.\n")
        assert call(*options, "--check")[0] == 0
        document.write_text(text.replace("| plain | plain |", "| plain | other |"))
        assert call(*options, "--check")[0] == 2


@pytest.mark.parametrize("text", ["<!-- study mine -->\nopen", "<!-- study mine x -->\n<!-- /study -->"])
def test_faulty_marks_are_refused(folder, text):
    with pytest.raises(ValueError, match=r"has no <!-- /study -->|unknown part"):
        job.renewed(text, lambda name: _report(folder))


def test_reports_and_keys_need_neither_ray_nor_torch_nor_java():
    names = ("ray", "torch", "transformers", "jnius", "deepspeed")
    code = f"import jobs.experiment.report, jobs.experiment.tasks, sys; print([n for n in {names} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_tables_of_the_results_page_are_those_of_its_results():
    """Every table between marks in docs/results.md, byte for byte."""
    job.renew_document(ROOT / "docs" / "results.md", ROOT / "docs" / "results", check=True)
