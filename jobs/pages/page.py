"""Shared parts of the HTML pages: writing a page, names of things, and charts over named places and bins.

`jobs.pages.charts` lays out a chart; `templates/page.css` styles the pages.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import jinja2

from ctxner.files.atomic import write_text
from ctxner.files.storage import exists, read_bytes, write_bytes
from ctxner.files.uris import is_uri, path_or_uri
from ctxner.retrieval.measure.coverage import Tally
from jobs.console import console, score_percent
from jobs.pages.charts import Panel, panel

T = TypeVar("T")

DROPPED = {  # why a passage is not in the context view, `ctxner.schema.Dropped`, for people
    "near_duplicate": "nearly the sentence itself or a better passage",
    "below_depth": "ranked below the depth",
    "piece_budget": "did not fit the piece budget",
    "no_pieces": "nothing that the encoder knows",
}
_MAX_BINS = 40
_MAX_BYTES = 1 << 28  # of a page
_HEAD_BYTES = 2000  # of a page, in which its key stands
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def page_beside(folder: str | Path | None, usual: str, name: str) -> Path:
    """Default path of a page about a folder: beside the folder, or in `runs` if it is none or cannot be written to.

    Args:
        folder: Folder that the page is about; or a hub id.
        usual: Name that such folders have within a run, e.g. `model`; another name becomes part of the page's.
        name: Name of the page without suffix.
    """
    path = path_or_uri(folder or usual)
    path = path if path.name else path.resolve()
    stem = name if path.name == usual else f"{path.name}-{name}"
    if is_uri(path) or (path.is_dir() and os.access(path.parent, os.W_OK)):
        return path.parent / f"{stem}.html"
    parts = [part for part in path.parts if part not in (path.anchor, ".", "..")]
    return Path("runs") / f"{'-'.join([*parts[:-1], stem])}.html"


def asked_key(**asked: Any) -> str:
    """A key of what a page answers: files, options; pages with equal keys may replace each other."""
    content = json.dumps(asked, sort_keys=True, default=str)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def free_page(usual: Path, asked: str) -> Path:
    """The usual path, unless the page there answers something else: then the same with `-2`, `-3`, ...

    Args:
        usual: Path of the page.
        asked: What the page answers, `asked_key`; it is written into the page.
    """
    mark = f'<meta name="ctxner-asked" content="{asked}">'.encode()
    paths = (usual if number == 1 else usual.with_stem(f"{usual.stem}-{number}") for number in itertools.count(1))
    page = next(path for path in paths if not exists(path) or mark in read_bytes(path, _MAX_BYTES)[:_HEAD_BYTES])
    if page != usual:
        console.print(f"{usual} shows something else and stays; the page of this is {page}", markup=False)
    return page


def write_page(path: Path, template: str, *, asked: str | None = None, **values: Any) -> Path:
    """Render a template of `jobs/pages/templates` to a file, atomically; the page loads nothing from the network.

    Args:
        path: HTML file to write, or its URI.
        template: Name of the template.
        asked: Key that `free_page` looks for.
        values: Values of the template.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, ratio=score_percent, clip=clip, csp_hash=_csp_hash)
    html = environment.get_template(template).render(asked=asked, **values)
    html = _UNPRINTABLE.sub("\ufffd", html)
    if is_uri(path):
        write_bytes(path, html.encode())
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, html)
    return path


def _csp_hash(script: str) -> str:
    """The hash that the page's security policy must name so that this script, and no other, may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def percent(tally: Tally) -> str:
    """The share in percent with one decimal; `none` if it is a share of nothing."""
    return "none" if tally.share is None else f"{100 * tally.share:.1f}"


def as_dict(tally: Tally) -> dict[str, float | None]:
    """The tally as plain values for JSON."""
    return {"found": tally.found, "total": tally.total, "share": tally.share}


def clip(text: str, most: int) -> str:
    """The text, cut after `most` characters."""
    return text if len(text) <= most else f"{text[:most]}… (+{len(text) - most:,} characters)"


def evenly(rows: Sequence[T], most: int) -> list[T]:
    """At most `most` rows, from the first to the last in even steps."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(place * (len(rows) - 1) / max(1, most - 1))] for place in range(most)]


def share_panel(title: str, names: Sequence[str], series: Mapping[int, Sequence[Tally]]) -> Panel | None:
    """A chart of percentages over named places; None when there is nothing to draw.

    Args:
        title: What is drawn.
        names: Names of the places, e.g. each k.
        series: Tallies of each line, one per place, by the index of the line.
    """
    values = {
        line: [None if points.share is None else 100 * points.share for points in points]
        for line, points in series.items()
    }
    return named_panel(title, "percent", names, [f"{name}" for name in names], values, (0, 100))


def histogram(title: str, unit: str, groups: Sequence[Sequence[float]], *, whole: bool = False) -> Panel | None:
    """How many values fall into bins of a round width; None when there are no finite values.

    Args:
        title: What is drawn.
        unit: Unit of what is counted, e.g. `passages`.
        groups: Values of each line; all lines share the bins.
        whole: Whether the values are whole numbers.
    """
    finite = [[value for value in group if math.isfinite(value)] for group in groups]
    if not any(finite):
        return None
    low, high = min(min(group, default=math.inf) for group in finite), max(max(g, default=-math.inf) for g in finite)
    width = _round_width((high - low) / _MAX_BINS, whole)
    first = math.floor(low / width)
    num_bins = math.floor(high / width) - first + 1
    counts = [[0.0] * num_bins for _ in finite]
    for group, count in zip(finite, counts, strict=True):
        for value in group:
            count[math.floor(value / width) - first] += 1
    edges = [f"{place * width:.6g}" for place in range(first, first + num_bins + 1)]
    labels = edges[:-1] if whole and width == 1 else [f"{edges[n]} to {edges[n + 1]}" for n in range(num_bins)]
    return named_panel(title, unit, edges[:-1], labels, dict(enumerate(counts)), (0, max(map(max, counts))))


def _round_width(least: float, whole: bool) -> float:
    """The smallest width of 1, 2 or 5 times a power of ten that is at least `least`."""
    if (whole and least <= 1) or least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)


def named_panel(
    title: str,
    y_label: str,
    ticks: Sequence[str],
    labels: Sequence[str],
    values: Mapping[int, Sequence[float | None]],
    y_range: tuple[float, float],
) -> Panel | None:
    """A chart whose horizontal axis has named places instead of epochs.

    Args:
        title: What is drawn.
        y_label: Unit of the vertical axis.
        ticks: Names of the places.
        labels: Beginning of a dot's text, one per place; the dot's value follows it.
        values: Values of each line, by the index of the line, one per place; None draws nothing.
        y_range: Range that the vertical axis shows at least.
    """
    points = {
        line: [(place, value) for place, value in enumerate(points) if value is not None]
        for line, points in values.items()
    }
    drawn = panel(title, y_label, points, y_range)
    if drawn is None:
        return None
    lines = [
        (
            line,
            [
                replace(dot, label=f"{labels[place]}: {value:.4g} {y_label}")
                for dot, (place, value) in zip(dots, points[line], strict=True)
            ],
        )
        for line, dots in drawn.lines
    ]
    return replace(drawn, x_ticks=[(x, ticks[int(place)]) for x, place in drawn.x_ticks], lines=lines)
