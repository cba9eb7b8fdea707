"""Commands about data sets and the passages found for them: `data`, `retrieve`, `audit`, `retrieval-report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ctxner.config import load_config
from ctxner.files.uris import path_or_uri
from jobs.commands.common import finish, of_run, with_given
from jobs.options import (
    NO_PATHS,
    NONE,
    AsJson,
    ConfigFile,
    Converted,
    DryRun,
    IndexFolder,
    OfModel,
    Overrides,
    SentenceFiles,
    SentenceFormat,
)
from jobs.summaries import of_retrieve

app = typer.Typer(rich_markup_mode="markdown")


@app.command()
def data(
    files: SentenceFiles = NO_PATHS,
    format: SentenceFormat = "auto",
    to: Annotated[
        tuple[Converted, Path] | None,
        typer.Option("--to", metavar="FORMAT OUT", help="Write all sentences to OUT too: `jsonl` or `columns`."),
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = NONE,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Show what files of sentences are read as, what is in them and what is odd; convert them.

    Example: `ctxner data train.conll dev.conll --set data.scheme=IOB1`

    Example: `ctxner data export.jsonl --to jsonl train.jsonl`
    """
    from jobs import data as job
    from jobs.data_tables import show

    settings = load_config(config, overrides)
    target = (to[0].value, to[1]) if to else None
    kind = None if format == "auto" else format
    finish(lambda: job.run(settings, files, kind=kind, to=target, dry_run=dry_run), json, show=show)


@app.command()
def retrieve(
    files: SentenceFiles = NO_PATHS,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", parser=path_or_uri, help="Folder of contexts files, or its URI (default: data.contexts)."
        ),
    ] = None,
    folder: IndexFolder = None,
    format: SentenceFormat = "auto",
    split: Annotated[
        list[str], typer.Option(help="train, dev or test; repeatable; all configured ones by default.")
    ] = [],  # noqa: B006
    config: ConfigFile = None,
    overrides: Overrides = NONE,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Retrieve and re-rank passages for every sentence of a data set, or of files; those need no gold tags.

    Example: `ctxner retrieve -c jobs/configs/wnut17-small.yaml`

    Example: `ctxner retrieve "posts/*.jsonl.gz" --index runs/index --out runs/posts`
    """
    from jobs import retrieve as job

    settings = with_given(load_config(config, overrides), "index", {"folder": folder})
    settings = with_given(settings, "data", {"contexts": out})
    act = job.plan if dry_run else job.run
    kind = None if format == "auto" else format
    finish(lambda: act(settings, split, files, kind), json, summary=None if dry_run else of_retrieve)


@app.command()
def audit(
    model: OfModel = None,
    corpus: Annotated[
        list[Path], typer.Option("--corpus", parser=path_or_uri, help="Files as for `ctxner index`; repeatable.")
    ] = [],  # noqa: B006
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="HTML page (default: runs/audit-FOLDER.html, of the data's folder)."),
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = NONE,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Find sentences that have copies in the corpus or in other splits, and mentions that training has seen.

    Example: `ctxner audit --model runs/first/model`

    Example: `ctxner audit -c jobs/configs/wnut17-small.yaml --out runs/audit.html`
    """
    from jobs import audit as job

    settings = with_given(of_run(model, config, overrides), "index", {"corpus": tuple(corpus) or None})

    def result() -> dict[str, Any]:
        return (job.plan if dry_run else job.run)(settings, out or job.default_page(settings))

    finish(result, json, summary=None if dry_run else job.summary)


@app.command()
def retrieval_report(
    model: OfModel = None,
    split: Annotated[str, typer.Option(help="Which file of the data section.")] = "dev",
    k: Annotated[list[int], typer.Option("--k", help="Look at the first k passages; repeatable.")] = [1, 3, 6, 10],  # noqa: B006
    ceiling: Annotated[bool, typer.Option("--ceiling", help="Look for the mentions in the whole corpus too.")] = False,
    corpus: Annotated[
        list[Path], typer.Option("--corpus", parser=path_or_uri, help="For --ceiling (default: index.corpus).")
    ] = [],  # noqa: B006
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="HTML page (default: retrieval-SPLIT.html, or -2.html, ..., beside the contexts)."
        ),
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = NONE,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Measure what retrieval found: the share of gold mentions in the passages, scores, what was dropped and why.

    Example: `ctxner retrieval-report --model runs/first/model --split dev`

    Example: `ctxner retrieval-report -c jobs/configs/wnut17-small.yaml --split dev --ceiling`
    """
    from jobs import retrieval_report as job
    from jobs.retrieval_rows import summary

    settings = with_given(of_run(model, config, overrides), "index", {"corpus": tuple(corpus) or None})

    def result() -> dict[str, Any]:
        page = out or job.default_page(settings, split, k, with_ceiling=ceiling)
        return (job.plan if dry_run else job.run)(settings, split, k, with_ceiling=ceiling, out=page)

    finish(result, json, summary=None if dry_run else summary)
