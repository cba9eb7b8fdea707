"""The `ctxner` command: only Typer's declarations; each job has its own module for the work."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ctxner import __version__
from ctxner.config import DEMO_MODES, Config, load_config
from jobs import console as terminal
from jobs.experiment.commands import app as experiment_app
from jobs.model_settings import renew_contexts, settings_for
from jobs.options import (
    NO_PATHS,
    NONE,
    AsJson,
    ColumnMapping,
    ConfigFile,
    Converted,
    Corpus,
    DryRun,
    IndexFolder,
    IndexOut,
    Language,
    Model,
    Overrides,
    PassageUnit,
    SentenceFiles,
    SentenceFormat,
    Shards,
    Written,
)

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


index_app = typer.Typer(rich_markup_mode="markdown")
app.add_typer(index_app, name="index")
app.add_typer(experiment_app, name="experiment")


@index_app.callback(invoke_without_command=True)
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


@index_app.command("build")
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
    settings = _with(load_config(config, overrides), "index", {**given, "columns": job.parse_columns(columns)})
    _require_corpus(settings)
    _finish(lambda: job.plan(settings) if dry_run else job.run(settings), json)


@index_app.command("add")
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
    settings = _with(load_config(config, overrides), "index", given)
    _require_corpus(settings)
    _finish(lambda: job.plan_add(settings) if dry_run else job.add(settings), json)


@index_app.command("delete")
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

    settings = _with(load_config(config, overrides), "index", {"folder": folder})
    wanted = [*ids, *(job.read_ids(ids_file) if ids_file else ())]
    if not wanted:
        raise ValueError("no id; give ids as arguments or --ids-file FILE")
    _finish(lambda: job.plan_delete(settings, wanted) if dry_run else job.delete(settings, wanted), json)


@index_app.command("verify")
def index_verify(
    folder: IndexFolder = None, config: ConfigFile = None, overrides: Overrides = NONE, json: AsJson = False
) -> None:
    """Check an index: Lucene's checksums, the number of passages, ids, the corpus hash; exit code 1 when not sound.

    Example: `ctxner index verify --index runs/index`
    """
    from jobs import index as job

    settings = _with(load_config(config, overrides), "index", {"folder": folder})
    _finish(lambda: job.verify(settings), json)


@index_app.command("stats")
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

    settings = _with(load_config(config, overrides), "index", {"folder": folder})
    _finish(lambda: job.stats(settings, terms), json)


@index_app.command("search")
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

    settings = _with(load_config(config, overrides), "index", {"folder": folder})
    _finish(lambda: job.search(settings, text, depth), json, show=job.show_hits)


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
    _finish(lambda: job.run(settings, files, kind=kind, to=target, dry_run=dry_run), json, show=show)


@app.command()
def retrieve(
    files: SentenceFiles = NO_PATHS,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of contexts files (default: data.contexts).")
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

    settings = _with(load_config(config, overrides), "index", {"folder": folder})
    settings = _with(settings, "data", {"contexts": out})
    act = job.plan if dry_run else job.run
    _finish(lambda: act(settings, split, files, None if format == "auto" else format), json)


@app.command()
def train(
    sentences: Annotated[
        Path | None, typer.Argument(metavar="TRAIN", help="Tagged sentences: a file, folder or quoted pattern.")
    ] = None,
    dev: Annotated[Path | None, typer.Option(help="Tagged sentences that choose the best model.")] = None,
    test: Annotated[Path | None, typer.Option(help="Tagged sentences for `ctxner evaluate`, not trained on.")] = None,
    folder: IndexFolder = None,
    name: Annotated[str | None, typer.Option("--name", "-n", help="Folder of the run, in run.storage.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="With --dry-run: ZeRO stages and other hardware.")] = False,
    config: ConfigFile = None,
    overrides: Overrides = NONE,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Train a tagger on both views by cooperative learning.

    With an index and no data.contexts, passages are retrieved into the run's folder where they are missing or stale.

    Example: `ctxner train train.jsonl --dev dev.jsonl --test test.jsonl --index runs/index --name first`

    Example: `ctxner train -c jobs/configs/wnut17-small.yaml --set run.workers=2`
    """
    from jobs import train as job

    settings = _with(load_config(config, overrides), "data", {"train": sentences, "dev": dev, "test": test})
    settings = _with(_with(settings, "index", {"folder": folder}), "run", {"name": name})
    _finish(
        lambda: job.plan(settings) if dry_run else job.run(settings),
        json,
        show=lambda result: job.show(settings, result, dry_run=dry_run, verbose=verbose),
    )


