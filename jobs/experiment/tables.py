"""A study's results as tables of text: scores by seed with mean and spread, groups of mentions, paired comparisons.

All figures come from the results' JSONs; nothing here reads data, models or the network. The same results give the
same tables, byte for byte. `jobs.experiment.render` writes them as Markdown, LaTeX, CSV and HTML.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Literal

import numpy as np

from ctxner.evaluation.scores import Score
from ctxner.evaluation.significance import compare_counts, interval_of_counts, sign_flip_p
from jobs.experiment.published import Published
from jobs.experiment.results import CellResult, Counts
from jobs.experiment.study import Comparison, Side, Study, slug_of

Metric = Literal["precision", "recall", "f1"]
_NAMES = {"precision": "precision", "recall": "recall", "f1": "F1"}
_DASH = "–"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text.

    Attributes:
        title: What it shows.
        columns: Names of the columns.
        rows: Cells of each row.
        notes: Sentences below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """Results of the cells that differ in the study's `over` axis alone, in one view."""

    coordinates: dict[str, str]
    view: str
    results: dict[str, CellResult]  # by value of the axis

    @property
    def name(self) -> str:
        """The coordinates and the view in words."""
        return ", ".join([*self.coordinates.values(), f"{self.view} view"])

    def values(self, metric: Metric) -> dict[str, float]:
        """A metric in percent, by value of the axis."""
        return {value: 100 * float(getattr(score(result.scores[self.view].all), metric))
                for value, result in self.results.items()}  # fmt: skip


def score(counts: Counts) -> Score:
    """Counts as a score, which knows its ratios."""
    return Score(*counts)


def lines(study: Study, results: Mapping[str, CellResult]) -> list[Line]:
    """The lines of a study's table that have a result, in the grid's order.

    Args:
        study: Study.
        results: Results of its cells by slug.
    """
    axes = [axis for axis in study.grid if axis != study.over]
    made = []
    for names in itertools.product(*(study.grid[axis] for axis in axes)):
        fixed = dict(zip(axes, names, strict=True))
        present = dict(_over(study, fixed, results))
        for view in study.views:
            of_view = {value: result for value, result in present.items() if view in result.scores}
            if of_view:
                made.append(Line(fixed, view, of_view))
    return made


def _over(
    study: Study, fixed: Mapping[str, str], results: Mapping[str, CellResult]
) -> Iterator[tuple[str, CellResult]]:
    for value in study.grid.get(study.over, {"": {}}):
        chosen = {**fixed, study.over: value}
        slug = slug_of({axis: chosen[axis] for axis in study.grid})
        if slug in results:
            yield value, results[slug]


def score_tables(study: Study, made: Sequence[Line], published: Sequence[Published]) -> list[Table]:
    """A table for each metric: values, mean, sample standard deviation and n of each line, published figures beside."""
    return [_score_table(study, made, published, metric) for metric in study.metrics]


def _score_table(study: Study, made: Sequence[Line], published: Sequence[Published], metric: Metric) -> Table:
    axes = [axis for axis in study.grid if axis != study.over]
    beside = {id(line): _beside(line, published, metric, study.views) for line in made}
    shows = any(beside.values())
    values = list(study.grid.get(study.over, {}))
    by = f" ({study.over} {', '.join(values)})" if values else ""
    columns = (*axes, "view", f"{_NAMES[metric]}{by}", "mean ± sd", "n", *(["published"] if shows else []))
    rows = []
    for line in made:
        scores = line.values(metric)
        each = ", ".join(f"{scores[value]:.1f}" if value in scores else _DASH for value in values or scores)
        row = (*line.coordinates.values(), line.view, each, spread(list(scores.values())), str(len(scores)))
        rows.append((*row, *([beside[id(line)] or _DASH] if shows else [])))
    notes = [f"{_NAMES[metric]} in percent on {study.split}; sd: sample standard deviation over {study.over}."]
    sources = dict.fromkeys(figure.source for figure in published if figure.metric == metric)
    notes += [f"Published, not ours: {source}." for source in sources if shows]
    return Table(_NAMES[metric], columns, tuple(rows), tuple(notes))


def _beside(line: Line, published: Sequence[Published], metric: Metric, views: Sequence[str]) -> str:
    """Published figures of a line; those whose source does not name the view stand by the last view."""
    fits = [
        figure
        for figure in published
        if figure.metric == metric
        and all(line.coordinates.get(axis) == value for axis, value in figure.cell.items())
        and (figure.view == line.view or (figure.view is None and line.view == views[-1]))
    ]
    return ", ".join(f"{figure.value:g}{'' if figure.view else ' (view not stated)'}" for figure in fits)


def spread(values: Sequence[float], *, sign: bool = False) -> str:
    """Mean and sample standard deviation with one decimal; the mean alone of one value."""
    if not values:
        return _DASH
    middle = f"{mean(values):+.1f}" if sign else f"{mean(values):.1f}"
    return f"{middle} ± {stdev(values):.1f}" if len(values) > 1 else middle


