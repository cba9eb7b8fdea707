"""`ctxner doctor`: what could stop a job on this machine, or on each node of a cluster, and what to do about it."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.console import show_table
from jobs.node_checks import Finding, node_findings, versions
from jobs.working_dir import working_dir

_CLOCK_SECONDS = 2.0  # largest difference of clocks, beyond what the call takes; tokens and leases depend on them
_NODE_SECONDS = 120.0
_STYLES = {"ok": "green", "warning": "yellow", "failure": "red"}


def run(storages: Sequence[str] = (), folder: Path | None = None) -> dict[str, Any]:
    """Look at this machine, or with `RAY_ADDRESS` at each node of that cluster.

    Args:
        storages: Folders or URIs that have to be writable from everywhere.
        folder: Folder that is to be submitted as `--working-dir`; its size is looked at here.

    Returns:
        `findings`, each with its `node`; `num` by status; `ok`: whether there is no failure.
    """
    if os.environ.get("RAY_ADDRESS"):
        rows = _cluster(storages)
    else:
        rows = [_row("here", finding) for finding in node_findings(storages)["findings"]]
    if folder is not None:
        rows.append(_row("here", working_dir(folder)))
    counts = Counter(row["status"] for row in rows)
    return {
        "findings": rows,
        "num": {status: counts[status] for status in _STYLES},
        "ok": not counts["failure"],
    }


def _cluster(storages: Sequence[str]) -> list[dict[str, Any]]:
    """Findings of each node, asked by a task that runs there."""
    from jobs.cluster import connect

    connect()
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    ask = ray.remote(num_cpus=0, max_retries=0)(node_findings)
    asked = {
        node: (
            time.time(),
            ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(list(storages)),
        )
        for node in nodes
    }
    rows, here = list[dict[str, Any]](), versions()
    for node, (began, answer) in asked.items():
        name = nodes[node]
        try:
            told = ray.get(answer, timeout=_NODE_SECONDS)
        except Exception as error:  # whatever stops a node from answering is the finding
            found = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
            advice = f"no answer within {_NODE_SECONDS:.0f} s or no ctxner there: install the same image on every node"
            rows.append(_row(name, Finding("node", "failure", found, advice)))
            continue
        rows += [_row(name, finding) for finding in told["findings"]]
        rows += [_row(name, finding) for finding in compared(told, here, began, time.time())]
    return rows


def compared(told: Mapping[str, Any], here: Mapping[str, str], began: float, ended: float) -> list[Finding]:
    """A node's versions and clock beside those of the machine that asks.

    Args:
        told: What `node_findings` returned there.
        here: Versions of this process.
        began: Time at which the node was asked, in seconds since 1970.
        ended: Time at which its answer had come.
    """
    other = [
        f"{name} {told['versions'].get(name)} (here {have})"
        for name, have in here.items()
        if told["versions"].get(name) != have
    ]
    off = max(began - told["clock"], told["clock"] - ended, 0.0)
    return [
        Finding("versions", "failure", ", ".join(other), "install the same image or constraints.txt on every node")
        if other
        else Finding("versions", "ok", f"ctxner {here['ctxner']}, Ray {here['ray']}, as here"),
        Finding("clock", "warning", f"{off:.1f} s off", "let NTP set the clocks: tokens and leases expire by them")
        if off > _CLOCK_SECONDS
        else Finding("clock", "ok", "as here"),
    ]


def _row(node: str, finding: Finding) -> dict[str, Any]:
    return {"node": node, **asdict(finding)}


def show(result: Mapping[str, Any]) -> None:
    """Print the findings for people, failures last, and a line that sums them up."""
    table = Table("node", "check", "found", "what to do", box=None, header_style="bold", pad_edge=False)
    for row in sorted(result["findings"], key=lambda row: list(_STYLES).index(row["status"])):
        style = _STYLES[row["status"]]
        table.add_row(row["node"], Text(row["check"], style=style), Text(row["found"]), Text(row["advice"]))
    show_table(table)
    num = result["num"]
    Console(highlight=False).print(f"{num['ok']} fine, {num['warning']} warnings, {num['failure']} failures")
