"""The tables that `ctxner evaluate` prints for people; `jobs.pages.evaluation` writes its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from ctxner.evaluation.errors import KINDS
from ctxner.evaluation.scores import Score
from jobs.console import score_percent


def _percent(fraction: float, *, of: int = 1) -> str:
    """A share in percent; `none` where it is a share of nothing."""
    return f"{100 * fraction:.1f}" if of else "none"


def overview(result: dict[str, Any]) -> Table:
    """One line per view."""
    names = ("view", "P", "R", "F1", f"95% interval, by {result['unit']}", "surface F1", "ECE", "looked up")
    table = Table(*names, box=None, pad_edge=False)
    shares: dict[str, float | None] = {"plain": 0.0, "context": 1.0, "auto": result["auto"].get("share")}
    for view, detail in result["details"].items():
        micro, share = result["scores"][view]["micro"], shares[view]
        ratios = [score_percent(micro, name) for name in ("precision", "recall", "f1")]
        interval = "none" if ratios[-1] == "none" else "–".join(map(_percent, detail["interval"]))
        surface = score_percent(detail["surface"]["micro"], "f1")
        error = _percent(detail["calibration"]["error"], of=micro["num_predicted"])
        table.add_row(view, *ratios, interval, surface, error, f"{share:.0%}")
    return table


def type_table(scores: Mapping[str, Any]) -> Table:
    """F1 (precision / recall) by type, one column per view."""
    table = Table("type", *(f"{view}: F1 (P / R)" for view in scores), "gold", box=None, pad_edge=False)
    for type in sorted({type for view_scores in scores.values() for type in view_scores["per_type"]}):
        rows = [view_scores["per_type"].get(type, Score().to_dict()) for view_scores in scores.values()]
        cells = [
            "{} ({} / {})".format(*(score_percent(row, name) for name in ("f1", "precision", "recall"))) for row in rows
        ]
        table.add_row(Text(type), *cells, f"{max(row['num_gold'] for row in rows):,}")
    return table


def error_table(details: Mapping[str, Any]) -> Table:
    """Kinds of errors, and recall of seen and unseen mentions, with and without an entry, one column per view."""
    table = Table("mentions", *details, box=None, pad_edge=False)
    for kind in KINDS:
        table.add_row(kind.replace("_", " "), *(f"{detail['kinds'][kind]:,}" for detail in details.values()))
    for key in ("seen", "entries"):
        if all(key in detail for detail in details.values()):
            for name in next(iter(details.values()))[key]:
                scores = [detail[key][name] for detail in details.values()]
                table.add_row(f"recall, {name}", *(_recall(score) for score in scores))
    return table


def _recall(score: Mapping[str, Any]) -> str:
    return f"{score_percent(score, 'recall')} of {score['num_gold']:,}" if score["num_gold"] else "none"


def in_words(comparison: dict[str, Any]) -> str:
    """A paired comparison as one line."""
    low, high = comparison["interval"]
    return (
        f"F1 {100 * comparison['difference']:+.1f} points, 95% interval {100 * low:+.1f} to {100 * high:+.1f}, "
        f"p = {comparison['p_value']:.4f}, by {comparison['unit']}"
    )


def units_in_words(result: Mapping[str, Any]) -> str:
    """What intervals draw and paired tests exchange, and why, as one line."""
    units = f"by {result['unit']}, {result['num_units']:,} {result['unit']}s"
    return f"{units}, since {result['unit_reason']}" if result["unit_reason"] else units
