"""The plot of `tests.benchmarks.growth`: two log-log panels that read well on a light and on a dark page."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_INK = "#7d8590"  # grey, blue, orange and green with enough contrast to white and to almost black
_SPEED, _MEMORY = {"bag": "#2f9e44", "weighted": "#2f81f7", "mentions": "#e8590c"}, "#a371f7"
_SIZE = (9.6, 4.0)  # inches

Point = tuple[float, float]


def plot(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the lines of a growth file into an SVG file."""
    style = {"svg.hashsalt": "growth", "font.size": 9, "axes.edgecolor": _INK, "axes.labelcolor": _INK}
    style |= {"xtick.color": _INK, "ytick.color": _INK, "text.color": _INK, "axes.titlecolor": _INK}
    with rc_context(style):
        figure = Figure(_SIZE, layout="constrained")
        left, right = figure.subplots(1, 2)
        _passages(left, sorted((line for line in lines if "passages" in line), key=lambda line: line["passages"]))
        _sentences(right, sorted((line for line in lines if "sentences" in line), key=lambda line: line["sentences"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        figure.savefig(aside, format="svg", transparent=True, metadata={"Date": None})
        aside.rename(path)


def _passages(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    memory = _panel(axes, "passages in the index", "queries per CPU second", "MiB of the searching process")
    for mode, colour in _SPEED.items():
        _curve(
            axes, _points(lines, "passages", lambda line, mode=mode: 1000 / line[mode]["cpu_ms_a_query"]), colour, mode
        )
    own = _points(lines, "passages", lambda line: line["mentions"]["anonymous_mib"])
    _curve(memory, own, _MEMORY, "memory of its own", dashes="--")
    mapped = _points(lines, "passages", lambda line: line["mentions"]["peak_mib"])
    _curve(memory, mapped, _MEMORY, "with the mapped index", dashes=":")
    _legend(axes, memory)


def _sentences(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    memory = _panel(axes, "sentences of the job", "seconds", "MiB of the driver")
    _curve(axes, _points(lines, "sentences", lambda line: line["seconds"]), _SPEED["weighted"], "time, start included")
    cpu = _points(lines, "sentences", lambda line: line["cpu_seconds"])
    _curve(axes, cpu, _SPEED["mentions"], "CPU time of all processes")
    driver = _points(lines, "sentences", lambda line: line["driver_peak_mib"])
    _curve(memory, driver, _MEMORY, "the driver's peak memory", dashes="--")
    _legend(axes, memory)


def _points(lines: Sequence[Mapping[str, Any]], x: str, y: Callable[[Mapping[str, Any]], float]) -> list[Point]:
    return [(line[x], y(line)) for line in lines]


def _panel(axes: Axes, x: str, y: str, other_y: str) -> Axes:
    """Set the panel's scales up; returns the axes of its right-hand scale."""
    memory = axes.twinx()
    for own, label in ((axes, y), (memory, other_y)):
        own.set(xscale="log", yscale="log", xlabel=x, ylabel=label)
        own.spines["top"].set_visible(False)
    memory.yaxis.label.set_color(_MEMORY)
    axes.grid(which="major", color=_INK, alpha=0.25, linewidth=0.6)
    return memory


def _curve(axes: Axes, points: Sequence[Point], colour: str, label: str, *, dashes: str = "-") -> None:
    if points:
        axes.plot(*zip(*points, strict=True), dashes, color=colour, label=label, marker="o", markersize=4)


def _legend(axes: Axes, memory: Axes) -> None:
    """One legend of both scales below the panel; a decade of room at least, so that noise looks like noise."""
    for own in (axes, memory):
        low, high = own.get_ylim()
        if high < 30 * low:
            middle = (low * high) ** 0.5
            own.set_ylim(middle / 30**0.5, middle * 30**0.5)
    curves = [*axes.get_lines(), *memory.get_lines()]
    labels = [str(curve.get_label()) for curve in curves]
    axes.legend(curves, labels, frameon=False, ncols=2, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16))
