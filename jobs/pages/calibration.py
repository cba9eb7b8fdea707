"""The page of `ctxner calibrate`: F1 against the share that is looked up, and reliability diagrams of both views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ctxner.evaluation.calibration import AutoPoint, Bin, PlattScaling
from jobs.pages.charts import VIEWS, Panel
from jobs.pages.page import named_panel, write_page

BINS_SHOWN = 10
_STEP = 5  # percent of the sentences between two dots of the curve
_CURVE = ("plain view alone", "context view alone", "chosen", "auto")
_DIAGRAM = ("perfect", "before", "after")


@dataclass(frozen=True, slots=True)
class ViewReport:
    """How good a view's confidences are. Values after scaling are cross-fitted: no entity is scaled by its own fit.

    Attributes:
        scaling: Scaling fitted on all entities; None when `fit_platt` finds none.
        num_entities: Number of predicted entities.
        f1: Micro F1 of the view.
        ece: Expected calibration error before and after scaling, in 15 bins.
        bins: Reliability diagram before and after scaling, in `BINS_SHOWN` bins.
    """

    scaling: PlattScaling | None
    num_entities: int
    f1: float
    ece: tuple[float, float]
    bins: tuple[list[Bin], list[Bin]]


def write_calibration_page(
    path: Path,
    reports: Mapping[str, ViewReport],
    curve: Sequence[AutoPoint],
    chosen: AutoPoint | None,
    *,
    title: str,
    facts: Mapping[str, str],
) -> Path:
    """Write the page under a temporary name, then rename it.

    Args:
        path: HTML file to write.
        reports: Reports by view.
        curve: Curve of `auto`; empty without contexts.
        chosen: Chosen point of the curve; None without contexts.
        title: Heading of the page.
        facts: What a reader needs to repeat the run.
    """
    return write_page(
        path,
        "calibration.html.j2",
        title=title,
        eyebrow="ctxner calibrate",
        views=VIEWS,
        reports=reports,
        chosen=chosen,
        curve=curve_panel(curve, chosen) if chosen else None,
        curve_names=_CURVE,
        diagrams=[panel for view, report in reports.items() if (panel := diagram(VIEWS[view], report))],
        diagram_names=_DIAGRAM,
        places=range(BINS_SHOWN),
        bins={
            view: [{round(point.low * BINS_SHOWN): point for point in bin} for bin in report.bins]
            for view, report in reports.items()
        },
        facts=facts,
    )


def curve_panel(curve: Sequence[AutoPoint], chosen: AutoPoint) -> Panel | None:
    """F1 in percent by the share looked up, in steps of 5%; each step shows the nearest point of the curve."""
    shares = list(range(0, 101, _STEP))
    points = [min(curve, key=lambda point: abs(100 * point.share - share)) for share in shares]
    at_chosen = round(100 * chosen.share / _STEP)
    values: dict[int, list[float | None]] = {
        0: [100 * curve[0].f1] * len(shares),
        1: [100 * curve[-1].f1] * len(shares),
        3: [100 * point.f1 for point in points],
        2: [100 * chosen.f1 if place == at_chosen else None for place in range(len(shares))],  # drawn last
    }
    f1 = [value for points in values.values() for value in points if value is not None]
    labels = [f"{100 * point.share:.1f}% looked up, above {point.threshold:.3g} nats" for point in points]
    labels[at_chosen] = f"{100 * chosen.share:.1f}% looked up, above {chosen.threshold:.3g} nats"
    return named_panel("F1 of auto", "F1, %", [str(share) for share in shares], labels, values, (min(f1), max(f1)))


def diagram(title: str, report: ViewReport) -> Panel | None:
    """The share of entities that are right in each bin of confidence, before and after scaling, in percent."""
    edges = [round(100 * place / BINS_SHOWN) for place in range(BINS_SHOWN + 1)]
    values: dict[int, list[float | None]] = {0: [(low + high) / 2 for low, high in pairwise(edges)]}
    for line, bins in enumerate(report.bins, start=1):
        accuracy = {round(bin.low * BINS_SHOWN): 100 * bin.accuracy for bin in bins}
        values[line] = [accuracy.get(place) for place in range(BINS_SHOWN)]
    labels = [f"confidence {low} to {high}%" for low, high in pairwise(edges)]
    return named_panel(title, "right, %", [f"{edge}+" for edge in edges[:-1]], labels, values, (0, 100))
