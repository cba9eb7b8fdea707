"""`ctxner experiment report`: tables of a study from its results alone, as Markdown, LaTeX, CSV and one page of HTML.

Tables in a document stand between `<!-- study NAME -->` and `<!-- /study -->`, or `<!-- study NAME PART -->` for one of
scores, groups and comparisons; they are written anew from the results, byte for byte, or compared with them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxner.files.atomic import write_text
from jobs.experiment import render, tables
from jobs.experiment.keys import digest, settings_of
from jobs.experiment.published import Published, read_published
from jobs.experiment.results import CellResult, read_results
from jobs.experiment.study import Study, cells, find_study, read_study
from jobs.pages.charts import Panel
from jobs.pages.page import named_panel, write_page

PARTS = ("scores", "groups", "comparisons")
_MARKED = re.compile(r"(<!-- study ([a-z0-9-]+)(?: ([a-z]+))? -->\n)(.*?)(<!-- /study -->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Report:
    """What a report says.

    Attributes:
        study: Study.
        results: Results that count, by slug, in the grid's order.
        num_cells: Number of cells of the study.
        left_out: Cells whose result is of other settings than the study's, which is not shown.
        parts: Tables by part.
        lines: Lines of the score tables.
    """

    study: Study
    results: dict[str, CellResult]
    num_cells: int
    left_out: tuple[str, ...]
    parts: dict[str, list[tables.Table]]
    lines: list[tables.Line]

    def state(self) -> str:
        """How much there is, from which code and machines, in one line."""
        facts = [result.steps["train"] for result in self.results.values() if "train" in result.steps]
        commits = dict.fromkeys(fact.commit or "unknown" for fact in facts)
        machines = dict.fromkeys(f"{fact.machine.cpu}, {fact.machine.isa}" for fact in facts)
        left_out = f"; left out, of other settings: {', '.join(self.left_out)}" if self.left_out else ""
        where = f", at {', '.join(commits)}, on {'; '.join(machines)}" if facts else ""
        return f"{len(self.results)} of {self.num_cells} cells{where}{left_out}."


def report_of(study: Study, folder: Path, published: Sequence[Published] = (), overrides: Sequence[str] = ()) -> Report:
    """The report of a study from the results in a folder.

    Args:
        study: Study.
        folder: Folder of the results of all studies.
        published: Published figures of all studies.
        overrides: `section.key=value` with which the study was run.
    """
    every, made = read_results(folder, study.name), cells(study, overrides)
    wanted = {cell.slug: digest(settings_of(cell)) for cell in made}
    results = {slug: every[slug] for slug in wanted if slug in every and every[slug].settings == wanted[slug]}
    left_out = tuple(slug for slug in wanted if slug in every and slug not in results)
    lines = tables.lines(study, results)
    figures = [figure for figure in published if figure.study == study.name]
    groups, comparisons = tables.group_table(study, lines), tables.comparison_table(study, results)
    parts = {
        "scores": tables.score_tables(study, lines, figures),
        "groups": [groups] if groups else [],
        "comparisons": [comparisons] if comparisons else [],
    }
    return Report(study, results, len(made), left_out, parts, lines)


def markdown(report: Report, part: str | None = None) -> str:
    """The tables in Markdown, or those of one part, with the state of the study."""
    listed = [table for name in PARTS for table in report.parts[name] if part in (None, name)]
    texts = [render.markdown(table, titled=part is None) for table in listed]
    return "\n".join([*texts, f"{report.state()}\n"])


def write_report(report: Report, out: Path) -> dict[str, Any]:
    """Write report.md, tables.tex, scores.csv, comparisons.csv and report.html into a folder."""
    listed = [table for name in PARTS for table in report.parts[name]]
    title = report.study.title or report.study.name
    out.mkdir(parents=True, exist_ok=True)
    files = {
        "report.md": f"# {title}\n\n{markdown(report)}",
        "tables.tex": "\n".join(render.latex(table) for table in listed),
        "scores.csv": render.score_rows(report.results.values()),
        "comparisons.csv": "".join(render.table_rows(table) for table in report.parts["comparisons"]),
    }
    for name, text in files.items():
        write_text(out / name, text)
    page = write_page(
        out / "report.html",
        "study.html.j2",
        title=title,
        eyebrow="ctxner experiment",
        state=report.state(),
        tables=listed,
        panels=_panels(report),
        facts=_facts(report),
    )
    return {
        "study": report.study.name,
        "cells": f"{len(report.results)} of {report.num_cells}",
        "left_out": list(report.left_out),
        "page": str(page),
        "files": [str(out / name) for name in files],
    }


def _panels(report: Report) -> list[tuple[Panel, list[str], str]]:
    """For each view F1 by seed, a line for each system; (panel, names of its lines, name of the x axis)."""
    study, drawn = report.study, []
    values = list(study.grid.get(study.over, {})) or ["all"]
    for view in study.views:
        of_view = [line for line in report.lines if line.view == view]
        scores = [line.values("f1") for line in of_view]
        every = [score for line_scores in scores for score in line_scores.values()]
        if not every:
            continue
        points: Mapping[int, list[float | None]] = {
            number: [line_scores.get(value) for value in values] for number, line_scores in enumerate(scores)
        }
        panel = named_panel(f"{view} view".capitalize(), "F1, %", values, values, points, (min(every), max(every)))
        names = [", ".join(line.coordinates.values()) or "all" for line in of_view]
        if panel is not None:
            drawn.append((panel, names, study.over))
    return drawn


def _facts(report: Report) -> dict[str, str]:
    results = report.results.values()
    seconds = sum(
        fact.seconds for result in results for kind, fact in result.steps.items() if kind in ("train", "score")
    )
    facts = [result.steps["train"] for result in results if "train" in result.steps]
    versions = dict.fromkeys(", ".join(f"{name} {text}" for name, text in fact.versions.items()) for fact in facts)
    units = dict.fromkeys(f"{result.num_units:,} {result.unit}s" for result in results)
    return {
        "Cells": f"{len(report.results)} of {report.num_cells}",
        "Base config": report.study.base,
        "Split": report.study.split,
        "Units of tests": "; ".join(units),
        "Hours of training and scoring": f"{seconds / 3600:.1f}",
        "Versions": "; ".join(versions),
    }


def renewed(text: str, report_for: Callable[[str], Report]) -> str:
    """A document whose marked tables are those of the results now.

    Args:
        text: Document in Markdown.
        report_for: Report of a study, given its name.

    Raises:
        ValueError: A mark names an unknown part or study, or is not closed.
    """
    if text.count("<!-- study ") != len(_MARKED.findall(text)):
        raise ValueError("a mark <!-- study NAME --> has no <!-- /study --> after it, or is not alone on its line")

    def table(match: re.Match[str]) -> str:
        if match[3] not in (None, *PARTS):
            raise ValueError(f"<!-- study {match[2]} {match[3]} -->: unknown part; wanted {', '.join(PARTS)}")
        return f"{match[1]}\n{markdown(report_for(match[2]), match[3])}\n{match[5]}"

    return _MARKED.sub(table, text)


def renew_document(path: Path, folder: Path, *, check: bool) -> dict[str, Any]:
    """Write a document's marked tables anew, or check that they are those of the results.

    Args:
        path: Document in Markdown.
        folder: Folder of the results.
        check: Whether to compare only.

    Raises:
        ValueError: `check`, and the document differs; or a mark is faulty.
    """
    published, reports = read_published(), dict[str, Report]()

    def report_for(name: str) -> Report:
        if name not in reports:
            reports[name] = report_of(read_study(find_study(name)), folder, published)
        return reports[name]

    text = path.read_text(encoding="utf-8")
    try:
        new = renewed(text, report_for)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if new != text and check:
        pairs = enumerate(zip(text.splitlines(), [*new.splitlines(), ""], strict=False), start=1)
        line = next((number for number, (before, after) in pairs if before != after), 0)
        raise ValueError(
            f"{path}:{line}: tables differ from the results in {folder}; write them anew with "
            f"ctxner experiment report --docs {path} --results {folder}"
        )
    if new != text:
        write_text(path, new)
    return {"document": str(path), "studies": sorted(reports), "changed": new != text}
