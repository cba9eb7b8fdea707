"""Tables of `ctxner train --dry-run`: a run's arithmetic, memory and traffic by ZeRO stage, and batches that fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ctxner.training.estimate.memory import STAGES
from ctxner.training.estimate.step_time import H100, SENTENCES, UTILIZATION
from jobs.console import show, show_table, size

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


def show_plan(plan: Mapping[str, Any], *, configured_stage: int, verbose: bool = False) -> None:
    """Print the plan on stdout: what matters for this data on this machine; other hardware where it is needed.

    Args:
        plan: Plan from `ctxner.training.plan.plan`.
        configured_stage: ZeRO stage of the config; its column is marked.
        verbose: Whether to print the arithmetic in detail, all ZeRO stages and other hardware; they are printed, too,
            when the run does not fit into this machine's memory.
    """
    out = Console()
    show(overview(plan, configured_stage))
    show_table(_mentions(plan["mentions"]))
    if verbose or not _memory(plan, configured_stage)[1]:
        show(_arithmetic(plan))
        show_table(_stages(plan, configured_stage), _fits(plan["fits"]), _step_times(plan["step_times"]))
    for split, reason in plan.get("to_retrieve", {}).items():
        text = f"passages for {split} are retrieved first ({reason}); the figures above are without them"
        out.print(escape(text), highlight=False, soft_wrap=True)
    for doubt in plan["doubts"]:
        out.print(f"[yellow]note:[/] {escape(doubt)}", soft_wrap=True)


def overview(plan: Mapping[str, Any], configured_stage: int) -> dict[str, str]:
    """Sentences, steps, time and memory, in words; arguments as of `show_plan`."""
    minutes, (needed, fits) = plan["minutes_here"], _memory(plan, configured_stage)
    return {
        "sentences": ", ".join(f"{split} {count:,}" for split, count in plan["sentences"].items()),
        "steps": f"{plan['steps_an_epoch']:,} an epoch, {plan['steps']:,} in all",
        "time": "not estimated: it runs on GPUs"
        if minutes is None
        else f"about {max(1, round(minutes))} min on this machine when it is idle (a rough estimate)",
        "memory": f"{size(needed)} for {plan['workers']} workers, computed"
        + ("" if minutes is None else f"; this machine has {size(plan['memory_here'])}")
        + ("" if fits else ": too little, see below"),
    }


def _memory(plan: Mapping[str, Any], stage: int) -> tuple[int, bool]:
    """Bytes that all workers take, and whether this machine has them; on GPUs its memory does not count."""
    needed = plan["workers"] * plan["zero_stages"][stage]["total"]
    return needed, plan["minutes_here"] is None or needed <= plan["memory_here"]


def _mentions(mentions: Mapping[str, Mapping[str, int]]) -> Table:
    table = Table("mentions", *mentions, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    types = dict.fromkeys(type for counts in mentions.values() for type in counts)
    for type in types:
        table.add_row(escape(type), *(f"{counts.get(type, 0):,}" for counts in mentions.values()))
    return table


def _arithmetic(plan: Mapping[str, Any]) -> dict[str, str]:
    parameters, batch = plan["parameters"], plan["global_batch"]
    largest = ", ".join(
        f"{size['rows']} x {size['pieces']} {view}" for view, size in plan["largest_micro_batch"].items()
    )
    return {
        "pieces an epoch": ", ".join(f"{view} {count:,}" for view, count in plan["pieces_an_epoch"].items()),
        "padding": ", ".join(f"{view} {100 * share:.1f}%" for view, share in plan["padding"].items()),
        "global batch": f"{batch['sentences']:.1f} sentences, {batch['pieces']:,.0f} pieces with padding, on average",
        "largest micro-batch": f"{largest} (rows x pieces, of one of {plan['workers']} workers)",
        "parameters": ", ".join(f"{part} {parameters[part]:,}" for part in ("encoder", "head", "crf", "trainable")),
        "pieces a row": f"{plan['max_pieces']} at most",
    }


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
