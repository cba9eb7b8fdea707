"""`ctxner index ...`: build, change and look into an index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctxner.config import Config, load_config
from jobs.commands.common import finish, with_given
from jobs.options import (
    NO_PATHS,
    NONE,
    AsJson,
    ColumnMapping,
    ConfigFile,
    Corpus,
    DryRun,
    IndexFolder,
    IndexOut,
    Language,
    Overrides,
    PassageUnit,
    Shards,
)
from jobs.summaries import of_index, of_index_stats

app = typer.Typer(rich_markup_mode="markdown")


@app.callback(invoke_without_command=True)
def index(
    context: typer.Context,
    corpus: Corpus = NO_PATHS,
    out: IndexOut = None,
    language: Language = None,
    unit: PassageUnit = None,
    columns: ColumnMapping = None,
    shards: Shards = None,
    config: ConfigFile = None,
    overrides: Overrides = NONE,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Build, change, check and search Lucene indexes; without a sub-command: build.

    Example: `ctxner index --corpus corpus.jsonl.gz --out runs/index`
    """
    if context.invoked_subcommand is None:
        index_build(corpus, out, language, unit, columns, shards, config, overrides, dry_run, json)
    elif corpus or out or language or unit or columns or shards or config or overrides or dry_run or json:
        raise ValueError(f"options go behind the sub-command: ctxner index {context.invoked_subcommand} --help")


@app.command("build")
def index_build(
    corpus: Corpus = NO_PATHS,
    out: IndexOut = None,
    language: Language = None,
    unit: PassageUnit = None,
    columns: ColumnMapping = None,
    shards: Shards = None,
    config: ConfigFile = None,
    overrides: Overrides = NONE,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Build an index of a corpus; the former version serves until the new one is complete.

    Example: `ctxner index build --corpus enwiki-pages-articles.xml.bz2 --unit sentence --shards 8 --out runs/index`
    """
    from jobs import index as job

    given = {"corpus": corpus or None, "folder": out, "language": language, "unit": unit, "shards": shards}
    settings = with_given(load_config(config, overrides), "index", {**given, "columns": job.parse_columns(columns)})
    _require_corpus(settings)
    finish(lambda: job.plan(settings) if dry_run else job.run(settings), json, summary=None if dry_run else of_index)


@app.command("add")
def index_add(
    corpus: Corpus = NO_PATHS,
    folder: IndexFolder = None,
    columns: ColumnMapping = None,
    config: ConfigFile = None,
    overrides: Overrides = NONE,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Add passages to an index; those whose id is there already are replaced.

    Example: `ctxner index add --corpus today.jsonl --index runs/index`
    """
    from jobs import index as job

    given = {"corpus": corpus or None, "folder": folder, "columns": job.parse_columns(columns)}
    settings = with_given(load_config(config, overrides), "index", given)
    _require_corpus(settings)
    finish(
        lambda: job.plan_add(settings) if dry_run else job.add(settings), json, summary=None if dry_run else of_index
    )


@app.command("delete")
def index_delete(
    ids: Annotated[list[str], typer.Argument(help="Ids of passages.")] = NONE,
    ids_file: Annotated[Path | None, typer.Option(help="File with an id on each line.")] = None,
    folder: IndexFolder = None,
    config: ConfigFile = None,
    overrides: Overrides = NONE,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Delete passages from an index.

    Example: `ctxner index delete news-17 news-18 --index runs/index`
    """
    from jobs import index as job

    settings = with_given(load_config(config, overrides), "index", {"folder": folder})
    wanted = [*ids, *(job.read_ids(ids_file) if ids_file else ())]
    if not wanted:
        raise ValueError("no id; give ids as arguments or --ids-file FILE")
    finish(
        lambda: job.plan_delete(settings, wanted) if dry_run else job.delete(settings, wanted),
        json,
        summary=None if dry_run else of_index,
    )


@app.command("verify")
def index_verify(
    folder: IndexFolder = None, config: ConfigFile = None, overrides: Overrides = NONE, json: AsJson = False
) -> None:
    """Check an index: Lucene's checksums, the number of passages, ids, the corpus hash; exit code 2 when not sound.

    Example: `ctxner index verify --index runs/index`
    """
    from jobs import index as job

    settings = with_given(load_config(config, overrides), "index", {"folder": folder})
    finish(lambda: job.verify(settings), json, summary=of_index)


@app.command("stats")
def index_stats(
    folder: IndexFolder = None,
    terms: Annotated[int, typer.Option(min=0, help="How many of the most frequent terms.")] = 20,
    config: ConfigFile = None,
    overrides: Overrides = NONE,
    json: AsJson = False,
) -> None:
    """Show what an index holds: passages, sources, sizes, lengths, frequent terms.

    Example: `ctxner index stats --index runs/index`
    """
    from jobs import index as job

    settings = with_given(load_config(config, overrides), "index", {"folder": folder})
    finish(lambda: job.stats(settings, terms), json, summary=of_index_stats)


@app.command("search")
def index_search(
    text: Annotated[str, typer.Argument(help="A sentence, or words to search for.")],
    depth: Annotated[int, typer.Option(min=1, help="Most passages.")] = 10,
    folder: IndexFolder = None,
    config: ConfigFile = None,
    overrides: Overrides = NONE,
    json: AsJson = False,
) -> None:
    """Search an index, as sentences are searched for.

    Example: `ctxner index search "We met in Velmora." --index runs/demo/index`
    """
    from jobs import index as job

    settings = with_given(load_config(config, overrides), "index", {"folder": folder})
    finish(lambda: job.search(settings, text, depth), json, show=job.show_hits)


def _require_corpus(config: Config) -> None:
    if not config.index.corpus:
        raise ValueError("no corpus; give --corpus FILE or set index.corpus")