@app.command()
def evaluate(
    model: Model,
    split: Annotated[str, typer.Option(help="Which file of the data section.")] = "test",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="HTML page (default: evaluation-SPLIT.html beside the model).")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Of the view auto: entropy in nats above which a sentence is looked up (default: the model's)."
        ),
    ] = None,
    against: Annotated[str | None, typer.Option(help="Another model, to compare each view with.")] = None,
    config: ConfigFile = None,
    overrides: Overrides = NONE,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Score all views of a model against gold tags: what it gets wrong and where, and what the passages change.

    Without --config, the data, contexts and index are those that the model was trained with.

    Example: `ctxner evaluate runs/first/model`

    Example: `ctxner evaluate runs/wnut17/small/model -c jobs/configs/wnut17-small.yaml`
    """
    from jobs import evaluate as job
    from jobs.pages.page import page_beside

    settings = settings_for(model, config, overrides)
    page = out or page_beside(model, "model", f"evaluation-{split}")

    def result() -> dict[str, Any]:
        if dry_run:
            return job.plan(settings, model, split, out=page, threshold=threshold, against=against)
        renew_contexts(settings, model, split, config)
        return job.run(settings, model, split, out=page, threshold=threshold, against=against)

    _finish(
        result,
        json,
        show=terminal.show if dry_run else job.show,
    )


@app.command()
def calibrate(
    model: Annotated[str, typer.Argument(help="Model folder; calibration.json is written into it.")],
    split: Annotated[str, typer.Option(help="Which file of the data section; not the one to report on.")] = "dev",
    share: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Part of the sentences to look up, as near as equal entropies allow; 0.5 by default."
        ),
    ] = None,
    f1: Annotated[float | None, typer.Option(min=0, max=1, help="F1 to reach, looking up as few as can be.")] = None,
    gain: Annotated[
        float | None, typer.Option(min=0, max=1, help="Part of the context view's gain in F1 to keep, e.g. 0.9.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="HTML page (default: calibration-SPLIT.html beside the model).")
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = NONE,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Make a model's confidences true on dev, and choose which sentences `--view auto` looks up.

    Without --config, the data, contexts and index are those that the model was trained with.

    Example: `ctxner calibrate runs/wnut17/small/model -c jobs/configs/wnut17-small.yaml --share 0.5`
    """
    from jobs import calibrate as job
    from jobs.pages.page import page_beside

    settings = settings_for(model, config, overrides)
    page = out or page_beside(model, "model", f"calibration-{split}")
    wanted = job.Wanted(0.5 if (share, f1, gain) == (None, None, None) else share, f1, gain)

    def result() -> dict[str, Any]:
        if not dry_run:
            renew_contexts(settings, model, split, config)
        outcome = (job.plan if dry_run else job.run)(settings, model, split, wanted, out=page)
        return outcome if json or dry_run else job.summary(outcome)

    _finish(result, json)


