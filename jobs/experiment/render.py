"""Tables of text as Markdown, LaTeX and CSV. `jobs.experiment.report` puts the files together; pages are HTML."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence

from jobs.experiment.results import CellResult
from jobs.experiment.tables import Table, score

_LATEX = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "<": "$<$",
    ">": "$>$",
}


def markdown(table: Table, *, titled: bool = False) -> str:
    """A table in Markdown, with its notes below it."""
    lines = [f"**{table.title}**", ""] if titled else []
    lines += [_markdown_row(table.columns), "|" + "---|" * len(table.columns)]
    lines += [_markdown_row(row) for row in table.rows]
    if table.notes:
        lines += ["", " ".join(table.notes)]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in cells) + " |"


def latex(table: Table) -> str:
    """A table in LaTeX with booktabs' rules."""
    body = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in table.rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(table.title)}. {_latex(' '.join(table.notes))}}}",
            rf"\begin{{tabular}}{{{'l' * len(table.columns)}}}",
            r"\toprule",
            " & ".join(_latex(name) for name in table.columns) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex(text: str) -> str:
    return re.sub("[" + re.escape("".join(_LATEX)) + "]", lambda match: _LATEX[match[0]], text)


def score_rows(results: Iterable[CellResult]) -> str:
    """All scores as CSV: a row for each cell, view and scope (all mentions, a type, a group of mentions)."""
    listed = list(results)
    axes = list(dict.fromkeys(axis for result in listed for axis in result.coordinates))
    rows: list[Sequence[object]] = []
    for result in listed:
        for view, scores in result.scores.items():
            scopes: Mapping[str, tuple[int, int, int]] = {
                "all": scores.all,
                **{f"type {type}": counts for type, counts in scores.types.items()},
                **{f"group {group}": counts for group, counts in scores.groups.items()},
            }
            for scope, counts in scopes.items():
                ratios = [f"{getattr(score(counts), name):.6f}" for name in ("precision", "recall", "f1")]
                cell = [result.coordinates.get(axis, "") for axis in axes]
                rows.append([result.study, *cell, view, result.split, scope, *counts, *ratios])
    return _csv(
        ["study", *axes, "view", "split", "scope", "correct", "predicted", "gold", "precision", "recall", "f1"], rows
    )


def table_rows(table: Table) -> str:
    """A table as CSV."""
    return _csv(table.columns, table.rows)


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
