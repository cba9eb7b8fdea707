"""Commands about machines and clusters: `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.commands.common import finish
from jobs.options import NONE, AsJson

app = typer.Typer(rich_markup_mode="markdown")


@app.command()
def doctor(
    storage: Annotated[
        list[str],
        typer.Option("--storage", help="Folder or URI that has to be writable from every node; repeatable."),
    ] = NONE,
    working_dir: Annotated[
        Path | None,
        typer.Option("--working-dir", help="Folder for `ray job submit --working-dir`: is it small enough?"),
    ] = None,
    json: AsJson = False,
) -> None:
    """Look for what could stop a job: versions, Java, memory, disks, storage, GPUs, clock, open ports, Ray's token.

    Looks at this machine, and with `RAY_ADDRESS` at each node of that cluster. Exit code 1 when something will fail.

    Example: `ctxner doctor`

    Example: `ctxner doctor --working-dir .`

    Example: `RAY_ADDRESS=head:6379 ctxner doctor --storage s3://bucket/runs`
    """
    from jobs import doctor as job

    outcome = finish(lambda: job.run(storage, working_dir), json, show=job.show)
    if not outcome["ok"]:
        raise typer.Exit(1)