@app.command()
def tag(
    sources: Annotated[
        list[str], typer.Argument(metavar="IN...", help="Files, folders, quoted patterns; or URIs that fsspec knows.")
    ],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder for the result; or a URI.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Model folder that `ctxner train` wrote, or a hub id.")],
    view: Annotated[
        Literal["plain", "context", "auto"] | None,
        typer.Option(help="auto: passages only where the plain view is unsure (default: tagging.view)."),
    ] = None,
    format: Annotated[
        Literal["auto", "columns", "jsonl", "parquet", "text", "files"],
        typer.Option(help="Of IN; auto goes by suffix, text is one document per line, files one document per file."),
    ] = "auto",
    to: Annotated[
        list[Written], typer.Option("--to", help="What to write; repeatable; four are for annotation tools.")
    ] = [Written.parquet],  # noqa: B006
    on_error: Annotated[
        Literal["stop", "skip"],
        typer.Option(help="A file of another encoding, or with a fault: stop before tagging, or leave it out."),
    ] = "stop",
    folder: IndexFolder = None,
    config: ConfigFile = None,
    overrides: Overrides = NONE,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Tag files of documents on Ray: entities with character offsets, one row per document, in order; resumable.

    Without --config, the index and the settings of retrieval are those that the model was trained with.

    Example: `ctxner tag "posts/*.jsonl.gz" runs/posts --model runs/demo/cl-kl/model --to parquet --to jsonl`

    Example: `ctxner tag s3://bucket/posts s3://bucket/tagged -m runs/model --view auto --index runs/index`
    """
    from jobs import tag as job

    settings = _with(settings_for(model, config, overrides), "index", {"folder": folder})
    settings = _with(settings, "tagging", {"view": view})
    act = job.plan if dry_run else job.run
    kind = None if format == "auto" else format
    _finish(
        lambda: act(
            settings,
            model,
            sources,
            out,
            kind=kind,
            formats=tuple(dict.fromkeys(kind.value for kind in to)),
            skip_faulty=on_error == "skip",
        ),
        json,
    )


@app.command()
def tag_text(
    model: Model,
    text: Annotated[list[str], typer.Argument(help="Texts; without any, lines of standard input.")] = [],  # noqa: B006
    index: Annotated[Path | None, typer.Option(help="Index to look things up in: the context view.")] = None,
    passage: Annotated[list[str], typer.Option(help="A passage at hand, instead of an index; repeatable.")] = [],  # noqa: B006
    config: ConfigFile = None,
    overrides: Overrides = NONE,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Tag a text or a few, and show the entities.

    Example: `ctxner tag-text runs/demo/cl-kl/model "We met in Velmora." --index runs/demo/index`
    """
    from jobs import tag_text as job

    settings = settings_for(model, config, overrides)
    texts = text or [line.rstrip("\n") for line in sys.stdin]
    act = job.plan if dry_run else job.run
    _finish(lambda: act(settings, model, texts, index=index, passages=passage), json)


OfModel = Annotated[
    str | None, typer.Option("--model", "-m", help="Model folder: the data, contexts and index of its training.")
]


def _of_run(model: str | None, config: Path | None, overrides: list[str]) -> Config:
    """The config file, or without one the settings that a model brings along."""
    return settings_for(model, config, overrides) if model else load_config(config, overrides)


@app.command()
def audit(
    model: OfModel = None,
    corpus: Annotated[list[Path], typer.Option("--corpus", help="Files as for `ctxner index`; repeatable.")] = [],  # noqa: B006
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

    settings = _with(_of_run(model, config, overrides), "index", {"corpus": tuple(corpus) or None})

    def result() -> dict[str, Any]:
        outcome = (job.plan if dry_run else job.run)(settings, out or job.default_page(settings))
        return outcome if json or dry_run else job.summary(outcome)

    _finish(result, json)


@app.command()
def retrieval_report(
    model: OfModel = None,
    split: Annotated[str, typer.Option(help="Which file of the data section.")] = "dev",
    k: Annotated[list[int], typer.Option("--k", help="Look at the first k passages; repeatable.")] = [1, 3, 6, 10],  # noqa: B006
    ceiling: Annotated[bool, typer.Option("--ceiling", help="Look for the mentions in the whole corpus too.")] = False,
    corpus: Annotated[list[Path], typer.Option("--corpus", help="For --ceiling (default: index.corpus).")] = [],  # noqa: B006
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="HTML page (default: retrieval-SPLIT.html beside the contexts).")
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
    from jobs.pages.page import page_beside

    settings = _with(_of_run(model, config, overrides), "index", {"corpus": tuple(corpus) or None})
    page = out or page_beside(settings.data.contexts, "contexts", f"retrieval-{split}")

    def result() -> dict[str, Any]:
        outcome = (job.plan if dry_run else job.run)(settings, split, k, with_ceiling=ceiling, out=page)
        return outcome if json or dry_run else job.summary(outcome)

    _finish(result, json)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything that the demo makes.")] = Path(
        "runs/demo"
    ),
    seed: Annotated[int, typer.Option(help="Of the invented world and of training.")] = 0,
    mode: Annotated[list[str], typer.Option(help="plain, context, cl-l2 or cl-kl; repeatable.")] = list(DEMO_MODES),  # noqa: B006
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Invent a small world, index it, retrieve, train in several modes and compare; offline, minutes on two cores.

    Example: `ctxner demo --mode plain --mode cl-l2 --mode cl-kl`
    """
    from jobs import demo as job

    _finish(lambda: job.plan(out, seed, mode) if dry_run else job.run(out, seed, mode), json, show=job.show)


def main() -> None:
    """Entry point: errors that a user can mend are one clear message and exit code 1."""
    terminal.set_up_logging()
    for commands in entry_points(group="ctxner.commands"):  # commands of serving, which jobs does not import
        app.add_typer(commands.load())
    try:
        app()
    except (ValueError, FloatingPointError, OSError) as error:
        terminal.fail(error)
        sys.exit(1)
    except Exception as error:
        if type(error).__name__ != "JavaException":  # of pyjnius, which only a process with a JVM may import
            raise
        from ctxner.retrieval.lucene.reader import damaged

        terminal.fail(ValueError(damaged(error)))
        sys.exit(1)


def _with(config: Config, section: str, given: dict[str, Any]) -> Config:
    """The config, with the given options instead of the section's values."""
    chosen = {name: value for name, value in given.items() if value is not None}
    changed = getattr(config, section).model_copy(update=chosen)
    return config.model_copy(update={section: changed})


def _require_corpus(config: Config) -> None:
    if not config.index.corpus:
        raise ValueError("no corpus; give --corpus FILE or set index.corpus")


def _finish(
    job: Callable[[], dict[str, Any]], json: bool, show: Callable[[dict[str, Any]], None] = terminal.show
) -> None:
    """Run a job, keep stdout for its result, and print the result; then, on stderr, its `warning`."""
    with terminal.results() as write:
        result = job()
        if json:
            write(terminal.as_json(result))
    warning = result.get("warning")
    if not json:
        show({key: value for key, value in result.items() if key != "warning"})
    if warning:
        terminal.warn(warning)
