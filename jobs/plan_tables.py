"""Tables of `ctxner train --dry-run`: a run's arithmetic, memory and traffic by ZeRO stage, and batches that fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ctxner.training.estimate.memory import STAGES
from ctxner.training.estimate.step_time import H100, SENTENCES, UTILIZATION

_ROWS = {
    "parameters": "parameters",
    "gradients": "gradients",
    "optimizer": "AdamW's moments",
    "master_weights": "float32 master weights",
    "buffers": "DeepSpeed's buffers",
    "activations": "activations",
    "total": "total",
    "activations_checkpointed": "activations, checkpointed",
    "total_checkpointed": "total, checkpointed",
    "sent_a_step": "sent a step",
}
_TOTALS = ("total", "total_checkpointed")


def show_plan(plan: Mapping[str, Any], *, configured_stage: int) -> None:
    """Print the plan on stdout.

    Args:
        plan: Plan from `ctxner.training.plan.plan`.
        configured_stage: ZeRO stage of the config; its column is marked.
    """
    out = Console()
    out.print(_arithmetic(plan))
    out.print(_stages(plan, configured_stage))
    out.print(_fits(plan["fits"]))
    out.print(_step_times(plan["step_times"]))
    for doubt in plan["doubts"]:
        out.print(f"[yellow]note:[/] {escape(doubt)}", soft_wrap=True)


def size(num_bytes: int) -> str:
    """Bytes in the unit that leaves one to four digits before the point."""
    value, unit = float(num_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def _arithmetic(plan: Mapping[str, Any]) -> Table:
    parameters, batch = plan["parameters"], plan["global_batch"]
    largest = ", ".join(
        f"{size['rows']} x {size['pieces']} {view}" for view, size in plan["largest_micro_batch"].items()
    )
    facts = {
        "sentences": ", ".join(f"{split} {count:,}" for split, count in plan["sentences"].items()),
        "types": ", ".join(plan["types"]),
        "pieces an epoch": ", ".join(f"{view} {count:,}" for view, count in plan["pieces_an_epoch"].items()),
        "padding": ", ".join(f"{view} {100 * share:.1f}%" for view, share in plan["padding"].items()),
        "steps": f"{plan['steps_an_epoch']:,} an epoch, {plan['steps']:,} in all",
        "global batch": f"{batch['sentences']:.1f} sentences, {batch['pieces']:,.0f} pieces with padding, on average",
        "largest micro-batch": f"{largest} (rows x pieces, of one of {plan['workers']} workers)",
        "parameters": ", ".join(f"{part} {parameters[part]:,}" for part in ("encoder", "head", "crf", "trainable")),
        "pieces a row": f"{plan['max_pieces']} at most",
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    for name, value in facts.items():
        table.add_row(name, value)
    return table


def _stages(plan: Mapping[str, Any], configured: int) -> Table:
    rows = plan["zero_stages"]
    table = Table("a worker, computed", title="Memory and traffic", title_justify="left")
    for row in rows:
        mark = " (set)" if row["zero_stage"] == configured else ""
        table.add_column(f"ZeRO {row['zero_stage']}{mark}", justify="right")
    for key, label in _ROWS.items():
        table.add_row(
            label,
            *(size(row[key]) for row in rows),
            style="bold" if key in _TOTALS else "",
            end_section=key in (*_TOTALS, "sent_a_step"),
        )
    return table


def _fits(fits: list[dict[str, Any]]) -> Table:
    table = Table(
        "encoder",
        "GPUs",
        title="Largest optim.batch_pieces that fits, in bfloat16; * with gradient checkpointing",
        title_justify="left",
    )
    for stage in range(len(fits[0]["batch_pieces"])):
        table.add_column(f"ZeRO {stage}", justify="right", no_wrap=True)
    for number, row in enumerate(fits):
        cells = (
            "–" if pieces is None else f"{pieces / 1000:,.{int(pieces < 100_000)}f}k" for pieces in row["batch_pieces"]
        )
        last = number + 1 == len(fits) or fits[number + 1]["encoder"] != row["encoder"]
        mark = " *" if row["checkpointing"] else ""
        table.add_row(row["encoder"], f"{row['machine']}{mark}", *cells, end_section=last)
    return table


def _step_times(times: Mapping[str, list[dict[str, Any]]]) -> Table:
    table = Table(
        "encoder",
        "GPUs",
        title=f"Expected ms a step: {H100.name} at {UTILIZATION:.0%}, {SENTENCES} sentences a GPU",
        title_justify="left",
    )
    for stage in STAGES:
        table.add_column(f"ZeRO {stage}", justify="right", no_wrap=True)
    for name, rows in times.items():
        for row in rows:
            cells = (f"{1000 * seconds:,.1f}" for seconds in row["seconds"])
            table.add_row(name, str(row["gpus"]), *cells, end_section=row is rows[-1])
    return table