def group_table(study: Study, made: Sequence[Line]) -> Table | None:
    """Recall in groups of gold mentions (seen in training or not, with or without an entry); None without groups."""
    sizes: dict[str, set[int]] = {}
    for line in made:
        for result in line.results.values():
            for group, counts in result.scores[line.view].groups.items():
                sizes.setdefault(group, set()).add(counts[2])
    shown = [group for group, numbers in sizes.items() if max(numbers) > 0]
    if not shown:
        return None
    axes = [axis for axis in study.grid if axis != study.over]
    heads = [f"{group} ({min(sizes[group]):,})" if len(sizes[group]) == 1 else group for group in shown]
    rows = [(*line.coordinates.values(), line.view, *(_recalls(line, group) for group in shown)) for line in made]
    note = f"Recall in percent, mean ± sd over {study.over}; in brackets the number of gold mentions."
    return Table("Recall in groups of mentions", (*axes, "view", *heads), tuple(rows), (note,))


def _recalls(line: Line, group: str) -> str:
    groups = [result.scores[line.view].groups.get(group) for result in line.results.values()]
    return spread([100 * score(counts).recall for counts in groups if counts and counts[2]])


@dataclass(frozen=True, slots=True)
class Pairs:
    """One comparison for one value of the axes that it leaves open: pairs of results by value of `over`."""

    title: str
    open_axes: dict[str, str]
    views: tuple[str, str]
    pairs: dict[str, tuple[CellResult, CellResult]]


def pairs_of(study: Study, comparison: Comparison, results: Mapping[str, CellResult]) -> list[Pairs]:
    """The pairs of results that a comparison speaks of; cells that are missing give none."""
    named = {*comparison.first.cell, *comparison.second.cell}
    open_axes = [axis for axis in study.grid if axis not in named and axis != study.over]
    made = []
    for names in itertools.product(*(study.grid[axis] for axis in open_axes)):
        fixed = dict(zip(open_axes, names, strict=True))
        pairs = {}
        for value in study.grid.get(study.over, {"": {}}):
            sides = [_side(study, side, {**fixed, study.over: value}, results)
                     for side in (comparison.first, comparison.second)]  # fmt: skip
            if sides[0] and sides[1]:
                pairs[value] = (sides[0], sides[1])
        if pairs:
            views = (comparison.first.view, comparison.second.view)
            made.append(Pairs(comparison.title, fixed, views, pairs))
    return made


def _side(study: Study, side: Side, fixed: Mapping[str, str], results: Mapping[str, CellResult]) -> CellResult | None:
    chosen = {**fixed, **side.cell}
    if missing := [axis for axis in study.grid if axis not in chosen]:
        raise ValueError(f"study {study.name}: a comparison names {missing[0]!r} on one side only; name it on both")
    result = results.get(slug_of({axis: chosen[axis] for axis in study.grid}))
    return result if result and side.view in result.scores else None


def comparison_table(study: Study, results: Mapping[str, CellResult]) -> Table | None:
    """Differences of F1 by seed and over all, with intervals and p; None when there is nothing to compare."""
    compared = [pairs for comparison in study.comparisons for pairs in pairs_of(study, comparison, results)]
    if not compared:
        return None
    axes = list(dict.fromkeys(axis for pairs in compared for axis in pairs.open_axes))
    over = study.over
    columns = ("comparison", *axes, f"difference by {over}", f"p by {over}", "mean ± sd", "95% interval", "p",
               f"p over {over}s")  # fmt: skip
    rows = tuple(_compared(pairs, axes) for pairs in compared)
    units = dict.fromkeys(result.unit for pairs in compared for pair in pairs.pairs.values() for result in pair)
    notes = (
        f"Differences of F1 in points. p and the interval: approximate randomisation (10,000 rounds) and bootstrap "
        f"(1,000) over {' or '.join(f'{unit}s' for unit in units)} of the mean over {over}s; each unit is exchanged or "
        "drawn in all runs together.",
        f"p over {over}s: all changes of sign of the differences; with n of them it is at least 2 / 2^n.",
    )
    return Table("Comparisons", columns, rows, notes)


def _compared(pairs: Pairs, axes: Sequence[str]) -> tuple[str, ...]:
    counts = [(first.counts(pairs.views[0]), second.counts(pairs.views[1])) for first, second in pairs.pairs.values()]
    singles = [compare_counts(first[None], second[None]) for first, second in counts]
    together = [np.stack(side) for side in zip(*counts, strict=True)]
    whole, interval = compare_counts(*together), interval_of_counts(*together)
    differences = [100 * single.difference for single in singles]
    return (
        pairs.title,
        *(pairs.open_axes.get(axis, "") for axis in axes),
        ", ".join(f"{difference:+.1f}" for difference in differences),
        ", ".join(p_text(single.p_value) for single in singles),
        spread(differences, sign=True),
        f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}",
        p_text(whole.p_value),
        p_text(sign_flip_p(differences)) if len(differences) > 1 else _DASH,
    )


def p_text(p_value: float) -> str:
    """A p with two digits, or `< 0.001`."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}" if p_value < 0.01 else f"{p_value:.2f}"
