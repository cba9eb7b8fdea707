"""The geometry of the report's charts: ticks, lines and dots in the units of an SVG view box.

Small multiples: one panel per loss and one per view's dev F1, with one line per mode. The page sets the colours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 14, 42
VIEWS = {"plain": "Plain view", "context": "Context view"}
LOSSES = {
    "loss": "Total",
    "nll": "NLL, plain view",
    "nll_ext": "NLL, context view",
    "cl-l2": "Cooperation, CL-L2",
    "cl-kl": "Cooperation, CL-KL",
}
LOG_FROM = 30  # use a log scale when the largest value is more than this many times the smallest


@dataclass(frozen=True, slots=True)
class EpochPoint:
    """What training reported at the end of an epoch.

    Attributes:
        mode: Training mode, e.g. `cl-kl`.
        epoch: Number of the epoch, from 1.
        losses: Mean of each loss over the epoch, by name.
        dev_f1: Dev F1 in [0, 1] of each view.
    """

    mode: str
    epoch: int
    losses: Mapping[str, float]
    dev_f1: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Dot:
    """A point of a line: its place in the view box, and its text for tooltips and screen readers."""

    x: float
    y: float
    label: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart.

    Attributes:
        title: What is drawn.
        y_label: Unit of the vertical axis.
        x_ticks: (x, text) of each tick of the horizontal axis.
        y_ticks: (y, text) of each tick of the vertical axis.
        lines: (index of the mode, its dots by epoch).
        num_left_out: Values that are not finite and so are not drawn.
    """

    title: str
    y_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[tuple[int, list[Dot]]]
    num_left_out: int


def panels(curves: Sequence[EpochPoint], modes: Sequence[str]) -> dict[str, list[Panel]]:
    """The charts of both figures, `losses` (one panel per loss) and `f1` (one panel per view, on one scale)."""
    f1 = [100 * value for point in curves for value in point.dev_f1.values() if math.isfinite(value)]
    f1_range = (min(f1), max(f1)) if f1 else None
    figures = {
        "losses": [
            panel(label, "loss", _series(curves, modes, [p.losses.get(name) for p in curves]))
            for name, label in loss_labels(curves).items()
        ],
        "f1": [
            panel(label, "dev F1, %", _series(curves, modes, [_percent(p.dev_f1.get(view)) for p in curves]), f1_range)
            for view, label in VIEWS.items()
        ],
    }
    return {name: [chart for chart in charts if chart is not None] for name, charts in figures.items()}


def loss_labels(curves: Sequence[EpochPoint]) -> dict[str, str]:
    """The losses that occur and their names on the page; known losses first."""
    occurring = {name: name for point in curves for name in point.losses}
    return {name: label for name, label in LOSSES.items() if name in occurring} | {
        name: LOSSES.get(name, name) for name in occurring
    }


Series = dict[int, list[tuple[int, float]]]  # mode index -> (epoch, value)


def _series(curves: Sequence[EpochPoint], modes: Sequence[str], values: Sequence[float | None]) -> Series:
    series: Series = {}
    for point, value in zip(curves, values, strict=True):
        if value is not None:
            series.setdefault(modes.index(point.mode), []).append((point.epoch, value))
    return series


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def panel(title: str, y_label: str, series: Series, y_range: tuple[float, float] | None = None) -> Panel | None:
    """A chart of points in any order; None when no value is finite.

    Args:
        title: What is drawn.
        y_label: Unit of the vertical axis.
        series: The points of each mode.
        y_range: Range that the vertical axis shows at least; None: the range of the values.
    """
    finite = {mode: sorted(point for point in points if math.isfinite(point[1])) for mode, points in series.items()}
    values = [value for points in finite.values() for _, value in points]
    if not values:
        return None
    low, high = y_range or (min(values), max(values))
    log = low > 0 and high > LOG_FROM * low
    ticks = _log_ticks(low, high) if log else _linear_ticks(low, high)
    epochs = sorted({epoch for points in finite.values() for epoch, _ in points})
    x_of = _scale(min(epochs), max(epochs), LEFT + 8, WIDTH - RIGHT - 8)
    y_of = _scale(_place(min(ticks), log), _place(max(ticks), log), HEIGHT - BOTTOM, TOP)
    lines = [
        (
            mode,
            [Dot(x_of(epoch), y_of(_place(value, log)), f"epoch {epoch}: {value:.4g}") for epoch, value in points],
        )
        for mode, points in finite.items()
        if points
    ]
    every = -(-len(epochs) // 10)
    return Panel(
        title,
        f"{y_label}, log scale" if log else y_label,
        [(x_of(epoch), str(epoch)) for epoch in epochs[::every]],
        [(y_of(_place(tick, log)), f"{tick:g}") for tick in ticks],
        lines,
        sum(map(len, series.values())) - len(values),
    )


def _place(value: float, log: bool) -> float:
    return math.log10(value) if log else value


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """The linear map from [low, high] to [start, end]; the middle of [start, end] when low equals high."""
    if high == low:
        return lambda value: (start + end) / 2
    return lambda value: round(start + (value - low) / (high - low) * (end - start), 1)


def _linear_ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers that enclose the values."""
    spread = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(spread / 5))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= spread / 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    if last == first:
        first, last = first - 1, last + 1
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten that enclose the values, at most about seven."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = -(-(last - first) // 6)
    return [10.0**power for power in range(first, last + every, every)]
