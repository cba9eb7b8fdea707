"""The plot of `tests.benchmarks.soak`: memory, latency and refusals over time, readable on light and on dark pages."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_INK, _BLUE, _ORANGE, _VIOLET, _GREEN = "#7d8590", "#2f81f7", "#e8590c", "#a371f7", "#2f9e44"
_SIZE = (7.2, 5.4)  # inches


def plot(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the seconds of a run into an SVG file."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style = {"svg.hashsalt": "soak", "font.size": 9, "axes.edgecolor": _INK, "axes.labelcolor": _INK}
    style |= {"xtick.color": _INK, "ytick.color": _INK, "text.color": _INK}
    minutes = [line["s"] / 60 for line in lines]
    with rc_context(style):
        figure = Figure(_SIZE, layout="constrained")
        memory, latency, counts = figure.subplots(3, 1, sharex=True)
        memory.plot(minutes, [line["mib"] for line in lines], color=_VIOLET, label="memory of all processes")
        memory.set(ylabel="MiB", ylim=(0, 1.3 * max(line["mib"] for line in lines)))
        for name, colour in (("p50_ms", _BLUE), ("p99_ms", _ORANGE)):
            latency.plot(minutes, [line[name] for line in lines], color=colour, linewidth=0.7, label=name[:3])
        latency.set(ylabel="ms", yscale="log")
        for name, colour in (("answered", _GREEN), ("attacks", _VIOLET), ("refused", _ORANGE), ("lost", _INK)):
            counts.plot(minutes, [line[name] for line in lines], color=colour, linewidth=0.7, label=name)
        counts.set(ylabel="per second", xlabel="minutes")
        for axes in (memory, latency, counts):
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(color=_INK, alpha=0.25, linewidth=0.6)
            axes.legend(frameon=False, ncols=4, loc="upper left", bbox_to_anchor=(0, 1.2), fontsize=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        figure.savefig(aside, format="svg", transparent=True, metadata={"Date": None})
        aside.rename(path)
