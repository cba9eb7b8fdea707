"""`ctxner cost`: jobs or a study on paper, for each number of hosts, as a dict and as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from jobs.console import whole_words
from jobs.cost.files import Costs, Hosts
from jobs.cost.model import Fleet, Job, bound, driver_bytes, fits, host_bytes, total_seconds

_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"))


def fleets(hosts: Hosts, kind: str, numbers: Sequence[int], workers: int | None, costs: Costs) -> list[Fleet]:
    """The fleets of one kind of host; each worker has a core, unless fewer workers are asked for."""
    chosen = hosts.kind(kind)
    each = workers or chosen.cores
    return [Fleet(chosen, number, each, hosts.storage_gbit, costs.ray_cores) for number in numbers]


def report(
    make: Callable[[Fleet], Sequence[Job]], fleets: Sequence[Fleet], kind: str, costs: Costs, hosts: Hosts
) -> dict[str, Any]:
    """What the jobs take on each fleet.

    Args:
        make: Function that plans the jobs for a fleet.
        fleets: Hosts.
        kind: Name of their kind.
        costs: Measured costs.
        hosts: File of hosts, for the currency.
    """
    plans = [_plan(make(fleet), fleet, costs) for fleet in fleets]
    return {"kind": kind, "currency": hosts.currency, "plans": plans}


def _plan(jobs: Sequence[Job], fleet: Fleet, costs: Costs) -> dict[str, Any]:
    seconds = total_seconds(jobs, costs)
    return {
        "hosts": fleet.hosts,
        "workers": fleet.workers,
        "jobs": [_job(job, fleet, costs) for job in jobs],
        "hours": seconds / 3600,
        "price": seconds / 3600 * fleet.hosts * fleet.kind.price,
        "host_memory_bytes": round(max(host_bytes(job, fleet, costs) for job in jobs)),
        "driver_memory_bytes": round(max(driver_bytes(job, costs) for job in jobs)),
        "host_disk_bytes": round(max(row.held_bytes for job in jobs for row in job.rows)),
        "fits": fits(jobs, fleet, costs),
        "bound": bound(jobs, fleet, costs),
        "notes": list(dict.fromkeys(note for job in jobs for note in job.notes)),
    }


def _job(job: Job, fleet: Fleet, costs: Costs) -> dict[str, Any]:
    return {
        "job": job.name,
        "hours": total_seconds([job], costs) / 3600,
        "host_memory_bytes": round(host_bytes(job, fleet, costs)),
        "stages": [
            {
                "stage": row.stage,
                "units": round(row.units),
                "unit": row.unit,
                "hours": row.seconds / 3600,
                "parts": {name: seconds / 3600 for name, seconds in row.parts.items()},
                "cpu_hours": row.cpu_seconds / 3600,
                "read_bytes": round(row.read_bytes),
                "written_bytes": round(row.written_bytes),
                "sent_bytes": round(row.sent_bytes),
                "held_bytes": round(row.held_bytes),
                "worker_bytes": round(row.worker_bytes),
                "driver_bytes": round(row.driver_bytes),
                "bound": row.bound,
            }
            for row in job.rows
        ],
    }


def show(result: dict[str, Any]) -> None:
    """Print the tables for people."""
    out = Console(highlight=False)
    for plan in result["plans"]:
        right = [Column(name, justify="right") for name in ("units", "hours", "read", "written", "per worker")]
        title = f"{plan['hosts']} x {result['kind']}, {plan['workers']} workers each"
        stages = Column("stage")
        table = Table(stages, *right, "bound by", title=title, title_justify="left", box=None)
        for job in plan["jobs"]:
            table.add_row(job["job"], "", f"{job['hours']:,.2f}", style="bold")
            for stage in job["stages"]:
                table.add_row(
                    f"  {stage['stage']}",
                    f"{stage['units']:,}",
                    f"{stage['hours']:,.2f}",
                    _size(stage["read_bytes"]),
                    _size(stage["written_bytes"]),
                    _size(stage["worker_bytes"]),
                    stage["bound"],
                )
        whole_words(table)
        stages.min_width = (stages.min_width or 0) + 2  # their indent
        out.print(table, crop=False)
        out.print(
            f"{plan['hours']:,.1f} hours, {plan['price']:,.0f} {result['currency']}; bound by {plan['bound']}; memory "
            f"per host {_size(plan['host_memory_bytes'])}{'' if plan['fits'] else ' (does not fit)'}, of it the driver "
            f"{_size(plan['driver_memory_bytes'])}; index on each host's disk {_size(plan['host_disk_bytes']) or '0'}",
            soft_wrap=True,
        )
        for note in plan["notes"]:
            out.print(f"note: {note}", soft_wrap=True)
        out.print()


def _size(num_bytes: float) -> str:
    if not num_bytes:
        return ""
    unit, name = next(((unit, name) for unit, name in _UNITS if num_bytes >= unit), (1e6, "MB"))
    return f"{num_bytes / unit:,.1f} {name}" if num_bytes < 100 * unit else f"{num_bytes / unit:,.0f} {name}"
