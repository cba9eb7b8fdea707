"""The `ctxner` command: puts the commands together and shows their errors; they are declared in `jobs.commands`."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import entry_points, version
from typing import Annotated

import typer

from ctxner import __version__
from jobs import console as terminal
from jobs.commands import cluster, cost, experiment, index, models, pipeline, sentences
from jobs.exit_codes import TRY_AGAIN, exit_code

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _show_versions(wanted: bool) -> None:
    """Print the versions that a report of a fault needs; nothing heavy is imported."""
    if wanted:
        packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "ray", "transformers"))
        typer.echo(f"ctxner {__version__} (Python {platform.python_version()}, {packages})")
        raise typer.Exit


@app.callback()
def ctxner(
    versions: Annotated[
        bool, typer.Option("--version", callback=_show_versions, is_eager=True, help="Show versions and exit.")
    ] = False,
) -> None:
    """Named-entity recognition that looks things up: index, retrieve, train, evaluate, calibrate, tag."""


app.add_typer(index.app, name="index")
app.add_typer(sentences.app)
app.add_typer(models.app)
app.add_typer(experiment.app, name="experiment")
app.add_typer(pipeline.app)
app.add_typer(cluster.app)
app.add_typer(cost.app)


def main() -> None:
    """Entry point: errors that a user can mend, or that may pass, are one message; see `jobs.exit_codes`."""
    terminal.set_up_logging()
    for commands in entry_points(group="ctxner.commands"):  # commands of serving, which jobs does not import
        app.add_typer(commands.load())
    try:
        app()
    except Exception as error:
        if type(error).__name__ == "JavaException":  # of pyjnius, which only a process with a JVM may import
            from ctxner.retrieval.lucene.reader import damaged

            error = ValueError(damaged(error))
        if (code := exit_code(error)) is None:
            raise
        terminal.fail(error)
        if code == TRY_AGAIN:
            terminal.warn("this may pass; the same command goes on where it stopped")
        sys.exit(code)
