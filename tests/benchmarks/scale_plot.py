"""The plot of docs/scale.md: hours of each stage on 1 to 256 hosts, readable on light and on dark pages.

`ctxner cost ... --hosts 1 --hosts 2 ... --json | python -m tests.benchmarks.scale_plot` draws docs/figures/scale.svg.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

PLOT = Path(__file__).parents[2] / "docs" / "figures" / "scale.svg"
_INK = "#7d8590"
_COLOURS = ("#2f81f7", "#e8590c", "#2f9e44", "#a371f7", "#d29922", "#db61a2", "#1b9aaa")
_SIZE = (7.2, 4.2)  # inches


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw the plans into an SVG file."""
    plans = result["plans"]
    hosts = [plan["hosts"] for plan in plans]
    stages = [[stage for job in plan["jobs"] for stage in job["stages"]] for plan in plans]
    style = {"svg.hashsalt": "scale", "font.size": 9, "axes.edgecolor": _INK, "axes.labelcolor": _INK}
    style |= {"xtick.color": _INK, "ytick.color": _INK, "text.color": _INK}
    with rc_context(style):
        figure = Figure(_SIZE, layout="constrained")
        axes = figure.subplots()
        axes.plot(hosts, [plan["hours"] for plan in plans], color=_INK, marker="o", linewidth=2.2, label="all")
        for colour, line in zip(_COLOURS, zip(*stages, strict=True), strict=False):
            axes.plot(hosts, [stage["hours"] for stage in line], color=colour, marker=".", label=line[0]["stage"])
        axes.set(xscale="log", yscale="log", xlabel="hosts", ylabel="hours", xticks=hosts)
        axes.set_xticks(hosts, [str(number) for number in hosts], minor=False)
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=_INK, alpha=0.25, linewidth=0.6)
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        figure.savefig(aside, format="svg", transparent=True, metadata={"Date": None})
        aside.rename(path)


if __name__ == "__main__":
    plot(json.load(sys.stdin), PLOT)
